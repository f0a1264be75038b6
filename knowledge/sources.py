"""The sources that rules and tables cite by a short name: `data/sources.toml`, each once."""

from __future__ import annotations

from functools import cache

from knowledge.records import Source
from knowledge.tables import read_document


@cache
def load_sources() -> tuple[Source, ...]:
    """Every source, in the file's order."""
    rows = read_document("sources.toml")
    return tuple(Source(id=name, **row) for name, row in rows.items())
