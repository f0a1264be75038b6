"""The data files of the knowledge base, read: the one place that knows where they lie."""

from __future__ import annotations

import csv
import tomllib
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data"


def read_rows(name: str) -> list[dict[str, str]]:
    """The rows of a CSV file of `data/`."""
    with (DATA / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def read_document(name: str) -> dict[str, Any]:
    """A TOML file of `data/`. Not kept: the caller keeps what it makes of it."""
    return tomllib.loads((DATA / name).read_text(encoding="utf-8"))
