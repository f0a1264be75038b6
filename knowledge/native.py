"""Models trained for quantized weights (gpt-oss: experts in MXFP4, BitNet: ternary): the precision that keeps them.

A precision marked `native_only` is made for such models alone; it is theirs when its name begins with the type that the
weights were trained in, or when that is its method.
"""

from __future__ import annotations

from functools import cache

from knowledge.precisions import load_precisions
from knowledge.records import ModelSpec, Precision
from knowledge.weights import weights


@cache
def native_precision(source_precision: str, framework: str) -> Precision | None:
    """The precision of `framework` that keeps weights published in `source_precision`; None where it has none."""
    return next((p for p in load_precisions() if p.framework == framework and _keeps(p, source_precision)), None)


def is_native(spec: ModelSpec, precision: Precision) -> bool:
    return _keeps(precision, spec.source_precision)


def _keeps(precision: Precision, trained_in: str) -> bool:
    kind = trained_in.upper()
    return precision.native_only and kind in (precision.name.upper().split("_")[0], precision.method.upper())


def published_bytes(spec: ModelSpec) -> int:
    """The size of a catalogue model's checkpoint: 2 bytes per parameter, but for what is published in fewer bits."""
    native = native_precision(spec.source_precision, "llama.cpp")
    if native is None:
        return 2 * spec.params
    kept = weights(spec, native).matrix_bytes.get(spec.source_precision.upper(), 0)
    return round(kept + 2 * (spec.params - 8 * kept / native.bits))
