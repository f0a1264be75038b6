"""From judged options to an order: scores by the user's priority, the Pareto set, a varied selection, the row shown."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

from advisor import embedding
from advisor.constraints import Constraints
from advisor.judging import Judged
from advisor.quality import METRIC, Retention
from advisor.speed import Interval
from knowledge.records import ModelSpec
from knowledge.serving import metric_of, modalities
from knowledge.tables import read_document

_SLOWEST_USEFUL_TPS = 2.5
_WORST_RETENTION = 0.8
_UNKNOWN_SPEED_SCORE = 0.35
_READ_PER_WRITTEN = 25  # tokens that a model which only reads should read in the time another writes one
_WORTH_SHOWING = 0.7  # share of the best score below which an option is no alternative


@cache
def _priorities() -> dict[str, dict[str, float]]:
    return read_document("priorities.toml")


def order(survivors: Sequence[Judged], request: Constraints, *, top: int) -> list[Judged]:
    """Score all, mark the Pareto set, pick at most `top` that differ, best first.

    Deterministic: ties are broken by speed, then by name. The best option of every framework and engine has a place
    before a second precision of what is already there.
    """
    score(survivors, request)
    _mark_pareto(survivors)
    return sorted(_varied(sorted(survivors, key=_place), top), key=_place)


def _place(judged: Judged) -> tuple[float, float, tuple[str, ...]]:
    return -judged.scores["total"], -judged.axes[0], judged.key


def score(survivors: Sequence[Judged], request: Constraints) -> None:
    """Fill `scores` of each by the shares of the user's priority, or by the user's own."""
    shares = _priorities()[request.priority] | (request.weights.shares() if request.weights else {})
    for judged in survivors:
        _score(judged, shares, ranked_models=request.model is None)


def _varied(ordered: Sequence[Judged], top: int) -> list[Judged]:
    chosen: list[Judged] = []
    seen: set[Any] = set()
    best = ordered[0].scores["total"] if ordered else 0.0
    worth = best - (1 - _WORTH_SHOWING) * abs(best)  # a score may be negative
    passes = (
        lambda j: (j.option.backend.framework, j.option.engine.kind),
        lambda j: j.option.spec.name,
        lambda j: (j.option.spec.name, j.option.precision.name, j.option.backend.framework),
        lambda j: j.key,
    )
    for distinct in passes:
        for judged in ordered:
            if len(chosen) >= top:
                return chosen
            if judged.scores["total"] < worth and len(chosen) >= 1:
                break
            mark = distinct(judged)
            if judged not in chosen and mark not in seen:
                chosen.append(judged)
            seen.add(mark)
    return chosen


def _score(judged: Judged, shares: dict[str, float], *, ranked_models: bool) -> None:
    written = modalities()[judged.option.spec.modality].writes
    rate = judged.decode.mid if written else judged.prefill.mid and judged.prefill.mid / _READ_PER_WRITTEN
    speed = _speed_score(rate, shares["enough_tps"])
    able = capability(judged.option.spec, judged.option.facts["use_case"]) if ranked_models else 0.0
    kept = (judged.retention.mid - _WORST_RETENTION) / (1 - _WORST_RETENTION)
    quality = 0.75 * able + 0.25 * _clamp(kept) if ranked_models else _clamp(kept)
    memory = _headroom(judged)
    effort = 1 - judged.option.backend.effort
    judged.axes = (rate or _stand_in(shares["enough_tps"]), able, kept, memory, effort)
    total = (
        shares["speed"] * speed + shares["quality"] * quality + shares["memory"] * memory + shares["effort"] * effort
    )
    judged.scores = {
        "total": round(total + judged.preference, 6),
        "speed": round(speed, 6),
        "quality": round(quality, 6),
        "memory": round(memory, 6),
        "effort": round(effort, 6),
        "preference": round(judged.preference, 6),
    }


def _headroom(judged: Judged) -> float:
    """The share of the pool's usable memory that stays free, which is the same for a CPU and a GPU that share it; none
    of a model that lies in main memory, too, and fills the GPU's."""
    if (judged.size.split and judged.size.split.ram_share) or not judged.size.budget.pool_bytes:
        return 0.0
    return _clamp(1 - judged.size.need.total_bytes / judged.size.budget.pool_bytes)


