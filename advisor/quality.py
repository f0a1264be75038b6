"""Quality retention of a precision: what was published or measured, scaled to the model's size, as an interval.

Retention is reference perplexity over artifact perplexity on the same tokens (1 is lossless); published task scores
count as their ratio. Evidence on the same model is taken as it is. Evidence on other models is scaled: the loss grows
as the model shrinks, about (size ratio)^0.35 between the published 8B rows and the measured 135M ones (bounds 0.1 and
0.6). Without any evidence for the precision, the loss follows the bits per weight (data/quality_curve.csv).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from knowledge.precisions import uses_imatrix
from knowledge.quality import load_quality, load_quality_curve
from knowledge.records import ModelSpec, Precision

METRIC = "perplexity ratio, reference over artifact, on the same tokens"
_EXPONENT = 0.35
_REFERENCE_PARAMS_B = 8.0
_MEASURED_SPREAD = 2.0  # the same artifact on two texts: a loss of 0.6 and 1.1 per cent
_PUBLISHED_SPREAD = 2.3
_ASSUMED_SPREAD = 3.0


@dataclass(frozen=True, slots=True)
class Retention:
    low: float
    mid: float
    high: float
    basis: Literal["measured", "published", "assumed"]
    source: str


def predict_retention(spec: ModelSpec, precision: Precision, bits_per_weight: float, method: str = "") -> Retention:
    """The 90 % interval of the retention of `precision` on a model like `spec`, made by `method` (empty: data-free)."""
    if precision.nominal_bits >= 16:
        return Retention(0.998, 1.0, 1.0, "assumed", "16-bit weights are the reference")
    family = "openvino" if precision.scheme == "openvino" else precision.framework
    name = precision.name
    if uses_imatrix(precision):
        name, method = name.removesuffix("+imatrix"), "imatrix"
    known = [r for r in load_quality() if r.framework == family and r.precision == name]
    rows = [r for r in known if r.method == method] or [r for r in known if r.method == "data-free"]
    same = [r for r in rows if _same_model(r.model, spec)]
    if same:
        row = same[0]
        basis: Literal["measured", "published"] = "measured" if row.measured else "published"
        return _interval(1 - row.retention, _MEASURED_SPREAD, basis, row.source)
    scaled = [
        (abs(math.log(r.params_b / spec.params_b)), (1 - r.retention) * _scale(r.params_b, spec.params_b), r)
        for r in rows
    ]
    if scaled and spec.params_b:
        distance, loss, row = min(scaled, key=lambda item: (item[0], item[2].model))
        near = distance <= math.log(3)
        words = f"{row.source}; {row.model} ({row.params_b:g}B)" + ("" if near else f", scaled to {spec.params_b:.3g}B")
        return _interval(
            max(loss, 0.0), _PUBLISHED_SPREAD if near else _ASSUMED_SPREAD, "published" if near else "assumed", words
        )
    loss = _curve(bits_per_weight) * _scale(_REFERENCE_PARAMS_B, spec.params_b)
    return _interval(
        loss,
        _ASSUMED_SPREAD,
        "assumed",
        f"loss by bits per weight ({bits_per_weight:.2f}), scaled to {spec.params_b:.3g}B",
    )


def measured_retention(retention: float, source: str) -> Retention:
    """The interval of a retention that was measured on this very model, on another text or by parts."""
    return _interval(1 - retention, _MEASURED_SPREAD, "measured", source)


def _same_model(name: str, spec: ModelSpec) -> bool:
    tail = name.rsplit("/", 1)[-1].lower()
    return tail in (spec.name.lower(), spec.hf_id.rsplit("/", 1)[-1].lower())


def _scale(from_b: float, to_b: float) -> float:
    return (from_b / to_b) ** _EXPONENT if from_b > 0 and to_b > 0 else 1.0


def _curve(bits: float) -> float:
    """Loss at 8B for `bits` per weight, log-linear between the rows of the curve."""
    points = load_quality_curve()
    if bits >= points[-1][0]:
        return points[-1][1]
    if bits <= points[0][0]:
        return points[0][1]
    for (b0, l0), (b1, l1) in pairwise(points):
        if b0 <= bits <= b1:
            return math.exp(math.log(l0) + (math.log(l1) - math.log(l0)) * (bits - b0) / (b1 - b0))
    return points[-1][1]


def _interval(loss: float, spread: float, basis: Literal["measured", "published", "assumed"], source: str) -> Retention:
    """`loss` as a retention interval: a factor `spread` each way, at least 0.3 points."""
    loss = min(max(loss, 0.0), 0.98)
    wide = min(max(loss * spread, loss + 0.003), 0.99)
    return Retention(1 - wide, 1 - loss, min(1.0, 1 - loss / spread), basis, source)
