"""Figures with errors, and verdicts that few samples cannot win."""

from __future__ import annotations

import json
import math
import random
import statistics
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executors.validation import MINIMUM_BLOCKS, judge, paired_ratio, spread, summarize

Blocks = list[list[float]]


def blocks_of(count: int, seed: int = 0, loss: float = 0.01, noise: float = 0.02) -> Blocks:
    """Blocks of 64 tokens at a perplexity of about e^3, the artifact `loss` nats per token worse."""
    draw = random.Random(seed)
    made = []
    for _ in range(count):
        reference = 64 * draw.gauss(3, 0.5)
        artifact = reference + 64 * draw.gauss(loss, noise)
        made.append([64, 64 * abs(draw.gauss(0.01, 0.003)), draw.randint(56, 64), reference, artifact])
    return made


def summary(blocks: Blocks, **options: Any) -> dict[str, Any]:
    return summarize(blocks, kl_p99=0.1, kl_p999=0.2, **options)


def test_figures_by_hand() -> None:
    found = summary([[2, 0.2, 1, 2 * math.log(8), 2 * math.log(10)]] * 30)
    assert found["tokens"] == 60
    assert found["perplexity"]["reference"] == pytest.approx(8)
    assert found["perplexity"]["artifact"] == pytest.approx(10)
    assert found["perplexity"]["ratio"] == pytest.approx(1.25)
    assert found["retention"]["value"] == pytest.approx(0.8)
    assert found["kl_divergence"]["mean"] == pytest.approx(0.1)
    assert found["same_top1"]["value"] == 0.5
    assert found["retention"]["stderr"] == pytest.approx(0, abs=1e-12)
    assert found["retention"]["low95"] == pytest.approx(found["retention"]["high95"])


def test_same_blocks_and_seed_give_the_same_bytes() -> None:
    assert json.dumps(summary(blocks_of(50), seed=3)) == json.dumps(summary(blocks_of(50), seed=3))


def test_pairing_makes_the_ratio_far_surer_than_either_perplexity() -> None:
    """The spread between blocks (0.5 nats) cancels: what is left is that of the difference (0.02 nats)."""
    found = summary(blocks_of(50))
    assert found["retention"]["stderr"] == pytest.approx(0.02 / math.sqrt(50), rel=0.4)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    truth = math.exp(-0.03)
    low = high = 0
    for seed in range(120):
        found = summary(blocks_of(50, seed, loss=0.03, noise=0.05), resamples=400)["retention"]
        low += found["low95"] <= truth
        high += found["high95"] >= truth
    assert 0.87 <= low / 120 <= 1
    assert 0.87 <= high / 120 <= 1


def test_few_blocks_claim_no_interval_and_pass_nothing() -> None:
    found = summary(blocks_of(MINIMUM_BLOCKS - 1))
    assert found["retention"]["low95"] is None
    assert found["retention"]["value"] > 0.9
    assert judge(">=", 0.5, found["retention"]["low95"], found["retention"]["high95"]) == "inconclusive"


def test_correlated_neighbours_widen_the_interval() -> None:
    """Blocks that hold whole runs of equal tokens are surer of less than the same tokens shuffled."""
    draw = random.Random(5)
    runs = [[draw.gauss(0, 0.2)] * 64 for _ in range(50)]
    tokens = [token for run in runs for token in run]
    draw.shuffle(tokens)
    shuffled = [tokens[i * 64 : (i + 1) * 64] for i in range(50)]
    wide, narrow = (
        summary([[64, 0, 64, 64 * 3.0, 64 * 3.0 + sum(block)] for block in made])["retention"]["stderr"]
        for made in (runs, shuffled)
    )
    assert wide > 4 * narrow


def test_many_blocks_are_merged_and_keep_their_error() -> None:
    many = summary(blocks_of(3000, noise=0.2), resamples=500)
    assert many["blocks"] == 3000
    assert many["retention"]["stderr"] == pytest.approx(0.2 / math.sqrt(3000), rel=0.3)


