"""Quality retention of a precision: what was published or measured, scaled to the model's size, as an interval.

Retention is reference perplexity over artifact perplexity on the same tokens (1 is lossless); published task scores
count as their ratio. It is reckoned as x = -ln(retention), which adds up over parts and has no upper end. Evidence, the
first of these that there is:

1. the same precision on the same model, as it is;
2. the same precision on other models, those near in size counting most: x grows as the model shrinks, about
   (size ratio)^0.35 between the published 8B rows and the measured 135M ones (bounds 0.1 and 0.6);
3. of a mix its parts, each overridden part of the layers as 30 % of the whole;
4. a precision of the same kind (llama.cpp's types, plain rounding, calibrated rounding) whose bits are near: x follows
   the bits as in data/quality_curve.csv;
5. that curve alone, which is no evidence for the precision, and is said to be none.

The widths are those that hold nine of ten rows when each is predicted from the others (tests/advisor/test_quality.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import Literal

from knowledge.matrix import framework_named
from knowledge.native import is_native
from knowledge.precisions import method_of, overrides_of, plain_name, resolve_precision, uses_imatrix
from knowledge.quality import QualityRow, load_quality, load_quality_curve
from knowledge.records import ModelSpec, Precision

AGREEMENT = "vector agreement"  # the metric of the rows that are of encoders
METRIC = "perplexity ratio, reference over artifact, on the same tokens"
Basis = Literal["measured", "published", "assumed"]
_EXPONENT = 0.35
_REFERENCE_PARAMS_B = 8.0
_LEAST = 3e-4  # x that no measurement tells from nothing
_NEAR = math.log(3)  # of sizes
_KIN_BITS = 2.2
_PART = 0.3
_CALIBRATED = 0.7  # of the loss of plain rounding: the median over the methods of data/quality.csv
_MEASURED_SPREAD = 2.0  # the same artifact on two texts: a loss of 0.6 and 1.1 per cent
_ENCODER_SPREAD = 15.0  # an assumption: one encoder was measured
_NEAR_SPREAD, _FAR_SPREAD, _KIN_SPREAD, _MIX_SPREAD, _CURVE_SPREAD = 2.8, 4.9, 4.0, 3.5, 4.5


@dataclass(frozen=True, slots=True)
class Retention:
    low: float
    mid: float
    high: float
    basis: Basis
    source: str


@dataclass(frozen=True, slots=True)
class _Loss:
    """x with the factor each way that holds nine of ten."""

    x: float
    spread: float
    basis: Basis
    source: str


def predict_retention(
    spec: ModelSpec,
    precision: Precision,
    bits_per_weight: float,
    method: str = "",
    evidence: Sequence[QualityRow] | None = None,
) -> Retention:
    """The 90 % interval of the retention of `precision` on a model like `spec`, made by `method` (empty: data-free).

    `bits_per_weight` are those of the whole model; `evidence` is data/quality.csv unless given.
    """
    if spec.is_encoder:
        return encoder_retention(spec, precision)
    if precision.nominal_bits >= 16:
        return _of_16_bits(spec, precision)
    if is_native(spec, precision):
        eight = resolve_precision("int8", precision.framework)[0]
        rest = predict_retention(spec, eight, 8.5, method, evidence)
        return replace(rest, source=f"the weights as they were trained, the rest as {eight.name}: {rest.source}")
    rows = [row for row in load_quality() if row.metric != AGREEMENT] if evidence is None else evidence
    wanted = "imatrix" if uses_imatrix(precision) else method_of(precision) or method or _made_by(precision)
    return _interval(_loss(spec, precision, bits_per_weight, wanted, rows))


def _of_16_bits(spec: ModelSpec, precision: Precision) -> Retention:
    """All of it where the type is the runtime's reference or that of the weights themselves; others round a little."""
    name, source = precision.name.upper(), spec.source_precision.upper()
    reference = "BF16" if (precision.framework, source) == ("mlx", "BF16") else "F16"  # as data/recipes.toml makes it
    wide = framework_named(precision.framework).reference.startswith("32-bit")
    if precision.nominal_bits >= 32 or (not wide and name in (reference, source)):
        return Retention(1.0, 1.0, 1.0, "assumed", "by definition: the reference itself, or its weights as they are")
    return Retention(0.998, 1.0, 1.0, "assumed", "16 bits, rounded from another type")


