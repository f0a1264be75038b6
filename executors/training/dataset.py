"""What the cost model learns from: measurements as cases with the logarithm of their target, cleaned and weighted.

Cleaning, in this order (docs/cost-model.md explains): rows known to be wrong and repeats (knowledge.measurements); rows
of which neither parameters nor size is known; rows above what the engine's bandwidth or arithmetic allows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from advisor.case import METRICS, Case
from advisor.cost_model import TARGET_OF, group_of, log_of
from advisor.physics import most_decode_tps
from advisor.workload import case_of_row
from knowledge.measurements import Measurement, load_measurements

_MULTIPLIES_AT_MOST = 1.3  # of the data-sheet rate in 8 bits (quantized) or 16 bits


@dataclass(frozen=True, slots=True)
class Sample:
    """A measurement as the trainer sees it. `log` is the logarithm of the target (advisor.cost_model.log_of)."""

    measurement: Measurement
    case: Case
    log: float

    @property
    def metric(self) -> str:
        return self.measurement.metric

    @property
    def value(self) -> float:
        return self.measurement.value

    @property
    def chip(self) -> str:
        return self.case.chip or self.measurement.row["chip"]

    @property
    def model(self) -> str:
        return self.case.model

    @property
    def device_kind(self) -> str:
        return self.measurement.row["device_kind"]


@dataclass(frozen=True, slots=True)
class Dataset:
    samples: tuple[Sample, ...]
    left_out: dict[str, int]


def load_dataset(measurements: Iterable[Measurement] | None = None, *, bounds: bool = True) -> Dataset:
    """The samples of `measurements` (default: the knowledge base's), and how many rows were left out, by reason."""
    left_out: Counter[str] = Counter()
    samples = []
    for measurement in load_measurements() if measurements is None else measurements:
        if measurement.metric not in METRICS:
            left_out["another metric"] += 1
            continue
        case, _ = case_of_row(measurement.row)
        if case is None:
            left_out["neither parameters nor size known"] += 1
            continue
        if bounds and (reason := _impossible(case, measurement)):
            left_out[reason] += 1
            continue
        samples.append(Sample(measurement, case, log_of(measurement.value, case, measurement.metric)))
    return Dataset(tuple(samples), dict(left_out))


def of_target(samples: Iterable[Sample], target: str) -> list[Sample]:
    """The samples that a target learns from: prefill speeds and times to the first token serve each other."""
    both = ("prompt", "first")
    return [s for s in samples if TARGET_OF[s.metric] == target or (target in both and TARGET_OF[s.metric] in both)]


def weights_of(samples: Sequence[Sample]) -> list[float]:
    """So that a chip with hundreds of rows does not decide alone: the root of its rows, the fourth root of its rows of
    one model; the mean is 1."""
    chips = Counter(sample.chip for sample in samples)
    pairs = Counter((sample.chip, sample.model) for sample in samples)
    raw = [chips[s.chip] ** -0.5 * pairs[(s.chip, s.model)] ** -0.25 for s in samples]
    mean = sum(raw) / len(raw) if raw else 1.0
    return [weight / mean for weight in raw]


def folds_of(samples: Sequence[Sample], group: Callable[[Sample], str], count: int) -> list[int]:
    """The fold of each sample: whole groups, the largest first, each into the fold that has the fewest samples of its
    kind (what most of it was measured with, on what kind of engine), of equal ones the smallest."""
    kinds: dict[str, Counter[str]] = {}
    for sample in samples:
        kinds.setdefault(group(sample), Counter())[group_of(sample.case)] += 1
    filled = [Counter[str]() for _ in range(count)]
    fold = {}
    for name in sorted(kinds, key=lambda name: (-kinds[name].total(), name)):
        kind = min(kinds[name], key=lambda kind: (-kinds[name][kind], kind))
        fold[name] = min(range(count), key=lambda index: (filled[index][kind], filled[index].total()))
        filled[fold[name]] += kinds[name]
    return [fold[group(sample)] for sample in samples]


def _impossible(case: Case, measurement: Measurement) -> str:
    value, metric = measurement.value, measurement.metric
    if metric == "decode_tps":
        return "decode above the memory's bandwidth" if value > most_decode_tps(case) else ""
    if metric == "peak_mem_gb" or case.prompt is None or case.backend == "npu":
        return ""
    seconds = case.prompt / value if metric == "prefill_tps" else value / 1e3
    low_bits = 2 if case.bits < 12 and case.backend != "metal" else 1  # Metal multiplies quantized weights in 16 bits
    fast = case.rate * low_bits * case.count * (4 if case.backend == "cpu" else 1)
    above = 2 * case.active_params * case.prompt / seconds > _MULTIPLIES_AT_MOST * fast * 1e12
    return f"{metric} above the engine's arithmetic" if above else ""
