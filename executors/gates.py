"""Gates: what was measured against what the plan demands (DESIGN section 5).

A figure with an error passes only where its whole one-sided 95 % bound does, fails only where the bound lies wholly on
the wrong side, and is inconclusive in between or where too little was measured. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from advisor.plan import Gate
from executors.report_text import OPERATORS
from executors.validation import judge
from knowledge.base import format_bytes

Result = Literal["pass", "fail", "inconclusive"]
Status = Literal["passed", "failed", "inconclusive"]
MINIMUM_SAMPLES = 5  # of a timing, before its median is judged (facts of validation: at least 5 runs after warm-up)


@dataclass(frozen=True, slots=True)
class Observation:
    """A measured figure with its one-sided 95 % bounds: equal to `value` when it is exact, None when unknown.
    `broken` is why the tier behind it failed, where it did."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    broken: str = ""


@dataclass(frozen=True, slots=True)
class GateResult:
    """A line of the report's `gates`."""

    id: str
    metric: str
    op: str
    value: float
    observed: float | None
    level: str
    result: Result
    text: str


def evaluate(gates: Sequence[Gate], validation: Mapping[str, Any], performance: Mapping[str, Any]) -> list[GateResult]:
    """Each gate's result. `validation` and `performance` are those of report.json; what is absent was not measured."""
    return [_evaluate(gate, observe(gate.metric, validation, performance)) for gate in gates]


def status_of(results: Sequence[GateResult]) -> Status:
    """A run is passed when every required gate passes; one that fails makes it failed, none at all proves nothing."""
    required = {result.result for result in results if result.level == "required"}
    return "failed" if "fail" in required else "passed" if required == {"pass"} else "inconclusive"


def merit(results: Sequence[GateResult]) -> tuple[int, int, float]:
    """Orders rungs, best last: fewest required gates failed, fewest inconclusive, highest quality retention."""
    required = [result.result for result in results if result.level == "required"]
    retention = next((r.observed for r in results if r.metric == "quality_retention" and r.observed is not None), 0.0)
    return -required.count("fail"), -required.count("inconclusive"), retention


def observe(metric: str, validation: Mapping[str, Any], performance: Mapping[str, Any]) -> Observation:
    """The figure that `metric` names, out of what a run measured."""
    return _OBSERVERS[metric](validation, performance)


def _evaluate(gate: Gate, seen: Observation) -> GateResult:
    if seen.broken:
        result: Result = "fail"
        text = seen.broken
    else:
        result = _judge(gate, seen)
        text = _sentence(gate, seen, result)
    return GateResult(gate.id, gate.metric, gate.op, gate.value, seen.value, gate.level, result, text)


def _judge(gate: Gate, seen: Observation) -> Result:
    if gate.op != "==":
        return judge(gate.op, gate.value, seen.low, seen.high)
    sides = {judge(op, gate.value, seen.low, seen.high) for op in (">=", "<=")}
    return "fail" if "fail" in sides else "inconclusive" if "inconclusive" in sides else "pass"


def _sentence(gate: Gate, seen: Observation, result: Result) -> str:
    label = _LABELS[gate.metric]
    if seen.value is None:
        return f"{label} was not measured."
    if gate.metric in ("integrity", "smoke"):
        return f"{label} {'passed' if seen.value else 'failed'}."
    show = _formatter(gate.metric)
    bounds = ""
    if seen.low is not None and seen.high is not None and seen.low != seen.high:
        bounds = f" ({show(seen.low)} to {show(seen.high)})"
    verb = {"pass": "keeps", "fail": "misses", "inconclusive": "may or may not keep"}[result]
    few = "; too few samples to tell" if result == "inconclusive" and not bounds else ""
    return f"{label} {show(seen.value)}{bounds} {verb} the limit {OPERATORS[gate.op]} {show(gate.value)}{few}."


def _formatter(metric: str) -> Callable[[float], str]:
    if metric == "peak_rss_bytes":
        return format_bytes
    if metric in ("decode_tps", "ttft_ms"):
        return "{:.1f}".format
    return "{:.4f}".format if metric == "cosine_similarity" else "{:.3f}".format