def _speed_score(tps: float | None, enough: float) -> float:
    """1 where it is enough, 0 where it is just useful, down to -1: of what is too slow the faster is still better."""
    if tps is None:
        return _UNKNOWN_SPEED_SCORE
    return max(-1.0, min(1.0, math.log(max(tps, 1e-9) / _SLOWEST_USEFUL_TPS) / math.log(enough / _SLOWEST_USEFUL_TPS)))


def _stand_in(enough: float) -> float:
    """The speed (tok/s) that an unknown one is scored as."""
    return _SLOWEST_USEFUL_TPS * math.pow(enough / _SLOWEST_USEFUL_TPS, _UNKNOWN_SPEED_SCORE)


def capability(spec: ModelSpec, use_case: str = "chat") -> float:
    """How able the model is, 0 to 1: its published score by the use case's metric, else what its size suggests (for
    experts the geometric mean of total and active parameters)."""
    metric = metric_of(use_case)
    for known in spec.scores:
        if known.metric == metric.name:
            return _clamp((known.value - metric.worst) / (metric.best - metric.worst))
    size = math.sqrt(spec.params * (spec.active_params or spec.params)) / 1e9
    return 0.75 * (1 - math.exp(-size / 6))  # of text models by MMLU: 25 + 45 (1 - exp(-size / 6))


def _clamp(value: float) -> float:
    return min(1.0, max(0.0, value))


def _mark_pareto(survivors: Sequence[Judged]) -> None:
    """On the front: no other is at least as good in speed, in what the model can and what is kept of it, in memory and
    effort, and better in one. Speed counts beyond what the priority's score rewards."""
    points = sorted({judged.axes for judged in survivors}, reverse=True)
    front: list[tuple[float, ...]] = []
    for point in points:
        if not any(all(o >= p for o, p in zip(other, point, strict=True)) for other in front):
            front.append(point)
    marked = set(front)
    for judged in survivors:
        judged.pareto = judged.axes in marked


def recommendation(position: int, judged: Judged) -> dict[str, Any]:
    """The document row of one option."""
    option, need = judged.option, judged.size.need
    return {
        "rank": position,
        "pareto": judged.pareto,
        "model": option.spec.hf_id or option.spec.name,
        "params_b": round(option.spec.params_b, 4),
        "framework": option.backend.framework,
        "backend": option.backend.backend,
        "device": _device(judged),
        "precision": option.precision.name,
        "nominal_bits": option.facts["nominal_bits"],
        "precision_class": option.precision.precision_class,
        "settings": {**option.precision.settings, **(judged.size.split.settings if judged.size.split else {})},
        "context": option.context,
        "memory": {
            "weights_bytes": need.weights_bytes,
            "kv_bytes": need.kv_bytes,
            "overhead_bytes": need.overhead_bytes,
            "total_bytes": need.total_bytes,
            "budget_bytes": judged.size.budget.bytes,
            "pool": judged.size.budget.pool,
            "parts": [{"name": n, "bytes": b, "source": s} for n, b, s in need.parts],
        },
        "disk": judged.size.disk,
        "decode_tps": band(judged.decode),
        "prefill_tps": band(judged.prefill),
        "ttft_ms": band(judged.ttft),
        "quality": quality_row(judged.retention, judged.option.spec),
        "reasons": judged.reasons,
        "warnings": judged.warnings,
        "score": judged.scores,
    }


def _device(judged: Judged) -> str:
    """`RTX 3090`, `2x RTX 3090`, `RTX 3090 + RTX 3060`."""
    split, engine = judged.size.split, judged.option.engine
    if split is None:
        return engine.name
    names = Counter(card.name for card in split.cards_of(engine))
    return " + ".join(name if count == 1 else f"{count}x {name}" for name, count in names.items())


def band(interval: Interval) -> dict[str, Any]:
    numbers = {
        k: None if v is None else float(f"{v:.4g}")
        for k, v in (("low", interval.low), ("mid", interval.mid), ("high", interval.high))
    }
    return {**numbers, "level": 0.9, "basis": interval.basis}


def quality_row(retention: Retention, spec: ModelSpec) -> dict[str, Any]:
    return {
        "retention": {
            "low": round(retention.low, 4),
            "mid": round(retention.mid, 4),
            "high": round(retention.high, 4),
            "level": 0.9,
        },
        "metric": embedding.METRIC if spec.is_encoder else METRIC,
        "basis": retention.basis,
        "source": retention.source,
    }
