"""What would run as well but is not among the recommendations: by which rule or on which axes it fell behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from advisor.judging import Judged

_AXES = ("speed", "quality", "memory", "effort", "preference")
_SMALLEST_GAP = 0.005


def outranked(survivors: Sequence[Judged], chosen: Sequence[Judged]) -> list[dict[str, Any]]:
    """The best option of every framework and kind of engine that is not shown, with what it lost by to the first.

    `rule` is the objection that cost it most, or `rank.score`.
    """
    shown = {_where(judged) for judged in chosen}
    best_there: dict[tuple[str, str], Judged] = {}
    for judged in sorted(survivors, key=lambda j: (-j.scores["total"], j.key)):
        best_there.setdefault(_where(judged), judged)
    return [_row(judged, chosen[0]) for where, judged in best_there.items() if where not in shown]


def lags_behind(rival: Judged, best: Judged) -> str:
    """The scores of both in all, and on each axis where the rival has less."""
    option, scores = rival.option, rival.scores
    behind = [axis for axis in _AXES if scores[axis] < best.scores[axis] - _SMALLEST_GAP]
    axes = ", ".join(f"{axis} {scores[axis]:.2f} against {best.scores[axis]:.2f}" for axis in behind)
    text = (
        f"{option.backend.framework} on {option.backend.backend} with {option.spec.name} at {option.precision.name} "
        f"scores {scores['total']:.2f}, ours {best.scores['total']:.2f}"
    )
    return f"{text}: {axes}." if axes else f"{text}."


def _where(judged: Judged) -> tuple[str, str]:
    return judged.option.backend.framework, judged.option.engine.kind


def _row(rival: Judged, best: Judged) -> dict[str, Any]:
    option = rival.option
    ours = {taken.rule.id for taken in best.taken}
    objections = [t for t in rival.taken if t.rule.weight < 0 and t.rule.id not in ours]
    worst = min(objections, key=lambda t: (t.rule.weight, t.rule.id), default=None)
    return {
        "framework": option.backend.framework,
        "backend": option.backend.backend,
        "precision": option.precision.name,
        "model": option.spec.name,
        "rule": worst.rule.id if worst else "rank.score",
        "text": lags_behind(rival, best) + (f" {worst.text}" if worst else ""),
        "source": worst.rule.source if worst else "the scores of this plan",
        "change": f"with --framework {option.backend.framework} --target {option.engine.kind}",
    }
