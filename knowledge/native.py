"""Models trained for quantized weights (gpt-oss: experts in MXFP4): the precision that keeps them as published.

A precision marked `native_only` is made for such models alone; it is theirs when its name begins with the type that the
weights are published in.
"""

from __future__ import annotations

from functools import cache

from knowledge.precisions import load_precisions
from knowledge.records import ModelSpec, Precision
from knowledge.weights import weights


@cache
def native_precision(source_precision: str, framework: str) -> Precision | None:
    """The precision of `framework` that keeps weights published in `source_precision`; None where it has none."""
    kind = source_precision.upper()
    native = (p for p in load_precisions() if p.framework == framework and p.native_only)
    return next((p for p in native if kind and p.name.upper().split("_")[0] == kind), None)


def is_native(spec: ModelSpec, precision: Precision) -> bool:
    return precision.native_only and native_precision(spec.source_precision, precision.framework) is precision


def published_bytes(spec: ModelSpec) -> int:
    """The size of a catalogue model's checkpoint: 2 bytes per parameter, but for what is published in fewer bits."""
    native = native_precision(spec.source_precision, "llama.cpp")
    if native is None:
        return 2 * spec.params
    kept = weights(spec, native).matrix_bytes.get(spec.source_precision.upper(), 0)
    return round(kept + 2 * (spec.params - 8 * kept / native.bits))
