"""Tier 1 of validation for an ONNX Runtime GenAI folder: is it whole, and is it what was planned? See
executors.integrity. The graph and its scales are read by a worker, never run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from advisor.onnx_recipe import HEAD_BITS, HEAD_BLOCK, OnnxPass
from executors.folder import sha256_file
from executors.integrity import ZERO_SHARE, check
from executors.process import Watch
from executors.validation import VERDICTS, ask, failed
from knowledge.base import AdvisorError
from knowledge.matrix import framework_named

FRAMEWORK = "olive"
FILES = ("genai_config.json", "tokenizer.json")
EMBEDDING = "embed_tokens"
HIDDEN = "Weights are compiled into the graph, lie in another graph or in an unknown form: they were not looked into."

Planned = Sequence[tuple[OnnxPass, Sequence[str]]]
Row = Mapping[str, Any]


def integrity(
    artifact: Path, *, reference: Path | None = None, planned: Planned | None = None, expected_bytes: int, watch: Watch
) -> dict[str, Any]:
    """Tier 1 on a model folder. `planned` are the passes, each with the parts of names that it is for.

    As executors.integrity, plus: every file is there, and the graph has the output that genai_config.json names;
    `types` counts the matrices by bits and block. Of a graph that hides weights there are no `parameters`, and `values`
    is unknown.
    """
    missing = [name for name in FILES if not (artifact / name).is_file()]
    if missing:
        text = f"The folder has no {missing[0]}."
        return {**failed("damaged-file", text), "checks": [check("files", text)]}
    try:
        seen, peak = _look(artifact, watch)
    except AdvisorError as error:
        if error.code not in VERDICTS:
            raise
        return {**failed("damaged-file", error.message), "checks": [check("parse", error.message)]}
    rows: list[Row] = seen["weights"]
    size = sum(path.stat().st_size for path in artifact.iterdir() if path.is_file())
    checks = [check("files"), check("parse"), check("outputs", _other_output(seen))]
    sound: set[str] = set()
    if reference is not None:
        base = _look(reference, watch)[0]["weights"]
        sound = {row["name"] for row in base if row["zero_share"] > ZERO_SHARE}
        checks.append(check("tokenizer", _other_tokenizer(artifact, reference)))
        if not seen["hidden"]:
            checks.append(check("tensors", _other_tensors(rows, base)))
            if planned is not None and checks[-1]["status"] == "pass":
                checks.append(check("types", _other_types(rows, planned)))
    if expected_bytes:
        checks.append(check("size", _other_size(size, expected_bytes)))
    checks.append(check("values", _bad_values(rows, sound)))
    if seen["hidden"] and checks[-1]["status"] == "pass":
        checks[-1] = {"id": "values", "status": "unknown", "text": HIDDEN}
    wrong = next((one for one in checks if one["status"] == "fail"), None)
    graphs = sorted(artifact.glob("*.onnx"))
    matrices = [row for row in rows if row["rows"] > 1]
    return {
        **(failed(f"wrong-{wrong['id']}", wrong["text"]) if wrong else {"status": "pass"}),
        "checks": checks,
        "bytes": size,
        "sha256": sha256_file(graphs[0]),
        "tensor_bytes": seen["tensor_bytes"],
        **({} if seen["hidden"] else {"parameters": parameters(matrices) + seen["norm_elements"]}),
        "types": dict(sorted(Counter(_type(row) for row in matrices if not row["shared"]).items())),
        "peak_rss_bytes": peak,
    }


def _look(folder: Path, watch: Watch) -> tuple[dict[str, Any], int]:
    done = ask({"op": "scan", "model": str(folder)}, watch, framework=FRAMEWORK)
    return done.result, done.peak_rss_bytes


def parameters(rows: Sequence[Row]) -> int:
    """The values of the matrices; those of a head that repeats the embedding count once."""
    return sum(row["rows"] * row["columns"] for row in rows if not row["shared"])


def _type(row: Row) -> str:
    if row["bits"] >= 16:
        return f"f{row['bits']}"
    return f"{row['bits']} bits by {row['block_size']}, {'symmetric' if row['symmetric'] else 'asymmetric'}"


def _other_output(seen: Mapping[str, Any]) -> str:
    if seen["wanted_output"] in ("", *seen["outputs"]):
        return ""
    return f"genai_config.json names the output {seen['wanted_output']}, which the graph does not have."


def _other_tensors(rows: Sequence[Row], base: Sequence[Row]) -> str:
    """How the matrices differ from the reference's in name or shape; empty if they do not."""
    found, wanted = (
        {row["name"]: (row["rows"], row["columns"]) for row in one if row["rows"] > 1} for one in (rows, base)
    )
    if found == wanted:
        return ""
    name = min(n for n in found.keys() | wanted.keys() if found.get(n) != wanted.get(n))
    where = "is missing" if name not in found else "is extra" if name not in wanted else "has another shape"
    return f"Matrix {name} {where} ({len(found)} matrices, the reference has {len(wanted)})."


def _other_tokenizer(artifact: Path, reference: Path) -> str:
    name = FILES[1]
    same = sha256_file(artifact / name) == sha256_file(reference / name)
    return "" if same else f"{name} is not the reference's: the same text would become other tokens."


def _other_types(rows: Sequence[Row], planned: Planned) -> str:
    """Which matrix is packed otherwise than planned; without passes all stay in floating point."""
    left = list(rows)
    embedding = [row for row in left if EMBEDDING in row["name"]]
    left = [row for row in left if row not in embedding]
    wanted = [(row, (HEAD_BITS, HEAD_BLOCK)) for row in embedding] if planned else []
    for step, parts in planned:
        chosen = [row for row in left if not parts or any(part in row["name"] for part in parts)]
        left = [row for row in left if row not in chosen]
        wanted += [(row, (step.bits, step.block_size)) for row in chosen]
    for row, (bits, block) in wanted:
        if row["rows"] > 1 and (row["bits"], row["block_size"]) != (bits, block):
            return f"{row['name']} is {_type(row)} and {bits} bits by {block} were planned."
    kept = next((row for row in left if row["bits"] < 16), None)
    return f"{kept['name']} was quantized and was to stay in 32 bits." if kept else ""


def _other_size(size: int, expected: int) -> str:
    near = abs(size - expected) <= framework_named(FRAMEWORK).size_tolerance * expected
    return "" if near else f"The folder has {size} bytes and {expected} were predicted."


def _bad_values(rows: Sequence[Row], sound: set[str]) -> str:
    for row in rows:
        if row["not_finite"]:
            return f"{row['name']} holds {row['not_finite']} values or scales that are not numbers."
        if row["zero_share"] > ZERO_SHARE and row["name"] not in sound:
            return f"{row['zero_share']:.0%} of the scales of {row['name']} are zero."
    return ""