def encoder_retention(spec: ModelSpec, precision: Precision) -> Retention:
    """The same of an encoder, by what its vectors and rankings keep: own measurements alone, for nobody has published
    any. Those of another encoder are an assumption, wide, and none of the precision leaves next to everything open."""
    rows = [row for row in load_quality() if row.metric == AGREEMENT and row.framework == precision.framework]
    row = next((row for row in rows if row.precision == precision.name), None)
    if precision.nominal_bits >= 32:
        return Retention(1.0, 1.0, 1.0, "assumed", "by definition: the vectors of the reference")
    if precision.nominal_bits >= 16:
        return Retention(0.998, 1.0, 1.0, "assumed", "the vectors of the reference, or those of its weights in 16 bits")
    if row is None:
        x = _curve(precision.bits) * _by_size(_REFERENCE_PARAMS_B, spec.params_b or _REFERENCE_PARAMS_B)
        words = "nobody has published what this precision does to vectors: the loss of language models by bits"
        return _interval(_Loss(x, _CURVE_SPREAD**2, "assumed", words))
    if _same_model(row.model, spec):
        return measured_retention(row.retention, row.source)
    return _interval(
        _Loss(_x(row.retention), _ENCODER_SPREAD, "assumed", f"{row.source}; {row.model}, another encoder")
    )


def measured_retention(retention: float, source: str) -> Retention:
    """The interval of a retention that was measured on this very model, on another text or by parts."""
    return _interval(_Loss(_x(retention), _MEASURED_SPREAD, "measured", source))


def _loss(
    spec: ModelSpec, precision: Precision, bits_per_weight: float, method: str, evidence: Sequence[QualityRow]
) -> _Loss:
    family, name = _family(precision), plain_name(precision)
    known = [r for r in evidence if r.framework == family and r.precision == name]
    size = spec.params_b or _REFERENCE_PARAMS_B
    if exact := [r for r in known if r.method == method]:
        return _of_precision(spec, exact, size)
    if plain := [r for r in known if r.method == "data-free"]:
        found = _of_precision(spec, plain, size)
        words = f"{found.source}; that is without {method}, which keeps more"
        return _Loss(_CALIBRATED * found.x, max(found.spread, _KIN_SPREAD), "assumed", words)
    if overrides := overrides_of(precision):
        return _mixed(spec, precision, overrides, bits_per_weight, method, evidence)
    alike = [r for r in evidence if _is_kin(r, precision)]
    kin = [r for r in alike if r.method == method]
    if not kin and method != "data-free":
        kin = [r for r in alike if r.method != "data-free"]
    if kin:
        row = min(kin, key=lambda r: (_distance(r, precision, size, spec), r.model, r.precision))
        x = _scaled(row, size) * _curve(precision.bits) / _curve(_known(row.framework, row.precision).bits)
        words = f"{row.source}; {row.precision} of {row.model} ({row.params_b:g}B), by bits and size"
        return _Loss(x, _KIN_SPREAD, "assumed", words)
    x = _curve(min(bits_per_weight, precision.bits + 0.5)) * _by_size(_REFERENCE_PARAMS_B, size)
    words = f"no evidence for {precision.name}: the loss by bits per weight of one 8B model, scaled to {size:.3g}B"
    return _Loss(x, _CURVE_SPREAD, "assumed", words)


def _of_precision(spec: ModelSpec, rows: Sequence[QualityRow], size: float) -> _Loss:
    """What rows of the precision itself say: of the same model, else of others."""
    same = next((r for r in rows if _same_model(r.model, spec)), None)
    if same:
        return _Loss(_x(same.retention), _MEASURED_SPREAD, "measured" if same.measured else "published", same.source)
    row = min(rows, key=lambda r: (_far(r, size), r.model))
    words = f"{row.source}; {row.model} ({row.params_b:g}B)"
    if _far(row, size) <= _NEAR:
        return _Loss(_together(rows, size), _NEAR_SPREAD, "published", words)
    return _Loss(_together(rows, size), _FAR_SPREAD, "assumed", f"{words}, scaled to {size:.3g}B")


