"""Teacher-forced scores against brute force in float64, and a store that notices what happened to it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from executors.validation import LARGEST_EXPONENT
from executors.worker import scoring
from executors.worker.protocol import WorkerError

ROWS, VOCABULARY, BLOCK = 96, 257, 8


def pieces(logits: NDArray[Any], tokens: NDArray[Any], size: int = 40) -> Iterator[tuple[Any, Any]]:
    """As a worker gives them: a buffer that is overwritten by the next piece."""
    buffer = np.empty((size, logits.shape[1]), np.float32)
    for start in range(0, len(logits), size):
        part = logits[start : start + size]
        buffer[: len(part)] = part
        yield buffer[: len(part)], tokens[1:][start : start + len(part)]


def exact(logits: NDArray[Any]) -> NDArray[np.float64]:
    wide = logits.astype(np.float64)
    shifted = wide - wide.max(axis=1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


@pytest.fixture
def tokens() -> NDArray[np.int32]:
    return np.random.default_rng(1).integers(0, VOCABULARY, ROWS + 1).astype(np.int32)


def random_logits(seed: int, rows: int = ROWS, scale: float = 4.0) -> NDArray[np.float32]:
    return (np.random.default_rng(seed).standard_normal((rows, VOCABULARY)) * scale).astype(np.float32)


def store_of(folder: Path, logits: NDArray[Any], tokens: NDArray[Any]) -> dict[str, Any]:
    about = {"rows": len(logits), "vocabulary": VOCABULARY, "block_tokens": BLOCK, "context": 33}
    return scoring.write_reference(pieces(logits, tokens), folder, tokens, about)


def test_log_softmax_of_equal_logits_is_the_uniform_distribution() -> None:
    np.testing.assert_allclose(scoring.log_softmax(np.zeros((1, 4), np.float32)), -math.log(4), rtol=1e-6)


def test_log_softmax_stands_logits_of_a_thousand() -> None:
    got = scoring.log_softmax(np.array([[1000.0, 999.0]], np.float32))
    np.testing.assert_allclose(got, [[-math.log(1 + math.exp(-1)), -1 - math.log(1 + math.exp(-1))]], rtol=1e-5)


def test_a_reference_worse_than_a_double_can_say_is_still_written(tmp_path: Path) -> None:
    tokens = np.array([0, 1], np.int32)
    about = {"rows": 1, "vocabulary": 2, "block_tokens": 1, "context": 2}
    certain = iter([(np.array([[2000.0, 0.0]], np.float32), tokens[1:])])
    index = scoring.write_reference(certain, tmp_path, tokens, about)
    assert index["perplexity"] == pytest.approx(math.exp(scoring.LARGEST_EXPONENT))
    assert scoring.LARGEST_EXPONENT == LARGEST_EXPONENT


def test_two_token_divergence_by_hand(tmp_path: Path) -> None:
    """P = (3/4, 1/4), Q = (1/2, 1/2): KL = ln 2 - H(P), nll of token 0 is -ln of its probability."""
    p, q = np.log(np.array([[0.75, 0.25]], np.float32)), np.zeros((1, 2), np.float32)
    tokens = np.array([0, 0], np.int32)
    about = {"rows": 1, "vocabulary": 2, "block_tokens": 1, "context": 2}
    scoring.write_reference(iter([(p, tokens[1:])]), tmp_path, tokens, about)
    found = scoring.compare(iter([(q, tokens[1:])]), tmp_path, scoring.read_index(tmp_path))
    ((count, kl, same, nll_reference, nll),) = found["blocks"]
    assert (count, same) == (1, 1)
    assert kl == pytest.approx(0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5), rel=2e-3)
    assert nll_reference == pytest.approx(-math.log(0.75), abs=1e-6)
    assert nll == pytest.approx(math.log(2), abs=1e-6)


def test_comparison_equals_brute_force(tmp_path: Path, tokens: NDArray[np.int32]) -> None:
    reference, artifact = random_logits(2), random_logits(2) + 0.3 * random_logits(3, scale=1.0)
    index = store_of(tmp_path, reference, tokens)
    found = scoring.compare(pieces(artifact, tokens, size=17), tmp_path, index)
    p, q = exact(reference), exact(artifact)
    kl = (np.exp(p) * (p - q)).sum(axis=1)
    blocks = np.array(found["blocks"])
    np.testing.assert_allclose(blocks[:, 0], BLOCK)
    np.testing.assert_allclose(blocks[:, 1], kl.reshape(-1, BLOCK).sum(axis=1), rtol=2e-3, atol=1e-5)
    np.testing.assert_allclose(blocks[:, 2], (p.argmax(1) == q.argmax(1)).reshape(-1, BLOCK).sum(axis=1))
    for column, scores in ((3, p), (4, q)):
        nll = -scores[np.arange(ROWS), tokens[1:]]
        np.testing.assert_allclose(blocks[:, column], nll.reshape(-1, BLOCK).sum(axis=1), rtol=1e-5)
    assert found["kl_p99"] == pytest.approx(np.quantile(kl, 0.99), rel=5e-3)
    assert index["perplexity"] == pytest.approx(math.exp(-p[np.arange(ROWS), tokens[1:]].mean()), rel=1e-5)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), scale=st.floats(0.01, 30))
def test_sixteen_bit_store_costs_less_than_1e_minus_5_nats(tmp_path_factory: Any, seed: int, scale: float) -> None:
    store = tmp_path_factory.mktemp("store")
    tokens = np.random.default_rng(seed).integers(0, VOCABULARY, 17).astype(np.int32)
    logits = random_logits(seed, 16, scale)
    index = store_of(store, logits, tokens)
    found = scoring.compare(pieces(logits, tokens), store, index)
    assert 0 <= found["kl_p999"] < 1e-5
    assert [block[2] for block in found["blocks"]] == [BLOCK, BLOCK]
    assert all(block[3] == pytest.approx(block[4], abs=1e-4) for block in found["blocks"])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), shift=st.floats(-50, 50))
def test_divergence_is_never_negative_and_ignores_a_shift(tmp_path_factory: Any, seed: int, shift: float) -> None:
    store = tmp_path_factory.mktemp("store")
    tokens = np.zeros(17, np.int32)
    index = store_of(store, random_logits(seed, 16), tokens)
    other = random_logits(seed + 1, 16)
    plain = scoring.compare(pieces(other, tokens), store, index)
    shifted = scoring.compare(pieces(other + np.float32(shift), tokens), store, index)
    assert all(block[1] >= 0 for block in plain["blocks"])
    assert plain["kl_p999"] == pytest.approx(shifted["kl_p999"], rel=1e-3)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("row", [0, ROWS - 1])
def test_a_single_value_that_is_no_number_is_refused(
    tmp_path: Path, tokens: NDArray[np.int32], value: float, row: int
) -> None:
    good, bad = random_logits(4), random_logits(4)
    bad[row, 5] = value
    with pytest.raises(WorkerError) as caught:
        store_of(tmp_path / "a", bad, tokens)
    assert caught.value.code == "non-finite-logits"
    index = store_of(tmp_path / "b", good, tokens)
    with pytest.raises(WorkerError) as caught:
        scoring.compare(pieces(bad, tokens), tmp_path / "b", index)
    assert caught.value.code == "non-finite-logits"


@pytest.mark.parametrize("name", ["logprobs.f16", "nll.f64", "top1.i32", "tokens.i32"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_store_that_was_changed_is_refused(tmp_path: Path, tokens: NDArray[np.int32], name: str, damage: str) -> None:
    logits = random_logits(5)
    store_of(tmp_path, logits, tokens)
    path = tmp_path / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(data if damage == "flip" else data[:-2])
    index = scoring.read_index(tmp_path)

    def use() -> None:
        scoring.read_tokens(tmp_path, index)
        scoring.compare(pieces(logits, tokens), tmp_path, index)

    if damage == "remove" and name == "logprobs.f16":
        with pytest.raises(FileNotFoundError):
            use()
        return
    with pytest.raises(WorkerError) as caught:
        use()
    assert caught.value.code == "bad-reference"


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"schema": "other"}', "[" * 100_000, json.dumps({"schema": scoring.SCHEMA, "rows": 1})],
)
def test_a_bad_index_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(WorkerError) as caught:
        scoring.read_index(tmp_path)
    assert caught.value.code == "bad-reference"


@pytest.mark.parametrize("rows", [0, -8, 1.5, "96", 2**40, scoring.MAX_ROWS + BLOCK, 97, True])
def test_an_index_with_absurd_counts_is_refused(tmp_path: Path, tokens: NDArray[np.int32], rows: Any) -> None:
    index = store_of(tmp_path, random_logits(6), tokens)
    (tmp_path / "index.json").write_text(json.dumps({**index, "rows": rows}))
    with pytest.raises(WorkerError):
        scoring.read_index(tmp_path)


def test_an_unfinished_store_has_no_index(tmp_path: Path, tokens: NDArray[np.int32]) -> None:
    store_of(tmp_path, random_logits(7), tokens)
    bad = random_logits(7)
    bad[-1, 0] = math.nan
    with pytest.raises(WorkerError):
        store_of(tmp_path, bad, tokens)
    with pytest.raises(WorkerError):
        scoring.read_index(tmp_path)


def test_a_full_disk_is_noticed_before_writing(
    tmp_path: Path, tokens: NDArray[np.int32], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(WorkerError) as caught:
        store_of(tmp_path, random_logits(8), tokens)
    assert caught.value.code == "disk-full"
    assert not list(tmp_path.iterdir())
