"""Tier 1 of validation for an OpenVINO model folder: is it whole, and is it what was planned? See executors.integrity.

The graph is read by a worker (a damaged one is an error there, not a crash here), never compiled.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from advisor.compression import CompressionPass
from executors.folder import sha256_file
from executors.integrity import ZERO_SHARE, check
from executors.process import Watch
from executors.validation import VERDICTS, ask, failed
from knowledge.base import AdvisorError
from knowledge.matrix import framework_named

FRAMEWORK = "openvino"
MODEL = ("openvino_model.xml", "openvino_model.bin")
TOKENIZER = tuple(f"openvino_{part}.{end}" for part in ("tokenizer", "detokenizer") for end in ("xml", "bin"))
_PACKED = {
    "int8_asym": "u8", "int8_sym": "i8", "int4_asym": "u4", "int4_sym": "i4", "nf4": "nf4", "mxfp4": "f4e2m1",
}  # fmt: skip
_ABOUT = re.compile(rb"\n\t<rt_info>.*</rt_info>\s*</net>\s*$", re.DOTALL)  # what a graph says of itself, at its end
_RATIO_TOLERANCE = 0.05  # NNCF chooses whole layers
_EDGES = ("embed_tokens", "lm_head")  # embedding and head keep the backup mode

Planned = Sequence[tuple[CompressionPass, Sequence[str]]]
Row = Mapping[str, Any]


def integrity(
    artifact: Path, *, reference: Path | None = None, planned: Planned | None = None, expected_bytes: int, watch: Watch
) -> dict[str, Any]:
    """Tier 1 on a model folder. `planned` are the passes, each with the parts of names that it is for.

    As executors.integrity, plus: every file is there; `types` counts the weights by packed type and scales per row.
    """
    missing = [name for name in (*MODEL, *TOKENIZER) if not (artifact / name).is_file()]
    if missing:
        text = f"The folder has no {missing[0]}."
        return {**failed("damaged-file", text), "checks": [check("files", text)]}
    try:
        rows, peak = _look(artifact, watch)
    except AdvisorError as error:
        if error.code not in VERDICTS:
            raise
        return {**failed("damaged-file", error.message), "checks": [check("parse", error.message)]}
    weights = [row for row in rows if row["weight"]]
    size = sum(path.stat().st_size for path in artifact.iterdir() if path.is_file())
    checks = [check("files"), check("parse")]
    sound: set[str] = set()
    if reference is not None:
        base, _ = _look(reference, watch)
        expected = [row for row in base if row["weight"]]
        sound = {row["name"] for row in expected if row["zero_share"] > ZERO_SHARE}
        checks.append(check("tensors", _other_tensors(weights, expected)))
        checks.append(check("tokenizer", _other_tokenizer(artifact, reference)))
        if planned is not None and checks[-2]["status"] == "pass":
            checks.append(check("types", _other_types(weights, expected, planned)))
    if expected_bytes:
        checks.append(check("size", _other_size(size, expected_bytes)))
    checks.append(check("values", bad_values(rows, sound)))
    wrong = next((one for one in checks if one["status"] == "fail"), None)
    return {
        **(failed(f"wrong-{wrong['id']}", wrong["text"]) if wrong else {"status": "pass"}),
        "checks": checks,
        "bytes": size,
        "sha256": sha256_file(artifact / MODEL[1]),
        "tensor_bytes": sum(row["bytes"] for row in rows),
        "parameters": sum(row["elements"] for row in rows),
        "types": dict(sorted(Counter(_type(row) for row in weights).items())),
        "peak_rss_bytes": peak,
    }


def _look(folder: Path, watch: Watch) -> tuple[list[Row], int]:
    done = ask({"op": "scan", "model": str(folder)}, watch, framework=FRAMEWORK)
    return done.result["weights"], done.peak_rss_bytes


def _type(row: Row) -> str:
    return f"{row['type']}, {row['groups']} scales per row" if row["groups"] > 1 else str(row["type"])


def _other_tensors(weights: Sequence[Row], expected: Sequence[Row]) -> str:
    """How the weights differ from the reference's in name, rows or count of values; empty if they do not."""
    found, wanted = ({row["name"]: (row["shape"][0], row["elements"]) for row in rows} for rows in (weights, expected))
    if found == wanted:
        return ""
    name = min(n for n in found.keys() | wanted.keys() if found.get(n) != wanted.get(n))
    where = "is missing" if name not in found else "is extra" if name not in wanted else "has another shape"
    return f"Weight {name} {where} ({len(found)} weights, the reference has {len(wanted)})."


