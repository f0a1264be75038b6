"""What was measured on this machine, brought into its predictions: the calibration seam.

The caller hands in the history of the probed machine, and of no other. The same configuration measured here before is
answered by its median, with a band of what repeats vary, narrower with the root of their number. Other configurations
of the same framework and backend are moved by the median of measured over predicted, shrunk hard: n configurations
count n / (n + 2), which was best of 0 to 8 when published machines were replayed (benchmarks/calibration.py; unshrunk,
a single prompt measurement helps next to nothing). They narrow as far as the evidence carries: by two fifths of the
same share, and never below how far the measurements here scatter about their own median.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Protocol

from advisor.engines import Engine, default_threads, engines_of
from advisor.speed import CostModel, Interval, Work
from knowledge.base import AdvisorError
from knowledge.matrix import load_backends
from knowledge.models import find_model
from knowledge.precisions import resolve_precision
from knowledge.weights import weights
from probes.profile import HardwareProfile

SPEEDS = ("decode_tps", "prefill_tps")
_RUNNABLE = ("supported", "experimental")
_PRIOR_WEIGHT = 2.0
_NARROWED = 0.4
_OF_DEVIATION = 2.44  # half the width of 90 % of a normal distribution, by its median absolute deviation
_REPEAT_SPREAD = 1.5
"""A shared machine repeats a measurement of another day within this factor: own runs, 14 pairs, 1.02 to 1.57."""


class MeasuredRow(Protocol):
    """A row of the history: `mid` is what the plan predicted (None: nothing), `measured` what came."""

    @property
    def model(self) -> str: ...
    @property
    def framework(self) -> str: ...
    @property
    def backend(self) -> str: ...
    @property
    def precision(self) -> str: ...
    @property
    def metric(self) -> str: ...
    @property
    def mid(self) -> float | None: ...
    @property
    def measured(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Correction:
    """What the history makes of predictions for configurations that were not measured: `metric` is multiplied by
    `factor`, on the evidence of so many `configurations` of this framework and backend."""

    framework: str
    backend: str
    metric: str
    factor: float
    configurations: int


def shrunk(logs: Sequence[float]) -> float:
    """The shift that `logs` of measured over predicted justify, one per configuration."""
    return median(logs) * _share(len(logs))


def scatter(logs: Sequence[float]) -> float:
    """How far 90 % of `logs` lie from their median, at most; 0 where one alone cannot tell."""
    middle = median(logs)
    return _OF_DEVIATION * median(abs(log - middle) for log in logs)


def _share(count: int) -> float:
    return count / (count + _PRIOR_WEIGHT)


@dataclass(slots=True)
class Calibrated:
    """A cost model corrected by this machine's own measurements."""

    prior: CostModel
    rows: Iterable[MeasuredRow]
    _ratios: dict[tuple[str, str, str], dict[tuple[str, str], list[MeasuredRow]]] = field(default_factory=dict)
    _measured: dict[tuple[str, str, str, str, str], list[float]] = field(default_factory=dict)
    _logs: dict[tuple[str, str, str], list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for row in self.rows:
            if row.measured <= 0 or not math.isfinite(row.measured):
                continue
            here = (row.framework, row.backend, row.metric)
            self._measured.setdefault((*here, row.model, row.precision), []).append(row.measured)
            if row.mid:
                self._ratios.setdefault(here, {}).setdefault((row.model, row.precision), []).append(row)

    def decode_tps(self, work: Work) -> Interval:
        return self._correct("decode_tps", work, self.prior.decode_tps(work))

    def prefill_tps(self, work: Work) -> Interval:
        return self._correct("prefill_tps", work, self.prior.prefill_tps(work))

    def _correct(self, metric: str, work: Work, prior: Interval) -> Interval:
        here = (work.framework, work.backend, metric)
        name = work.spec.hf_id or work.spec.name
        if same := self._measured.get((*here, name, work.precision)):
            mid = median(same)
            basis = f"measured on this machine ({len(same)} {'run' if len(same) == 1 else 'runs'})"
            band = math.pow(_REPEAT_SPREAD, len(same) ** -0.5)
            return Interval(mid / band, mid, mid * band, basis)
        if here not in self._ratios or prior.low is None or prior.mid is None or prior.high is None:
            return prior
        logs = self._offsets(here, work.engine, work.threads)
        moved = math.exp(shrunk(logs))
        narrower, least = 1 - _NARROWED * _share(len(logs)), math.exp(scatter(logs))
        mid = prior.mid * moved
        low = mid / max((prior.mid / prior.low) ** narrower, least)
        high = mid * max((prior.high / prior.mid) ** narrower, least)
        basis = f"{prior.basis}; moved by {moved:.2f} after {len(logs)} measured here"
        return Interval(low, mid, high, basis)

    def corrections(self, profile: HardwareProfile) -> list[Correction]:
        """By how much the measurements move the predictions for the machine of `profile`, whose they are."""
        usable = {(row.framework, row.backend, row.engine) for row in load_backends() if row.support in _RUNNABLE}
        found = []
        for here in sorted(self._ratios):
            engine = next((e for e in engines_of(profile) if (*here[:2], e.kind) in usable), None)
            if here[2] in SPEEDS and engine is not None:
                logs = self._offsets(here, engine, default_threads(profile))
                found.append(Correction(*here, math.exp(shrunk(logs)), len(logs)))
        return found

    def _offsets(self, here: tuple[str, str, str], engine: Engine, threads: int | None) -> list[float]:
        """The logarithms of measured over predicted of a framework, backend and metric, one per configuration."""
        if here not in self._logs:
            self._logs[here] = []
            for rows in self._ratios[here].values():
                expected = self._predicted_now(rows[0], engine, threads)
                off = (math.log(row.measured / (expected or row.mid or row.measured)) for row in rows)
                self._logs[here].append(median(off))
        return self._logs[here]

    def _predicted_now(self, row: MeasuredRow, engine: Engine, threads: int | None) -> float | None:
        """What the model of today says of a configuration that was measured; its plan may be of an older model. None
        where the model or the precision is not of the knowledge base: the plan's own figure counts then."""
        try:
            spec = find_model(row.model)
            sizes = weights(spec, resolve_precision(row.precision, row.framework)[0], backend=row.backend)
        except AdvisorError:
            return None
        share = spec.active_params / spec.params if spec.active_params else 1.0
        active = sizes.tensor_bytes * share
        then = Work(spec, row.framework, row.backend, row.precision, active, 0.0, engine, threads)
        return (self.prior.decode_tps(then) if row.metric == "decode_tps" else self.prior.prefill_tps(then)).mid
