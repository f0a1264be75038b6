"""Which architectures the converters that advisor pins refuse, or take only with an older transformers beside the
newer one (data/conversions.csv). What is not listed is converted as it comes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from knowledge.tables import read_rows


@dataclass(frozen=True, slots=True)
class Conversion:
    """`architecture` may be a modality (knowledge.serving), too. `how` is `older` (with the older transformers) or
    `none` (not at all); `text` says why."""

    architecture: str
    framework: str
    how: str
    text: str
    source: str


@cache
def load_conversions() -> dict[tuple[str, str], Conversion]:
    """Every row of data/conversions.csv, by architecture and framework."""
    return {(row["architecture"], row["framework"]): Conversion(**row) for row in read_rows("conversions.csv")}


def refusal(architecture: str, framework: str) -> str:
    """Why the pinned converter of `framework` cannot convert an architecture or modality; empty where it can."""
    found = load_conversions().get((architecture, framework))
    return found.text if found and found.how == "none" else ""


def needs_older(architecture: str, framework: str) -> bool:
    """Whether the older transformers is needed."""
    found = load_conversions().get((architecture, framework))
    return found is not None and found.how == "older"
