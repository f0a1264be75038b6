"""The exported arrays of the learned cost model: one JSON file per target, read when first asked for.

`data/cost_model_NAME.json` ships; `advisor learn` writes ADVISOR_HOME/cost_model/NAME.json, which then counts instead.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from knowledge.base import AdvisorError, advisor_home, exists, read_json
from knowledge.tables import DATA

SCHEMA = "advisor.cost-model/3"


def own_folder() -> Path:
    """Where `advisor learn` keeps what it learned here."""
    return advisor_home() / "cost_model"


def load_arrays(name: str) -> dict[str, Any]:
    """The document of target `name` (decode, prompt, first or memory). Raises AdvisorError `bad-cost-model` for
    a damaged one that was learned here."""
    own = own_folder() / f"{name}.json"
    if not exists(own):
        return _shipped(name)
    document: dict[str, Any] = read_json(own, "cost model")
    if document.get("schema") != SCHEMA:
        hint = "run `advisor learn` anew, or remove the file: the shipped model counts then"
        raise AdvisorError("bad-cost-model", f"{own} is no cost model of this advisor.", hint)
    return document


@lru_cache(maxsize=4)
def _shipped(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((DATA / f"cost_model_{name}.json").read_text(encoding="utf-8"))
    return document
