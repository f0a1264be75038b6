"""Gates: exact figures, figures with errors, and figures that are not there."""

from __future__ import annotations

from typing import Any

import pytest
from fake_run import distribution, samples

from advisor.plan import Gate
from executors.gates import evaluate, merit, status_of
from executors.report import timings

INTEGRITY = {"status": "pass", "tensor_bytes": 980, "parameters": 1000}


def gate(metric: str, op: str, value: float, level: str = "required") -> Gate:
    return Gate.model_validate(
        {"id": metric.replace("_", "-"), "metric": metric, "op": op, "value": value, "level": level}
    )


def result(one: Gate, validation: dict[str, Any] | None = None, performance: dict[str, Any] | None = None) -> Any:
    return evaluate([one], validation or {}, performance or {})[0]


@pytest.mark.parametrize(
    ("retention", "expected"), [(0.96, "pass"), (0.9521, "pass"), (0.951, "inconclusive"), (0.94, "fail")]
)
def test_quality_passes_only_when_its_whole_interval_does(retention: float, expected: str) -> None:
    found = result(gate("quality_retention", ">=", 0.95), {"distribution": distribution(retention)})
    assert (found.result, found.observed) == (expected, retention)


def test_memory_is_tensor_bytes_over_two_bytes_per_parameter() -> None:
    found = result(gate("memory_ratio", "<=", 0.5), {"integrity": INTEGRITY})
    assert (found.observed, found.result) == (0.49, "pass")
    assert result(gate("memory_ratio", "<=", 0.489), {"integrity": INTEGRITY}).result == "fail"


@pytest.mark.parametrize("metric", ["integrity", "smoke"])
def test_a_tier_passes_fails_with_its_reason_or_was_not_run(metric: str) -> None:
    one = gate(metric, "==", 1)
    assert result(one, {metric: {"status": "pass"}}).result == "pass"
    broken = result(one, {metric: {"status": "fail", "reason": "A tensor is missing."}})
    assert broken.result == "fail"
    assert "A tensor is missing." in broken.text
    assert result(one).result == "inconclusive"


@pytest.mark.parametrize("metric", ["quality_retention", "kl_divergence", "same_top1"])
def test_a_comparison_that_broke_fails_every_gate_on_it(metric: str) -> None:
    broken = {"distribution": {"status": "fail", "reason": "Its logits are not finite."}}
    found = result(gate(metric, ">=", 0.0), broken)
    assert (found.result, found.observed) == ("fail", None)
    assert "not finite" in found.text


@pytest.mark.parametrize(
    ("metric", "op", "limit", "expected"),
    [
        ("decode_ratio", ">=", 1.4, "pass"), ("decode_ratio", ">=", 2.0, "fail"), ("decode_tps", ">=", 70, "pass"),
        ("decode_tps", ">=", 90, "fail"), ("ttft_ms", "<=", 1000, "pass"), ("peak_rss_bytes", "<=", 3e8, "pass"),
        ("peak_rss_bytes", "<=", 1e8, "fail"),
    ],
)  # fmt: skip
def test_speed_and_memory_are_judged_from_timed_pairs(metric: str, op: str, limit: float, expected: str) -> None:
    performance = timings({"reference": samples(50), "artifact": samples(75)})
    assert result(gate(metric, op, limit), {}, performance).result == expected


@pytest.mark.parametrize("metric", ["decode_ratio", "decode_tps", "ttft_ms"])
def test_few_samples_are_inconclusive(metric: str) -> None:
    few = {side: {k: v[:2] for k, v in samples(50).items()} for side in ("reference", "artifact")}
    found = result(gate(metric, ">=", 0.0), {}, timings(few))
    assert found.result == "inconclusive"
    assert found.observed is not None


def test_what_was_not_measured_is_inconclusive() -> None:
    for metric, op in (
        ("quality_retention", ">="),
        ("memory_ratio", "<="),
        ("decode_tps", ">="),
        ("peak_rss_bytes", "<="),
    ):
        found = result(gate(metric, op, 1.0))
        assert (found.result, found.observed) == ("inconclusive", None)


def test_only_required_gates_decide_a_run() -> None:
    passes, fails = gate("memory_ratio", "<=", 0.5), gate("memory_ratio", "<=", 0.1, "advisory")
    unknown = gate("decode_tps", ">=", 1)
    validation = {"integrity": INTEGRITY}
    assert status_of(evaluate([passes, fails], validation, {})) == "passed"
    assert status_of(evaluate([passes, unknown], validation, {})) == "inconclusive"
    assert status_of(evaluate([gate("memory_ratio", "<=", 0.1), unknown], validation, {})) == "failed"


def test_a_run_of_which_nothing_was_required_is_not_passed() -> None:
    advisory = evaluate([gate("memory_ratio", "<=", 0.5, "advisory")], {"integrity": INTEGRITY}, {})
    assert advisory[0].result == "pass"
    assert status_of(advisory) == status_of([]) == "inconclusive"


def test_the_better_rung_misses_fewer_gates_then_keeps_more_quality() -> None:
    gates = [gate("memory_ratio", "<=", 0.5), gate("quality_retention", ">=", 0.95)]

    def rung(retention: float, tensor_bytes: int) -> Any:
        tiers = {"integrity": {**INTEGRITY, "tensor_bytes": tensor_bytes}, "distribution": distribution(retention)}
        return merit(evaluate(gates, tiers, {}))

    assert rung(0.96, 980) > rung(0.99, 1100) > rung(0.98, 1100) > rung(0.90, 1100)