def _mixed(
    spec: ModelSpec,
    precision: Precision,
    overrides: Sequence[tuple[str, str]],
    bits_per_weight: float,
    method: str,
    evidence: Sequence[QualityRow],
) -> _Loss:
    base = _known(precision.framework, precision.name.partition("+")[0])
    parts = [_known(precision.framework, kind) for _, kind in overrides]
    losses = [_loss(spec, part, bits_per_weight, method, evidence) for part in (base, *parts)]
    share = min(_PART, 1 / len(parts))
    x = losses[0].x * (1 - share * len(parts)) + share * sum(loss.x for loss in losses[1:])
    words = f"{base.name} and {', '.join(dict.fromkeys(p.name for p in parts))} by their shares; {losses[-1].source}"
    return _Loss(x, _MIX_SPREAD, "assumed", words)


def _made_by(precision: Precision) -> str:
    return precision.method if precision.method in ("awq", "gptq") else "data-free"


def _family(precision: Precision) -> str:
    return "openvino" if precision.scheme == "openvino" else precision.framework


@lru_cache(maxsize=512)
def _known(framework: str, name: str) -> Precision:
    return resolve_precision(name, framework)[0]


def _is_kin(row: QualityRow, precision: Precision) -> bool:
    """Whether a row is of a precision of the same kind with about as many bits."""
    if (row.framework == "llama.cpp") != (precision.scheme == "gguf") or "+" in row.precision:
        return False
    return abs(_known(row.framework, row.precision).bits - precision.bits) <= _KIN_BITS


def _distance(row: QualityRow, precision: Precision, size: float, spec: ModelSpec) -> float:
    bits = abs(_known(row.framework, row.precision).bits - precision.bits)
    foreign = (0.2 if row.framework != _family(precision) else 0) + (0 if _same_model(row.model, spec) else 0.3)
    return bits + 0.3 * _far(row, size) + foreign


def _same_model(name: str, spec: ModelSpec) -> bool:
    tail = name.rsplit("/", 1)[-1].lower()
    return tail in (spec.name.lower(), spec.hf_id.rsplit("/", 1)[-1].lower())


def _x(retention: float) -> float:
    return max(-math.log(max(retention, 1e-3)), _LEAST)


def _far(row: QualityRow, size: float) -> float:
    return abs(math.log(row.params_b / size))


def _by_size(from_b: float, to_b: float) -> float:
    return float((from_b / to_b) ** _EXPONENT)


def _together(rows: Sequence[QualityRow], size: float) -> float:
    """What several models say of one of `size`: the geometric mean, those near in size counting most."""
    shares = [(1 / (0.5 + _far(row, size)) ** 2, math.log(_scaled(row, size))) for row in rows]
    return math.exp(sum(share * x for share, x in shares) / sum(share for share, _ in shares))


def _scaled(row: QualityRow, size: float) -> float:
    return _x(row.retention) * _by_size(row.params_b, size)


def _curve(bits: float) -> float:
    """x at 8B for `bits` per weight, log-linear between the rows of the curve."""
    points = [(b, _x(1 - loss)) for b, loss in load_quality_curve()]
    bits = min(max(bits, points[0][0]), points[-1][0])
    for (b0, x0), (b1, x1) in pairwise(points):
        if bits <= b1:
            return math.exp(math.log(x0) + (math.log(x1) - math.log(x0)) * (bits - b0) / (b1 - b0))
    return points[-1][1]


def _interval(loss: _Loss) -> Retention:
    """A loss as a retention interval, at least 0.3 points wide downwards."""
    mid = math.exp(-loss.x)
    low = max(min(math.exp(-loss.x * loss.spread), mid - 0.003), 0.01)
    return Retention(low, max(mid, 0.01), min(1.0, math.exp(-loss.x / loss.spread)), loss.basis, loss.source)
