"""Write a trained target as the JSON that advisor.cost_model reads: compact, the same bytes for the same training."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from advisor.cost_model import Target, Traits, Unit
from knowledge.base import atomic_write
from knowledge.cost_arrays import SCHEMA


def document_of(target: Target) -> dict[str, Any]:
    """What `advisor.cost_model.target_from` takes."""
    return {
        "schema": SCHEMA,
        "name": target.name,
        "parameters": target.parameters,
        "units": [_unit(unit) for unit in target.units],
        "scale": list(target.scale),
        "trees": target.trees.as_json(),
        "spread": target.spread.as_json(),
        "quantiles": {group: list(ends) for group, ends in target.quantiles.items()},
    }


def write_target(target: Target, path: Path) -> None:
    """The document at `path`, atomically. Raises AdvisorError where it cannot be written."""
    with atomic_write(path) as file:
        json.dump(document_of(target), file, separators=(",", ":"), allow_nan=False)
        file.write("\n")


def _unit(unit: Unit) -> dict[str, Any]:
    return {
        "traits": _rounded(unit.traits), "name": unit.name, "weight": unit.weight, "models": unit.models,
        "rows": unit.rows,
    }  # fmt: skip


def _rounded(traits: Traits) -> dict[str, Any]:
    return {key: round(value, 5) if isinstance(value, float) else value for key, value in asdict(traits).items()}
