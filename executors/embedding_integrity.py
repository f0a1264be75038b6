"""Tier 1 of validation for the folder of an encoder: is it whole, and is it what was planned? See executors.integrity.

The graph and its scales are read by a worker, never run; both frameworks' workers answer in the same words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from executors.embedding_tiers import worker_of
from executors.folder import sha256_file
from executors.integrity import ZERO_SHARE, check
from executors.ir_integrity import bad_values, graph_sha256
from executors.process import Watch
from executors.validation import VERDICTS, ask, failed
from knowledge.base import AdvisorError
from knowledge.matrix import framework_named
from knowledge.pooling import read_pooling

Row = Mapping[str, Any]


def integrity(
    artifact: Path,
    framework: str,
    *,
    graph: Sequence[str],
    tokenizer: Sequence[str],
    reference: Path | None = None,
    packed: str | None = None,
    expected_bytes: int = 0,
    watch: Watch,
) -> dict[str, Any]:
    """Tier 1 on a model folder that holds the files `graph` (the one with the weights last) and `tokenizer`.

    `packed` is the type that every matrix was to get (`u8`, `i8`). As executors.integrity, plus: every file is there,
    and the pooling is described as the reference's.
    """
    missing = next((name for name in (*graph, *tokenizer) if not (artifact / name).is_file()), "")
    trouble = f"The folder has no {missing}." if missing else _undescribed(artifact)
    if trouble:
        return {**failed("damaged-file", trouble), "checks": [check("files", trouble)]}
    try:
        rows, peak = _look(artifact, framework, watch)
    except AdvisorError as error:
        if error.code not in VERDICTS:
            raise
        return {**failed("damaged-file", error.message), "checks": [check("parse", error.message)]}
    weights = [row for row in rows if row["weight"]]
    size = sum(path.stat().st_size for path in artifact.rglob("*") if path.is_file())
    checks = [check("files"), check("parse")]
    sound: set[str] = set()
    if reference is not None:
        base, _ = _look(reference, framework, watch)
        sound = {row["name"] for row in base if row["zero_share"] > ZERO_SHARE}
        checks.append(check("tensors", _other_tensors(weights, [row for row in base if row["weight"]])))
        checks.append(
            check("tokenizer", _changed(artifact, reference, tokenizer, "the same text would become other tokens"))
        )
        papers = read_pooling(reference).papers
        checks.append(
            check("pooling", _changed(artifact, reference, papers, "the same tokens would become another vector"))
        )
    if packed is not None:
        checks.append(check("types", _other_types(weights, packed)))
    if expected_bytes:
        apart = sum((artifact / name).stat().st_size for name in tokenizer)
        checks.append(check("size", _other_size(size, expected_bytes, framework, apart)))
    checks.append(check("values", bad_values(rows, sound)))
    wrong = next((one for one in checks if one["status"] == "fail"), None)
    return {
        **(failed(f"wrong-{wrong['id']}", wrong["text"]) if wrong else {"status": "pass"}),
        "checks": checks,
        "bytes": size,
        "sha256": sha256_file(artifact / graph[-1]),
        "tensor_bytes": sum(row["bytes"] for row in rows),
        "parameters": sum(row["elements"] for row in rows),
        "types": dict(sorted(Counter(str(row["type"]) for row in weights).items())),
        "peak_rss_bytes": peak,
    }


def _undescribed(folder: Path) -> str:
    """Why the folder does not say how to pool; empty where it does."""
    try:
        read_pooling(folder)
    except AdvisorError as error:
        return error.message
    return ""


def _look(folder: Path, framework: str, watch: Watch) -> tuple[list[Row], int]:
    done = ask({"op": "scan", "model": str(folder)}, watch, framework=framework, worker=worker_of(framework))
    return done.result["weights"], done.peak_rss_bytes


def _other_tensors(weights: Sequence[Row], expected: Sequence[Row]) -> str:
    """How the matrices differ from the reference's in name or count of values; empty if they do not."""
    found, wanted = ({row["name"]: row["elements"] for row in rows} for rows in (weights, expected))
    if found == wanted:
        return ""
    name = min(n for n in found.keys() | wanted.keys() if found.get(n) != wanted.get(n))
    where = "is missing" if name not in found else "is extra" if name not in wanted else "has another size"
    return f"Weight {name} {where} ({len(found)} weights, the reference has {len(wanted)})."


def _changed(artifact: Path, reference: Path, names: Sequence[str], what: str) -> str:
    for name in names:
        here = artifact / name
        if not here.is_file() or graph_sha256(here) != graph_sha256(reference / name):
            return f"{name} is not the reference's: {what}."
    return ""


def _other_types(weights: Sequence[Row], packed: str) -> str:
    other = next((row for row in weights if row["type"] != packed), None)
    return f"{other['name']} is {other['type']} and {packed} was planned." if other else ""


def _other_size(size: int, expected: int, framework: str, tokenizer_bytes: int) -> str:
    """What the tokenizer takes is only estimated, and its files are compared byte by byte: it is no reason to fail."""
    near = abs(size - expected) <= framework_named(framework).size_tolerance * expected + tokenizer_bytes
    return "" if near else f"The folder has {size} bytes and {expected} were predicted."
