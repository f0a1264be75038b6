"""The sources that rules and tables cite by a short name: `data/sources.toml`, each once."""

from __future__ import annotations

import tomllib
from functools import cache

from knowledge.matrix import DATA
from knowledge.records import Source


@cache
def load_sources() -> tuple[Source, ...]:
    """Every source, in the file's order."""
    rows = tomllib.loads((DATA / "sources.toml").read_text(encoding="utf-8"))
    return tuple(Source(id=name, **row) for name, row in rows.items())
