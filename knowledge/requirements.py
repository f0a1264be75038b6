"""What a backend needs of the machine around it: driver, kernel, system and runtime versions, from requirements.csv.

Contract: `requirements_for` gives the rows that speak of a place; `is_older` compares two dotted versions and does not
answer where they are not of one kind ("555.99" and "32.0.15.5599").
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from knowledge.tables import read_rows


@dataclass(frozen=True, slots=True)
class Requirement:
    """`component` is npu-driver, gpu-driver, os, kernel, or one that no profile tells (runtime, python, libc, jetpack),
    which is shown and not checked. `text` names it with its minimum."""

    frameworks: tuple[str, ...]
    backend: str
    generations: tuple[str, ...]
    os: str
    component: str
    minimum: str
    text: str
    source: str


@cache
def load_requirements() -> tuple[Requirement, ...]:
    """Every row of data/requirements.csv."""
    return tuple(
        Requirement(
            tuple(row["frameworks"].split("|")), row["backend"], tuple(row["generations"].split("|")), row["os"],
            row["component"], row["minimum"], row["text"], row["source"],
        )
        for row in read_rows("requirements.csv")
    )  # fmt: skip


@cache
def requirements_for(framework: str, backend: str, generation: str, os: str | None) -> tuple[Requirement, ...]:
    """The rows of a backend on an engine of `generation` under `os`; of a system that is not known, those of any."""
    return tuple(
        row
        for row in load_requirements()
        if row.backend == backend
        and (framework in row.frameworks or "any" in row.frameworks)
        and row.os in ("any", os)
        and ("any" in row.generations or any(generation.startswith(name) for name in row.generations))
    )


def is_older(found: str, minimum: str) -> bool | None:
    """Whether version `found` is below `minimum`; None where one is no version or they count differently."""
    mine, least = _numbers(found), _numbers(minimum)
    if not mine or not least or len(str(mine[0])) != len(str(least[0])):
        return None
    return mine < least[: len(mine)] if len(mine) < len(least) else mine < least


def _numbers(version: str) -> list[int]:
    start = re.match(r"\d+(?:\.\d+)*", version)
    return [int(part) for part in start[0].split(".")] if start else []
