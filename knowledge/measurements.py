"""Published measurements of language models: data/measurements.csv, with what is known to be wrong in them.

A row is one figure as its source gives it (DESIGN section 4 names the columns), never mended in place: what is wrong is
listed by line in data/measurement_suspects.csv with the reason, and handled here by kind of reason. Sources with their
versions and licences: data/measurement_sources.csv. Not read by a plan: 1 MB.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import median

from knowledge.tables import DATA

COLUMNS = (
    "device", "device_kind", "chip", "memory_gb", "bandwidth_gbs", "framework", "backend", "framework_version", "model",
    "params_b", "active_params_b", "precision", "file_size_gib", "batch", "prompt_tokens", "gen_tokens", "metric",
)  # fmt: skip
# Reasons (by how they begin) that say the figure itself is wrong: the row is left out. The others say that a label is
# (a size that its own name contradicts, a file larger than its type): sizes in names and of files are trusted anyway.
_FIGURE_IS_WRONG = ("memory below", "memory far above", "impossible", "very slow")


@dataclass(frozen=True, slots=True)
class Measurement:
    """One published figure. `value` is in the unit that the metric's name says (tokens per second, ms, GiB); `count`
    repeats of the same configuration at the same source are answered by their median."""

    line: int
    source: str
    row: Mapping[str, str]
    value: float
    count: int = 1

    @property
    def metric(self) -> str:
        return self.row["metric"]


@lru_cache(maxsize=1)
def load_measurements() -> tuple[Measurement, ...]:
    """Every row that is not known to be wrong, repeats merged, in the file's order."""
    suspects = suspect_reasons()
    kept: dict[tuple[str, ...], list[Measurement]] = {}
    for found in read_measurements(DATA / "measurements.csv"):
        if suspects.get(found.line, "").startswith(_FIGURE_IS_WRONG):
            continue
        key = (found.source, *(found.row[column] for column in COLUMNS if column != "framework_version"))
        kept.setdefault(key, []).append(found)
    return tuple(_merged(repeats) for repeats in kept.values())


def read_measurements(path: Path) -> list[Measurement]:
    """The rows of a file with these columns, `value` and perhaps `source_id`; rows without a positive value left out.

    Raises OSError, UnicodeDecodeError or csv.Error where the file cannot be read."""
    found = []
    with path.open(encoding="utf-8", newline="") as file:
        for line, row in enumerate(csv.DictReader(file), start=2):
            value = _positive(row.get("value") or "")
            if value is not None and row.get("metric"):
                cells = {column: row.get(column) or "" for column in COLUMNS}
                found.append(Measurement(line, row.get("source_id") or "given", cells, value))
    return found


def suspect_reasons() -> dict[int, str]:
    """What is known to be wrong, by the line of data/measurements.csv (the header is line 1)."""
    with (DATA / "measurement_suspects.csv").open(encoding="utf-8", newline="") as file:
        return {int(row["line"]): row["reason"] for row in csv.DictReader(file)}


def measurement_sources() -> list[dict[str, str]]:
    """The sources: repository, path, version, licence, what was taken."""
    with (DATA / "measurement_sources.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _merged(repeats: Iterable[Measurement]) -> Measurement:
    first, *others = repeats
    if not others:
        return first
    values = [first.value, *(other.value for other in others)]
    return Measurement(first.line, first.source, first.row, median(values), len(values))


def _positive(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 < value < float("inf") else None
