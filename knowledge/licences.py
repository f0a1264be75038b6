"""What licences allow: `data/licences.csv`."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, cast

from knowledge.tables import read_rows

CommercialUse = Literal["yes", "no", "conditions", "unknown"]


@lru_cache(maxsize=1)
def licences() -> dict[str, CommercialUse]:
    """Whether commercial use is allowed, by the licence's name in lower case."""
    return {row["licence"]: cast(CommercialUse, row["commercial_use"]) for row in read_rows("licences.csv")}


def commercial_use(licence: str) -> CommercialUse:
    """yes, no, conditions; unknown for a licence that is not in the table: it is never guessed."""
    return licences().get(licence.strip().lower(), "unknown")
