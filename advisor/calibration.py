"""What was measured on this machine, brought into its predictions: the calibration seam.

The caller hands in the history of the probed machine, and of no other. The same configuration measured here before is
answered by its median, with a band of what repeats vary. Other configurations of the same framework and backend are
moved by the median of measured over predicted, shrunk hard: scaling by a single measurement was measured to make other
predictions worse (median error 14.6 -> 24.9 %), so n configurations count n / (n + 8).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median
from typing import Protocol

from advisor.speed import CostModel, Interval, Work

_PRIOR_WEIGHT = 8.0
_REPEAT_SPREAD = 1.25
"""A shared machine repeats a decode measurement within about this factor."""


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


@dataclass(slots=True)
class Calibrated:
    """A cost model corrected by this machine's own measurements."""

    prior: CostModel
    rows: Iterable[MeasuredRow]
    _ratios: dict[tuple[str, str, str], dict[tuple[str, str], list[float]]] = field(default_factory=dict)
    _measured: dict[tuple[str, str, str, str, str], list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for row in self.rows:
            if row.measured <= 0 or not math.isfinite(row.measured):
                continue
            here = (row.framework, row.backend, row.metric)
            self._measured.setdefault((*here, row.model, row.precision), []).append(row.measured)
            if row.mid:
                by_configuration = self._ratios.setdefault(here, {})
                by_configuration.setdefault((row.model, row.precision), []).append(math.log(row.measured / row.mid))

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
            return Interval(mid / _REPEAT_SPREAD, mid, mid * _REPEAT_SPREAD, basis)
        ratios = self._ratios.get(here)
        if not ratios or prior.low is None or prior.mid is None or prior.high is None:
            return prior
        count = len(ratios)
        shift = median(median(values) for values in ratios.values()) * count / (count + _PRIOR_WEIGHT)
        factor = math.exp(shift)
        basis = f"{prior.basis}; moved by {factor:.2f} after {count} measured here"
        return Interval(prior.low * factor, prior.mid * factor, prior.high * factor, basis)