@pytest.mark.parametrize("nats", [360.0, 500.0, 5000.0])
def test_garbage_worse_than_a_double_can_say_is_still_a_document(nats: float) -> None:
    found = summary([[64, 64 * nats, 0, 64 * 3.0, 64 * nats + k] for k in range(30)])
    json.dumps(found, allow_nan=False)
    assert judge(">=", 0.95, found["retention"]["low95"], found["retention"]["high95"]) == "fail"


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(MINIMUM_BLOCKS, 60), loss=st.floats(-0.2, 0.5))
def test_bounds_enclose_the_value_and_ratio_times_retention_is_one(seed: int, count: int, loss: float) -> None:
    found = summary(blocks_of(count, seed, loss), resamples=200)
    for figure, key in (("retention", "value"), ("kl_divergence", "mean"), ("same_top1", "value")):
        part = found[figure]
        assert part["low95"] <= part[key] + 3 * part["stderr"]
        assert part["high95"] >= part[key] - 3 * part["stderr"]
    assert found["perplexity"]["ratio"] * found["retention"]["value"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("op", "limit", "low", "high", "verdict"),
    [
        (">=", 0.95, 0.95, 0.99, "pass"),
        (">=", 0.95, 0.94, 0.99, "inconclusive"),
        (">=", 0.95, 0.90, 0.9499, "fail"),
        (">=", 0.95, 0.90, 0.95, "inconclusive"),
        ("<=", 0.5, 0.4, 0.5, "pass"),
        ("<=", 0.5, 0.4, 0.6, "inconclusive"),
        ("<=", 0.5, 0.51, 0.6, "fail"),
        ("<=", 0.5, 0.498, 0.498, "pass"),
        (">=", 2.0, None, 3.0, "inconclusive"),
        (">=", 2.0, 3.0, None, "inconclusive"),
        (">=", 0.0, math.nan, math.nan, "fail"),
        ("<=", 9.0, -math.inf, 1.0, "fail"),
    ],
)
def test_gate_rule(op: str, limit: float, low: float | None, high: float | None, verdict: str) -> None:
    assert judge(op, limit, low, high) == verdict


@given(
    op=st.sampled_from([">=", "<="]),
    limit=st.floats(-10, 10),
    bounds=st.tuples(st.floats(-10, 10), st.floats(-10, 10)),
    wider=st.floats(0, 5),
)
def test_a_wider_interval_never_turns_one_verdict_into_the_other(
    op: str, limit: float, bounds: tuple[float, float], wider: float
) -> None:
    low, high = sorted(bounds)
    narrow, wide = judge(op, limit, low, high), judge(op, limit, low - wider, high + wider)
    assert wide in (narrow, "inconclusive")


def test_an_unknown_operator_is_an_error() -> None:
    with pytest.raises(ValueError, match="operator"):
        judge("~", 1, 1, 1)


def test_ratio_of_five_pairs_is_bounded_by_its_extremes() -> None:
    found = paired_ratio([1, 2, 4, 5, 10], [2, 5, 8, 9, 30])
    assert found == {"value": 2.0, "low95": 1.8, "high95": 3.0}


def test_ratio_of_four_pairs_has_no_bound() -> None:
    assert paired_ratio([1] * 4, [2] * 4) == {"value": 2.0, "low95": None, "high95": None}


def test_ratio_of_no_pairs_is_unknown() -> None:
    assert paired_ratio([], [])["value"] is None


@pytest.mark.parametrize("n", [5, 7, 8, 11, 20, 40])
def test_ratio_bound_covers_the_median_in_95_of_100_cases(n: int) -> None:
    """The bound's rank is the largest whose binomial tail stays within 5 %."""
    values = [float(i) for i in range(1, n + 1)]
    low = paired_ratio([1.0] * n, values)["low95"]
    assert low is not None
    rank = int(low)
    assert sum(math.comb(n, k) for k in range(rank)) / 2**n <= 0.05
    assert sum(math.comb(n, k) for k in range(rank + 1)) / 2**n > 0.05


@given(st.lists(st.floats(0.1, 1000), min_size=1, max_size=40))
def test_spread_agrees_with_the_median_and_stays_in_range(samples: list[float]) -> None:
    found = spread(samples)
    assert found["median"] == pytest.approx(statistics.median(samples))
    assert min(samples) - 1e-9 <= found["p95"] <= max(samples) + 1e-9
    assert 0 <= found["iqr"] <= max(samples) - min(samples) + 1e-9
    assert found["n"] == len(samples)