def _other_tokenizer(artifact: Path, reference: Path) -> str:
    changed = [name for name in TOKENIZER if graph_sha256(artifact / name) != graph_sha256(reference / name)]
    return f"{changed[0]} is not the reference's: the same text would become other tokens." if changed else ""


def graph_sha256(path: Path) -> str:
    """The SHA-256 of a file; of a graph, but for the versions that made it and the chat template, which it tells."""
    if path.suffix != ".xml":
        return sha256_file(path)
    return hashlib.sha256(_ABOUT.sub(b"", path.read_bytes())).hexdigest()


def _other_types(weights: Sequence[Row], expected: Sequence[Row], planned: Planned) -> str:
    """Which weight is packed otherwise than planned; of a ratio, whether its share was kept."""
    found = {row["name"]: row for row in weights}
    left = list(expected)
    for step, parts in planned:
        chosen = [row for row in left if not parts or any(part in row["name"] for part in parts)]
        left = [row for row in left if row not in chosen]
        low = 0
        for row in chosen:
            made = found[row["name"]]
            edge = step.four_bit and any(part in row["name"] for part in _EDGES)
            wanted = _backup(step) if edge else _packed(step, row)
            if step.ratio < 1 and not edge and (made["type"], made["groups"]) != wanted:
                wanted = _backup(step)
            elif not edge:
                low += row["elements"]
            if (made["type"], made["groups"]) != wanted:
                return f"{row['name']} is {_type(made)} and {wanted[0]} with {wanted[1]} scales per row was planned."
        inner = sum(row["elements"] for row in chosen if not any(part in row["name"] for part in _EDGES))
        if step.ratio < 1 and inner and abs(low / inner - step.ratio) > _RATIO_TOLERANCE:
            return f"{low / inner:.0%} of the weights are {step.mode} and {step.ratio:.0%} were planned."
    kept = next((row["name"] for row in left if found[row["name"]]["type"] != row["type"]), "")
    return f"{kept} was compressed and was to stay in 16 bits." if kept else ""


def _packed(step: CompressionPass, row: Row) -> tuple[str, int]:
    """Type and scales per row of a weight, an array of rows and columns in the reference."""
    columns = row["elements"] // row["shape"][0]
    return _PACKED[step.mode], 1 if step.group_size < 0 else columns // step.group_size


def _backup(step: CompressionPass) -> tuple[str, int]:
    return ("f16", 0) if step.backup_mode == "none" else (_PACKED[step.backup_mode], 1)


def _other_size(size: int, expected: int) -> str:
    near = abs(size - expected) <= framework_named(FRAMEWORK).size_tolerance * expected
    return "" if near else f"The folder has {size} bytes and {expected} were predicted."


def bad_values(rows: Sequence[Row], sound: set[str]) -> str:
    """Which weight holds what is no number, or too many zeros among its scales, `sound` ones apart; empty if none."""
    for row in rows:
        if row["not_finite"]:
            return f"{row['name']} holds {row['not_finite']} values or scales that are not numbers."
        if row["weight"] and row["zero_share"] > ZERO_SHARE and row["name"] not in sound:
            return f"{row['zero_share']:.0%} of the scales of {row['name']} are zero."
    return ""
