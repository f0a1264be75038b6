"""How the vectors of an encoder are judged: what agreement is, and what cannot pass for it. No framework needed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from advisor.embedding import quality_gates
from advisor.plan import Gate, ValidateSettings
from executors import embedding_tiers
from executors.embedding_integrity import _other_tensors, _other_types
from executors.executor import Task, executor_for
from executors.gates import GateResult, evaluate, status_of
from executors.ir_integrity import bad_values
from executors.process import Watch
from executors.validation import VERDICTS
from executors.worker import encoding
from executors.worker.agreement import agreement
from executors.worker.protocol import WorkerError
from knowledge.base import AdvisorError

GROUPS = embedding_tiers.groups()
SIZES = [1 + len(group["passages"]) + len(group["sentences"]) for group in GROUPS]
COUNT, WIDTH = sum(SIZES), 64
Vectors = NDArray[np.float32]


@pytest.fixture(autouse=True)
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "progress", lambda done, total, text: None)
    monkeypatch.setattr(encoding, "metric", lambda name, value: None)


def unit(rows: Any) -> Vectors:
    found: Vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return found


def sound(seed: int = 0, *, shared: float = 0.0) -> Vectors:
    """Vectors of a model that knows which texts belong together; with `shared`, all of them point one way besides."""
    draw = np.random.default_rng(seed)
    topics = np.repeat(draw.normal(size=(len(SIZES), WIDTH)), SIZES, axis=0)
    return unit(topics + 0.7 * draw.normal(size=(COUNT, WIDTH)) + shared * np.ones(WIDTH))


def judged(vectors: Vectors, reference: Vectors) -> dict[str, Any]:
    found = agreement(SIZES, vectors, reference)
    facts = {"texts": COUNT, "tokens": 2000, "dimension": WIDTH}
    return {"status": "pass", **embedding_tiers.summarize({**found, **facts}, resamples=200)}


def gate(distribution: dict[str, Any], metric: str = "quality_retention") -> GateResult:
    gates = [Gate.model_validate(row) for row in quality_gates(0.95)]
    results = evaluate(gates, {"distribution": distribution}, {})
    return next(result for result in results if result.metric == metric)


# ---- the texts


def test_the_texts_are_enough_and_none_is_there_twice() -> None:
    texts = [t for group in GROUPS for t in (group["query"], *group["passages"], *group["sentences"])]
    assert len(texts) >= 60
    assert len(set(texts)) == len(texts)
    assert len(GROUPS) >= 20, "an interval needs twenty groups"
    assert all(len(group["passages"]) >= 2 and len(group["sentences"]) >= 2 for group in GROUPS)
    sources = (embedding_tiers.SENTENCES.parent / "SOURCES.md").read_text(encoding="utf-8")
    assert embedding_tiers.SENTENCES.name in sources


# ---- agreement


def test_the_reference_agrees_with_itself() -> None:
    found = judged(sound(), sound())
    for key in ("centred_cosine", "rank_correlation", "top_overlap", "retention"):
        assert found[key]["value"] == pytest.approx(1)
    assert found["cosine_similarity"]["min"] == pytest.approx(1)
    assert found["ndcg"]["reference"] > 0.9
    assert gate(found).result == "pass"


def test_a_little_noise_passes_and_more_does_not() -> None:
    draw, reference = np.random.default_rng(1), sound()
    noise = draw.normal(size=reference.shape) / np.sqrt(WIDTH)
    assert gate(judged(unit(reference + 0.05 * noise), reference)).result == "pass"
    worse = judged(unit(reference + 0.6 * noise), reference)
    assert gate(worse).result == "fail"
    assert gate(worse, "cosine_similarity").result == "fail"


def test_random_vectors_fail_also_where_all_of_them_point_one_way() -> None:
    reference, other = sound(shared=3.0), sound(seed=7, shared=3.0)
    found = judged(other, reference)
    assert found["cosine_similarity"]["mean"] > 0.8, "the plain cosine is fooled"
    assert found["centred_cosine"]["value"] < 0.9
    assert gate(found).result == "fail"
    assert gate(judged(unit(np.random.default_rng(2).normal(size=reference.shape)), reference)).observed < 0.2  # type: ignore[operator]


def test_one_vector_for_every_text_fails_whatever_its_direction() -> None:
    reference = sound(shared=8.0)
    mean = unit(np.repeat(reference.mean(axis=0, keepdims=True), COUNT, axis=0))
    found = judged(mean, reference)
    assert found["cosine_similarity"]["mean"] > 0.95
    assert (found["centred_cosine"]["value"], found["rank_correlation"]["value"]) == (pytest.approx(0, abs=1e-3), 0)
    assert gate(found).result == "fail"


def test_vectors_that_are_right_but_belong_to_other_texts_fail() -> None:
    reference = sound()
    assert gate(judged(np.roll(reference, SIZES[0], axis=0), reference)).result == "fail"


def test_retention_is_the_least_of_three_so_that_none_makes_up_for_another() -> None:
    found = judged(unit(sound() + 0.02), sound())
    least = min(found["centred_cosine"]["value"], found["rank_correlation"]["value"], found["ndcg"]["ratio"])
    assert found["retention"]["value"] == pytest.approx(least)


def test_few_groups_never_pass() -> None:
    found = agreement(SIZES[:10], sound()[: sum(SIZES[:10])], sound()[: sum(SIZES[:10])])
    few = {"status": "pass", **embedding_tiers.summarize({**found, "texts": 50, "tokens": 9, "dimension": WIDTH})}
    assert gate(few).result == "inconclusive"


def test_ranks_share_ties_and_the_right_documents_are_counted() -> None:
    vectors = unit(np.array([[1, 0], [1, 0.1], [1, 0.2], [0, 1], [0.1, 1], [0.2, 1]], float))
    found = agreement([3, 3], vectors, vectors)
    assert [row[0] for row in found["groups"]] == [3, 3]
    assert [row[5] for row in found["groups"]] == [pytest.approx(1)] * 2
    assert found["documents"] == 4


# ---- the worker's part


class Model:
    """An encoder of words: each has a vector; `damage` is put into what it computes."""

    def __init__(self, *, damage: float = 0.0, width: int = 16, shift: int = 0) -> None:
        self.dimension, self.devices, self.load_seconds = width, ["CPU"], 0.1
        self.damage, self.shift = damage, shift

    def tokenize(self, text: str) -> list[int]:
        return encoding.cut([1, *(hash_of(word) + self.shift for word in text.split()), 2], 32)

    def hidden(self, tokens: Sequence[int]) -> Vectors:
        rows = [np.random.default_rng(token).normal(size=self.dimension) for token in tokens]
        return (np.array(rows) + self.damage).astype(np.float32)


def hash_of(word: str) -> int:
    return sum(ord(letter) * 31**n for n, letter in enumerate(word)) % 10_000 + 3


def embed(model: Model, store: Path, mode: str) -> dict[str, Any]:
    return encoding.embed(model, {"groups": GROUPS, "store": str(store), "mode": mode, "pooling": "mean"})


def smoke(model: Model, dimension: int = 16) -> dict[str, Any]:
    texts = [group["query"] for group in GROUPS[:4]]
    return encoding.smoke(model, {"texts": texts, "pooling": "mean", "dimension": dimension})


def test_a_store_compares_with_itself_and_says_of_what(tmp_path: Path) -> None:
    made = embed(Model(), tmp_path, "reference")
    found = embed(Model(), tmp_path, "compare")
    assert (made["texts"], made["dimension"], found["texts"]) == (COUNT, 16, COUNT)
    assert found["cosine_min"] == pytest.approx(1, abs=1e-5)
    assert found["tokens_sha256"] == made["sha256"]["tokens.json"]
    assert embedding_tiers.summarize(found, resamples=50)["retention"]["value"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("model", "code"),
    [
        (Model(shift=1), "tokenizer-mismatch"),
        (Model(width=8), "wrong-dimension"),
        (Model(damage=float("nan")), "non-finite-vectors"),
        (Model(damage=float("inf")), "non-finite-vectors"),
    ],
)
def test_what_does_not_compare_is_a_verdict_with_its_reason(tmp_path: Path, model: Model, code: str) -> None:
    embed(Model(), tmp_path, "reference")
    with pytest.raises(WorkerError) as caught:
        embed(model, tmp_path, "compare")
    assert caught.value.code == code
    assert code in VERDICTS


@pytest.mark.parametrize("damage", ["cut", "index", "texts", "gone"])
def test_a_store_that_is_damaged_or_of_other_texts_is_not_used(tmp_path: Path, damage: str) -> None:
    embed(Model(), tmp_path, "reference")
    if damage == "cut":
        data = (tmp_path / "vectors.f32").read_bytes()
        (tmp_path / "vectors.f32").write_bytes(data[:-4] + b"abcd")
    elif damage == "index":
        (tmp_path / "index.json").write_text("[" * 100_000)
    elif damage == "texts":
        index = json.loads((tmp_path / "index.json").read_text())
        (tmp_path / "index.json").write_text(json.dumps({**index, "text_sha256": "0" * 64}))
    else:
        (tmp_path / "index.json").unlink()
    with pytest.raises(WorkerError) as caught:
        embed(Model(), tmp_path, "compare")
    assert caught.value.code == "bad-reference"


def test_the_smoke_test_wants_different_finite_vectors_of_the_right_length() -> None:
    assert smoke(Model())["dimension"] == 16
    for model, dimension, code in (
        (Model(), 32, "wrong-dimension"),
        (Model(damage=float("nan")), 16, "non-finite-vectors"),
        (Model(damage=1e9), 16, "equal-vectors"),
    ):
        with pytest.raises(WorkerError) as caught:
            smoke(model, dimension)
        assert (caught.value.code, caught.value.code in VERDICTS) == (code, True)


def test_zeros_are_no_vector() -> None:
    class Dead(Model):
        def hidden(self, tokens: Sequence[int]) -> Vectors:
            return np.zeros((len(tokens), self.dimension), np.float32)

    with pytest.raises(WorkerError, match="zeros"):
        encoding.vector(Dead(), [1, 2], "mean")


def test_a_long_text_is_cut_before_its_last_special_token() -> None:
    assert encoding.cut([1, 5, 6, 7, 2], 4) == [1, 5, 6, 2]
    assert encoding.cut([1, 5, 2], 4) == [1, 5, 2]


def test_the_first_token_or_the_mean_makes_the_vector() -> None:
    states = Model().hidden([1, 5, 2])
    assert encoding.vector(Model(), [1, 5, 2], "cls") == pytest.approx(unit(states[:1])[0], abs=1e-6)
    assert encoding.vector(Model(), [1, 5, 2], "mean") == pytest.approx(unit(states.mean(0)[None])[0], abs=1e-6)


# ---- integrity and the seam


def row(name: str = "w", **changes: Any) -> dict[str, Any]:
    plain = {"name": name, "weight": True, "type": "u8", "elements": 64, "not_finite": 0, "zero_share": 0.0}
    return plain | changes


def test_what_was_planned_of_the_weights_is_checked() -> None:
    assert _other_types([row(), row("v")], "u8") == ""
    assert "v is f32 and u8 was planned" in _other_types([row(), row("v", type="f32")], "u8")
    assert _other_tensors([row()], [row()]) == ""
    assert "is missing" in _other_tensors([row()], [row(), row("v")])
    assert "another size" in _other_tensors([row(elements=65)], [row()])
    assert "are zero" in bad_values([row(zero_share=0.9)], set())
    assert bad_values([row(zero_share=0.9)], {"w"}) == ""
    assert "not numbers" in bad_values([row(not_finite=3)], set())


def test_an_encoder_has_no_tier_that_asks_it_to_write(tmp_path: Path) -> None:
    watch = Watch(tmp_path / "log", lambda _: None, 1, 1, None, None)
    task = Task(ValidateSettings(tier="tasks"), {"artifact": tmp_path}, 1, watch)
    with pytest.raises(AdvisorError) as caught:
        embedding_tiers.validate(task, ValidateSettings(tier="tasks"), "openvino", lambda _task, _settings: {})
    assert caught.value.code == "bad-plan"


def test_a_framework_without_encoders_says_so() -> None:
    with pytest.raises(AdvisorError, match="embedding models"):
        executor_for("llama.cpp", "embedding")


def test_every_required_gate_has_to_be_measured() -> None:
    gates = [Gate.model_validate(row) for row in quality_gates(0.95)]
    assert status_of(evaluate(gates, {}, {})) == "inconclusive"
