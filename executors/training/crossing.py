"""Cases that nobody measured, for the trees to learn from what a smooth fit says of them.

Averaged trees hold best, but are flat between what was measured; a kernel regression is smooth and falls back to
physics far away, but takes a thousand kernels to evaluate. So the kernel regression is fitted to the measurements and
asked about crossings, the engine of one sample with the model and the prompt of another; the trees learn its answers
along with the measurements. By grouped cross-validation that is as good as both together (docs/cost-model.md).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.svm import SVR

from advisor.case import Case
from executors.training.dataset import Sample, weights_of

Array = Any  # numpy arrays of floats

_ENGINE = (
    "chip", "vendor", "engine_kind", "generation", "runtime", "software", "backend", "bandwidth", "rate",
    "low_bit_ratio", "count", "memory_gib", "build",
)  # fmt: skip
_FAR = 4.0  # standard deviations: values further out count as this far
_COST, _TUBE = 2.0, 0.05  # of the kernel regression, chosen by cross-validation: a broad optimum


def crossings(samples: Sequence[Sample], count: int) -> list[tuple[Case, str]]:
    """`count` cases, and the metric of each: the engine of one sample, all else of another at as many bits.

    The engine's rate is that of its precision (8 bits or 16), so only alike precisions are crossed; NPUs with NPUs.
    """
    draw = random.Random(0)
    alike: dict[tuple[bool, bool], list[Sample]] = {}
    for sample in samples:
        alike.setdefault(_kind(sample), []).append(sample)
    engines = draw.choices(samples, weights=weights_of(samples), k=count)
    found = []
    for sample in engines:
        other = draw.choice(alike[_kind(sample)])
        engine = {name: getattr(sample.case, name) for name in _ENGINE}
        found.append((replace(other.case, **engine), other.metric))
    return found


def _kind(sample: Sample) -> tuple[bool, bool]:
    return sample.case.bits < 12, sample.case.backend == "npu"


def smooth_fit(rows: Array, goal: Array, weight: Array, gamma: float) -> Callable[[Array], Array]:
    """A kernel regression of `goal` on `rows` (one per sample), as a function of rows; smoother with less `gamma`."""
    middle, spread = rows.mean(axis=0), rows.std(axis=0) + 1e-9

    def scaled(some: Array) -> Array:
        return np.clip((some - middle) / spread, -_FAR, _FAR)

    kernels = SVR(C=_COST, gamma=gamma, epsilon=_TUBE).fit(scaled(rows), goal, sample_weight=weight)
    return lambda some: kernels.predict(scaled(some))