_LABELS = {
    "integrity": "The integrity check",
    "smoke": "The smoke test",
    "quality_retention": "Quality retention",
    "memory_ratio": "Tensor bytes per 16-bit byte",
    "decode_ratio": "Decode speed against the reference",
    "peak_rss_bytes": "Peak resident memory",
    "kl_divergence": "Mean KL divergence (nats)",
    "same_top1": "Same top-1 token",
    "cosine_similarity": "Mean cosine to the reference's vectors",
    "top_overlap": "The same documents among the first ten",
    "runtime_kl_divergence": "The runtime against these weights (mean KL divergence, nats)",
    "task_retention": "Right answers against the reference's",
    "decode_tps": "Decode (tokens/s)",
    "ttft_ms": "Time to first token (ms)",
}


_COMPARED = {"": "The comparison with the reference", "runtime": "The comparison of the runtime with its weights"}


def _tier(name: str) -> Callable[[Mapping[str, Any], Mapping[str, Any]], Observation]:
    def seen(validation: Mapping[str, Any], _: Mapping[str, Any]) -> Observation:
        tier = validation.get(name)
        if not tier:
            return Observation()
        if tier.get("status") == "pass":
            return Observation(1.0, 1.0, 1.0)
        return Observation(0.0, 0.0, 0.0, broken=f"{_LABELS[name]} failed: {tier.get('reason') or 'no reason given'}")

    return seen


def _compared(name: str, key: str, value: str) -> Callable[[Mapping[str, Any], Mapping[str, Any]], Observation]:
    def seen(validation: Mapping[str, Any], _: Mapping[str, Any]) -> Observation:
        tier = validation.get(name) or {}
        if tier.get("status") == "fail":
            return Observation(
                broken=f"{_COMPARED.get(name, _COMPARED[''])} failed: {tier.get('reason') or 'no reason given'}"
            )
        figure = tier.get(key) or {}
        return Observation(figure.get(value), figure.get("low95"), figure.get("high95"))

    return seen


def _memory_ratio(validation: Mapping[str, Any], _: Mapping[str, Any]) -> Observation:
    """Bytes of the tensors over 2 bytes per parameter: neither metadata nor the tokenizer counts."""
    tier = validation.get("integrity") or {}
    if not tier.get("tensor_bytes") or not tier.get("parameters"):
        return Observation()
    return _exact(tier["tensor_bytes"] / (2 * tier["parameters"]))


def _decode_ratio(_: Mapping[str, Any], performance: Mapping[str, Any]) -> Observation:
    ratio = performance.get("decode_ratio") or {}
    return Observation(ratio.get("value"), ratio.get("low95"), ratio.get("high95"))


def _peak_rss(validation: Mapping[str, Any], performance: Mapping[str, Any]) -> Observation:
    """The largest of what the smoke test and the timed runs of the artifact needed."""
    timed = (performance.get("artifact") or {}).get("peak_rss_bytes") or {}
    peaks = [peak for peak in ((validation.get("smoke") or {}).get("peak_rss_bytes"), timed.get("p95")) if peak]
    return _exact(max(peaks)) if peaks else Observation()


def _timing(metric: str) -> Callable[[Mapping[str, Any], Mapping[str, Any]], Observation]:
    def seen(_: Mapping[str, Any], performance: Mapping[str, Any]) -> Observation:
        figure = (performance.get("artifact") or {}).get(metric) or {}
        enough = figure.get("n", 0) >= MINIMUM_SAMPLES
        median = figure.get("median")
        return _exact(median) if enough and median is not None else Observation(median)

    return seen


def _exact(value: float) -> Observation:
    return Observation(value, value, value)


_OBSERVERS: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any]], Observation]] = {
    "integrity": _tier("integrity"),
    "smoke": _tier("smoke"),
    "quality_retention": _compared("distribution", "retention", "value"),
    "memory_ratio": _memory_ratio,
    "decode_ratio": _decode_ratio,
    "peak_rss_bytes": _peak_rss,
    "kl_divergence": _compared("distribution", "kl_divergence", "mean"),
    "same_top1": _compared("distribution", "same_top1", "value"),
    "cosine_similarity": _compared("distribution", "cosine_similarity", "mean"),
    "top_overlap": _compared("distribution", "top_overlap", "value"),
    "runtime_kl_divergence": _compared("runtime", "kl_divergence", "mean"),
    "task_retention": _compared("tasks", "retention", "value"),
    "decode_tps": _timing("decode_tps"),
    "ttft_ms": _timing("ttft_ms"),
}
