"""Measured and published quality of precisions: `data/quality.csv`, and the loss by bits per weight of one 8B model.

The prediction from these rows is made in advisor.quality.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from knowledge.tables import read_rows


@dataclass(frozen=True, slots=True)
class QualityRow:
    """What one model kept in one precision.

    `retention` is 1 where nothing was lost: reference perplexity over artifact perplexity, or a task score relative to
    the 16-bit one, as `metric` says. `kl_divergence` is the mean in nats, `same_top1` a share; None where not
    reported. `method` is what was done beyond plain rounding; `measured` rows are our own.
    """

    framework: str
    precision: str
    model: str
    params_b: float
    retention: float
    kl_divergence: float | None
    same_top1: float | None
    metric: str
    method: str
    measured: bool
    source: str


@lru_cache(maxsize=1)
def load_quality() -> tuple[QualityRow, ...]:
    """Every row; within a framework those of plain, data-free quantization come first."""
    return tuple(
        QualityRow(
            framework=row["framework"],
            precision=row["precision"],
            model=row["model"],
            params_b=float(row["params_b"]),
            retention=float(row["retention"]),
            kl_divergence=_number(row["kl_divergence"]),
            same_top1=_number(row["same_top1"]),
            metric=row["metric"],
            method=row["method"],
            measured=row["measured"] == "yes",
            source=row["source"],
        )
        for row in read_rows("quality.csv")
    )


@lru_cache(maxsize=1)
def load_quality_curve() -> tuple[tuple[float, float], ...]:
    """(bits per weight of the whole file, share lost) of Llama-3-8B, ascending in bits."""
    return tuple((float(row["bits_per_weight"]), float(row["loss"])) for row in read_rows("quality_curve.csv"))


def _number(text: str) -> float | None:
    return float(text) if text else None
