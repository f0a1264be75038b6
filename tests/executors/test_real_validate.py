"""`advisor validate` with the real llama.cpp on the embedded model: garbage is refused with its reason."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_llamacpp_worker import changed, quantize
from tiny_gguf import tiny_model

from executors import validate as module
from executors.interpreters import interpreter_for
from executors.process import Watch, run_worker
from executors.worker import scales
from knowledge.base import AdvisorError, advisor_home
from knowledge.models import embedded_path

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (find_spec("llama_cpp") and embedded_path()), reason="needs edge-advisor[llamacpp]"),
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with f16.gguf, mix.gguf of the embedded model, and `home`, where scores are kept between tests."""
    folder = tmp_path_factory.mktemp("models")
    source = embedded_path()
    assert source is not None
    quantize(source, folder / "f16.gguf", "F16", allow_requantize=True)
    quantize(folder / "f16.gguf", folder / "mix.gguf", "Q8_0", [("ffn_gate", "Q5_0")])
    return folder


@pytest.fixture(autouse=True)
def few_blocks(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """20 blocks instead of 50, scores shared by the tests of this file."""
    monkeypatch.setattr(module, "BLOCKS", 20)
    monkeypatch.setenv("ADVISOR_HOME", str(models / "home"))


def judged(models: Path, artifact: Path, reference: str | Path) -> dict[str, Any]:
    return module.validate(artifact, reference, models / f"out-{artifact.stem}", threads=1)


def test_the_mix_passes_against_the_embedded_reference_and_its_answers_are_kept(models: Path) -> None:
    document = judged(models, models / "mix.gguf", "embedded")
    assert document["status"] == "passed"
    assert "demonstration" in document["reference"]["note"]
    tasks = document["validation"]["tasks"]
    assert tasks["questions"] == 60
    assert tasks["accuracy"]["reference"] > 0.5  # twice what guessing gives
    assert tasks["agreement"] > 0.9
    (kept,) = (advisor_home() / "cache" / "references").glob("*/answers.json")
    assert kept.is_file()
    assert document["validation"]["distribution"]["peak_rss_bytes"] < 134_857_792 + 500 * 10**6


def failing(document: dict[str, Any]) -> dict[str, Any]:
    assert document["status"] == "failed"
    return next(gate for gate in document["gates"] if gate["level"] == "required" and gate["result"] == "fail")


def test_random_weights_fail_by_their_quality(models: Path) -> None:
    draw = np.random.default_rng(0)
    path = changed(models, "random.gguf", "ffn_up", lambda blocks, kind: draw.shuffle(blocks))
    gate = failing(judged(models, path, models / "f16.gguf"))
    assert gate["id"] == "quality"
    assert gate["observed"] < 0.5


def test_zeroed_scales_fail_by_name(models: Path) -> None:
    def zero(blocks: Any, kind: str) -> None:
        for place in scales.BLOCKS[kind][1]:
            blocks[:, place : place + 2] = 0

    gate = failing(judged(models, changed(models, "zeroed.gguf", "ffn_down", zero), models / "f16.gguf"))
    assert gate["id"] == "integrity"
    assert "ffn_down" in gate["text"]


def test_a_broken_tokenizer_fails_before_anything_is_loaded(models: Path) -> None:
    path = models / "tokenizer.gguf"
    data = bytearray((models / "mix.gguf").read_bytes())
    one, other = (len(word.encode()).to_bytes(8, "little") + word.encode() for word in ("\u0120the", "\u0120and"))
    at, there = data.index(one), data.index(other)
    data[at : at + len(one)], data[there : there + len(other)] = other, one
    path.write_bytes(data)
    document = judged(models, path, models / "f16.gguf")
    assert "tokenizer" in failing(document)["text"]
    assert document["validation"]["smoke"] == {}


def test_another_model_fails_by_its_tensors(models: Path) -> None:
    gate = failing(judged(models, tiny_model().write(models / "tiny.gguf"), models / "f16.gguf"))
    assert "Tensor" in gate["text"]


def test_a_file_cut_short_fails_and_a_reference_cut_short_is_bad_input(models: Path) -> None:
    cut = models / "cut.gguf"
    cut.write_bytes((models / "mix.gguf").read_bytes()[: 10**7])
    assert failing(judged(models, cut, models / "f16.gguf"))["id"] == "integrity"
    with pytest.raises(AdvisorError) as refused:
        judged(models, models / "mix.gguf", cut)
    assert refused.value.exit_code == 2


def test_questions_are_answered_alike_whatever_was_asked_before(models: Path, tmp_path: Path) -> None:
    """Going back in the cache gives what a fresh evaluation gives."""
    item = {"prompt": "Question: What is the capital of Japan?\nAnswer:", "options": ["Tokyo", "a small red house"]}

    def asked(items: list[dict[str, Any]]) -> list[list[float]]:
        request = {"op": "choices", "model": str(models / "mix.gguf"), "n_ctx": 128, "threads": 1, "items": items}
        watch = Watch(tmp_path / "log", lambda _: None, 60.0, 60.0, None, None)
        done = run_worker(interpreter_for("llama.cpp"), "llama.cpp", request, watch)
        found: list[list[float]] = done.result["log_likelihoods"]
        return found

    turned = {**item, "options": item["options"][::-1]}
    (alone,), (_, again, reverse) = asked([item]), asked([turned, item, turned])
    assert again == pytest.approx(alone, abs=0.02)
    assert reverse[::-1] == pytest.approx(alone, abs=0.02)
