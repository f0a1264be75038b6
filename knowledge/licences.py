"""What licences allow: `data/licences.csv`."""

from __future__ import annotations

import csv
from functools import lru_cache
from pathlib import Path
from typing import Literal, cast

CommercialUse = Literal["yes", "no", "conditions", "unknown"]


@lru_cache(maxsize=1)
def licences() -> dict[str, CommercialUse]:
    """Whether commercial use is allowed, by the licence's name in lower case."""
    with (Path(__file__).parent / "data" / "licences.csv").open(encoding="utf-8", newline="") as file:
        return {row["licence"]: cast(CommercialUse, row["commercial_use"]) for row in csv.DictReader(file)}


def commercial_use(licence: str) -> CommercialUse:
    """yes, no, conditions; unknown for a licence that is not in the table: it is never guessed."""
    return licences().get(licence.strip().lower(), "unknown")
