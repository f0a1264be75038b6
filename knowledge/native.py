"""Models trained for quantized weights (gpt-oss: experts in MXFP4, BitNet: ternary): the precision that keeps them.

A precision marked `native_only` is made for such models alone; it is theirs when its name begins with the type that the
weights were trained in, or when that is its method.
"""

from __future__ import annotations

import re
from functools import cache

from knowledge.precisions import load_precisions
from knowledge.records import ModelSpec, Precision
from knowledge.weights import weights

# Bits of a weight in a checkpoint: E2M1 with an 8-bit scale per 32 (openai/gpt-oss-20b), four ternary weights to a byte
# (transformers integrations/bitnet.py: VALUES_PER_ITEM).
_PUBLISHED_BITS = {"MXFP4": 4.25, "TERNARY": 2.0}


@cache
def native_precision(source_precision: str, framework: str) -> Precision | None:
    """The precision of `framework` that keeps weights published in `source_precision`; None where it has none."""
    return next((p for p in load_precisions() if p.framework == framework and _keeps(p, source_precision)), None)


def is_native(spec: ModelSpec, precision: Precision) -> bool:
    return _keeps(precision, spec.source_precision)


def _keeps(precision: Precision, trained_in: str) -> bool:
    kind = trained_in.upper()
    return precision.native_only and kind in (re.split("[_-]", precision.name.upper())[0], precision.method.upper())


def published_bytes(spec: ModelSpec) -> int:
    """The size of a catalogue model's checkpoint: 2 bytes per parameter, but for what is published in fewer bits."""
    native = native_precision(spec.source_precision, "llama.cpp")
    if native is None:
        return 2 * spec.params
    fewer = 8 * max(weights(spec, native).matrix_bytes.values()) / native.bits  # parameters
    return round(fewer * _PUBLISHED_BITS[spec.source_precision.upper()] / 8 + 2 * (spec.params - fewer))
