"""What a model's modality means, and what serves it in each framework: `data/modalities.csv`, `data/serving.csv`,
and the measures of how good models are at it: `data/metrics.csv`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from knowledge.tables import read_rows


@dataclass(frozen=True, slots=True)
class Modality:
    """`writes`: it decodes token by token; `reads_prompt`: its prefill is counted in tokens. `task` is the exporter's
    name of it, `measure` what quantization is judged by."""

    name: str
    use_case: str
    writes: bool
    reads_prompt: bool
    task: str
    measure: str
    words: str


@dataclass(frozen=True, slots=True)
class Metric:
    """A published measure. `worst` and `best` are the ends of what is seen: chance, the best that fits a machine."""

    name: str
    use_cases: tuple[str, ...]
    worst: float
    best: float
    words: str
    source: str


@lru_cache(maxsize=1)
def modalities() -> dict[str, Modality]:
    """Every modality by its name."""
    return {
        row["modality"]: Modality(
            row["modality"],
            row["use_case"],
            row["writes"] == "yes",
            row["reads_prompt"] == "yes",
            row["task"],
            row["measure"],
            row["words"],
        )
        for row in read_rows("modalities.csv")
    }


@lru_cache(maxsize=1)
def metrics() -> dict[str, Metric]:
    """Every metric by its name."""
    return {
        row["metric"]: Metric(
            row["metric"],
            tuple(row["use_cases"].split()),
            float(row["worst"]),
            float(row["best"]),
            row["words"],
            row["source"],
        )
        for row in read_rows("metrics.csv")
    }


def metric_of(use_case: str) -> Metric:
    """What models are compared by for a use case."""
    return next(metric for metric in metrics().values() if use_case in metric.use_cases)


def served(modality: str, framework: str) -> tuple[str, str]:
    """Whether a framework serves a modality (yes, no, unknown), and with what."""
    return _serving().get((modality, framework), ("unknown", ""))


@lru_cache(maxsize=1)
def _serving() -> dict[tuple[str, str], tuple[str, str]]:
    return {(row["modality"], row["framework"]): (row["serves"], row["with"]) for row in read_rows("serving.csv")}
