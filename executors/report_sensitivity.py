"""What a search for a mix measured, ranked for the reports: which groups of tensors mind fewer bits least."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Group:
    """A group of tensors lowered alone: `nats_added` to the mean KL divergence, `bytes_saved`; `share` of the largest
    divergence per byte; `lowered` in the mix that was chosen."""

    name: str
    nats_added: float
    bytes_saved: int
    share: float
    lowered: bool


def ranked(found: Mapping[str, Any] | None) -> list[Group]:
    """The groups of a report's `sensitivity`, those that cost least per byte saved first."""
    if not found or not found["measured"]:
        return []
    base, *lowered = found["measured"]
    chosen = (found["mix"] or {"groups": []})["groups"]
    rows = []
    for one in lowered:
        nats = max(0.0, one["kl_divergence"] - base["kl_divergence"])
        saved = base["tensor_bytes"] - one["tensor_bytes"]
        rows.append((nats / max(saved, 1), one["group"], nats, saved))
    most = max((cost for cost, *_ in rows), default=0) or 1.0
    return [Group(name, nats, saved, cost / most, name in chosen) for cost, name, nats, saved in sorted(rows)]


def about(found: Mapping[str, Any]) -> str:
    """How that was measured, as a sentence."""
    base = found["measured"][0]["kl_divergence"]
    return (
        f"Each group of tensors lowered alone from {found['base']} ({base:.4f} nats) to {found['lower']}, "
        f"on {found['tokens']} tokens of the calibration text; ranked by divergence added per byte saved."
    )
