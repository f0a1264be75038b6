"""What to try next when a required gate fails: the other precisions of the same model on the same backend, those that
are expected to pass both required gates first, each rung with the reason it stands there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from advisor.embedding import TEXT_MEMORY_RATIO as MEMORY_RATIO
from advisor.embedding import memory_limit
from advisor.gates import QUALITY_RETENTION
from advisor.judging import Judged
from advisor.quality import METRIC
from advisor.rank import quality_row
from advisor.recipe import recipe_of
from advisor.sensitivity import BASE, LARGEST_PARAMS_B, LOWER
from knowledge.native import is_native
from knowledge.precisions import overrides_of, uses_imatrix

MAX_RUNGS = 4


def ladder_for(best: Judged, alternatives: Sequence[Judged]) -> list[dict[str, Any]]:
    """At most MAX_RUNGS rungs, none in 16 bits, and with an importance matrix only where the plan collects one; then,
    for a small model in llama.cpp that was trained in 16 bits, a mix that will be measured."""
    others = [
        j
        for j in alternatives
        if j.option.backend is best.option.backend
        and j.option.engine == best.option.engine
        and j.option.precision.name != best.option.precision.name
        and j.option.precision.nominal_bits < 16
        and recipe_of(j)
        and (not uses_imatrix(j.option.precision) or uses_imatrix(best.option.precision))
    ]
    rungs = [_rung(j) for j in sorted(others, key=_merit)[:MAX_RUNGS]]
    spec = best.option.spec
    small = spec.params_b <= LARGEST_PARAMS_B and best.option.backend.framework == "llama.cpp"
    return [*rungs, _measured()] if small and not is_native(spec, best.option.precision) else rungs


def _merit(judged: Judged) -> tuple[bool, bool, float, str]:
    limit = memory_limit(judged.option.spec)
    small, good = judged.size.weights.ratio <= limit, judged.retention.mid >= QUALITY_RETENTION
    return not (small and good), not good, -judged.retention.mid, judged.option.precision.name


def _measured() -> dict[str, Any]:
    """The rung whose mix is found on the run itself (advisor.sensitivity)."""
    unknown = {"low": None, "mid": None, "high": None, "basis": "not known before it is measured"}
    return {
        "precision": f"{BASE}+measured",
        "type": BASE,
        "lower": LOWER,
        "memory_ratio": MEMORY_RATIO,
        "quality": {"retention": unknown, "metric": METRIC, "basis": "measured", "source": "this run"},
        "why": f"measures which groups of tensors stand {LOWER}, and lowers those until {MEMORY_RATIO:g} of the 16-bit "
        "bytes are kept",
    }


def _rung(judged: Judged) -> dict[str, Any]:
    precision = judged.option.precision
    overrides = overrides_of(precision)
    ratio, kept = judged.size.weights.ratio, judged.retention.mid
    why = f"expected to keep {kept:.3f} of the quality in {ratio:.3f} of the 16-bit bytes"
    if overrides:
        why += f"; {', '.join(p for p, _ in overrides)} stands fewer bits than the rest"
    return {
        "precision": judged.option.precision.name,
        **recipe_of(judged),
        "imatrix": uses_imatrix(precision),
        "expected_bytes": judged.size.weights.file_bytes,
        "quality": quality_row(judged.retention, judged.option.spec),
        "why": why,
    }
