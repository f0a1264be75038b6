"""Scores of references, kept: ADVISOR_HOME/cache/references/KEY holds what the reference and tasks tiers made of one.

A key is the hash of all that decides the scores: the reference's files, the text, how it is cut, the framework's
version. What is here can be removed at any time; beyond LIMIT_BYTES the entries used longest ago go.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from advisor.plan import ValidateSettings
from executors.folder import discard, publish, sha256_file, staging, step_key
from executors.validation import TEXT
from knowledge.base import GIB, advisor_home

LIMIT_BYTES = 8 * GIB


def place(reference_sha256: str, framework_version: str, settings: ValidateSettings, text: Path = TEXT) -> Path:
    """Where the scores of this reference belong."""
    inputs = {"reference": reference_sha256, "text": sha256_file(text)}
    return (
        advisor_home() / "cache" / "references" / step_key(settings.model_dump(mode="json"), inputs, framework_version)
    )


def is_kept(store: Path) -> bool:
    return (store / "index.json").is_file()


def keep(store: Path, make: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """Let `make` write the store under a temporary name and publish it; what `make` returned."""
    temporary = staging(store)
    try:
        made = make(temporary)
        publish(temporary, store)
    finally:
        discard(temporary)
    prune(store)
    return made


def prune(used: Path, limit_bytes: int = LIMIT_BYTES) -> None:
    """Mark `used` as just used; remove the entries used longest ago while all together are larger than the limit."""
    with contextlib.suppress(OSError):
        os.utime(used)
        entries = sorted(used.parent.iterdir(), key=lambda entry: entry.stat().st_mtime)
        sizes = {entry: sum(file.stat().st_size for file in entry.rglob("*") if file.is_file()) for entry in entries}
        total = sum(sizes.values())
        for entry in entries:
            if total <= limit_bytes:
                break
            if entry != used:
                discard(entry)
                total -= sizes[entry]


def drop(store: Path) -> None:
    """Forget the scores of one reference."""
    discard(store)
