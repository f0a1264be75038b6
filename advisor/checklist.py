"""The deployment checklist of a plan: the course's items (data/checklist.toml) made concrete for what was chosen.

Automatic items name a check that `advisor check RUN_DIR` runs again (executors.check); they are generated only where
advisor itself makes the artifact. Everything else is a manual item with why and how.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from advisor.constraints import Constraints
from advisor.embedding import kind_of
from advisor.judging import Judged
from knowledge.base import format_bytes
from knowledge.matrix import framework_named
from knowledge.tables import read_document


@cache
def _data() -> dict[str, Any]:
    return read_document("checklist.toml")


def checklist(best: Judged, request: Constraints, executable: bool) -> list[dict[str, Any]]:
    """All items in the order of their phases."""
    option = best.option
    kind = kind_of(option.spec, option.backend.framework, option.backend.backend)
    framework = framework_named(option.backend.framework).of(kind)
    words = {
        "model": option.spec.name,
        "framework": framework.name,
        "backend": option.backend.backend,
        "precision": option.precision.name,
        "artifact": framework.artifact,
        "os": request.os or "the system",
        "watch": _data()["watch"][str(option.facts["os"] or "unknown")],
        "context": f"{option.context:,}",
        "total": format_bytes(best.size.need.total_bytes),
        "budget": format_bytes(best.size.budget.bytes),
        "device": request.device or request.chip or option.engine.name,
    }
    backend = option.backend.backend
    return [_item(row, words, executable) for row in _data()["item"] if backend in row.get("backends", [backend])]


def _item(row: dict[str, Any], words: dict[str, str], executable: bool) -> dict[str, Any]:
    check = row.get("check") if executable or not row.get("when_executed") else None
    return {
        "id": row["id"],
        "phase": row["phase"],
        "text": _fill(row["text"], words),
        "why": _fill(row["why"], words),
        "how": _fill(row["how"], words),
        "kind": "automatic" if check else "manual",
        "check": check,
        "command": "advisor check RUN_DIR" if check else "",
    }


def _fill(text: str, words: dict[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda m: words[m[1]], text)
