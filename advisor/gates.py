"""The gates of a plan: the course's three, defined so that they can be met and not gamed, plus what the user asked for.

Limits by precision class: facts of data/validation_limits.toml (published KL divergences and token agreements).
"""

from __future__ import annotations

from functools import cache
from typing import Any

from advisor import embedding
from advisor.constraints import Constraints
from advisor.judging import Judged
from knowledge.tables import read_document

QUALITY_RETENTION = 0.95
DECODE_RATIO = 2.0


@cache
def _limits() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_document("validation_limits.toml")["limit"]
    return rows


def limits_for(nominal_bits: int) -> dict[str, Any]:
    """The row of the limits whose range of nominal bits holds `nominal_bits`."""
    return next(row for row in _limits() if row["bits_from"] <= nominal_bits <= row["bits_to"])


def quality_gates(nominal_bits: int, retention: float = QUALITY_RETENTION) -> list[dict[str, Any]]:
    """What any artifact of that many bits is judged by, whoever made it: required integrity, smoke, quality and memory,
    then advisory KL divergence and same top-1 token by class."""
    limits = limits_for(nominal_bits)
    return [
        _gate("integrity", "integrity", "==", 1, "required", "the file holds what was planned"),
        _gate("smoke", "smoke", "==", 1, "required", "it loads and answers"),
        _gate(
            "quality",
            "quality_retention",
            ">=",
            retention,
            "required",
            "perplexity of the reference over its own, same tokens",
        ),
        _gate(
            "memory",
            "memory_ratio",
            "<=",
            embedding.TEXT_MEMORY_RATIO,
            "required",
            "tensor bytes over 2 bytes per parameter",
        ),
        _gate(
            "kl-divergence",
            "kl_divergence",
            "<=",
            limits["kl_divergence"],
            "advisory",
            f"mean, limit for {limits['name']}",
        ),
        _gate("same-top1", "same_top1", ">=", limits["same_top1"], "advisory", f"limit for {limits['name']}"),
    ]


def tasks_gate() -> dict[str, Any]:
    """Advisory: sixty questions find damage, and cannot prove that so much was kept."""
    words = "right answers over the reference's, same questions"
    return _gate("tasks", "task_retention", ">=", QUALITY_RETENTION, "advisory", words)


def runtime_gate() -> dict[str, Any]:
    """Advisory: a runtime that computes an artifact wrong here says nothing about the artifact elsewhere."""
    limit = read_document("validation_limits.toml")["runtime"]["kl_divergence"]
    words = "the runtime against the artifact's own weights in 32 bits"
    return _gate("runtime", "runtime_kl_divergence", "<=", limit, "advisory", words, "its own weights")


def gates_for(best: Judged, request: Constraints) -> list[dict[str, Any]]:
    """Required: integrity, smoke, quality, memory, and what the user asked for. Advisory: the rest."""
    retention = QUALITY_RETENTION if request.max_quality_loss_pct is None else 1 - request.max_quality_loss_pct / 100
    peak = float(best.size.need.peak_rss_bytes)
    fits = _gate("peak-memory", "peak_rss_bytes", "<=", peak, "advisory", "resident memory within the plan", "plan")
    option = best.option
    if embedding.kind_of(option.spec, option.backend.framework, option.backend.backend) == "embedding":
        return [*embedding.quality_gates(retention), fits]
    *required, divergence, top1 = quality_gates(best.option.facts["nominal_bits"], retention)
    gates = [
        *required,
        _gate("decode", "decode_ratio", ">=", DECODE_RATIO, "advisory", "decode speed over the reference's, in pairs"),
        fits,
        divergence,
        top1,
    ]
    if request.min_decode_tps is not None:
        gates.append(
            _gate("decode-speed", "decode_tps", ">=", request.min_decode_tps, "required", "asked for", "request")
        )
    if request.max_ttft_ms is not None:
        gates.append(_gate("first-token", "ttft_ms", "<=", request.max_ttft_ms, "required", "asked for", "request"))
    return gates


def _gate(
    gate: str, metric: str, op: str, value: float, level: str, text: str, against: str = "16-bit reference"
) -> dict[str, Any]:
    return {"id": gate, "metric": metric, "op": op, "value": value, "against": against, "level": level, "text": text}
