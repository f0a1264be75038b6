"""Tier 1 of validation: is a GGUF whole, and is it what was planned? Nothing is run; see executors.validation."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from executors.folder import sha256_file
from executors.process import Watch
from executors.validation import ask, failed
from knowledge.base import AdvisorError
from knowledge.ggml import tensor_types
from knowledge.gguf import GgufFile, model_from_gguf, read_gguf, tokenizer_sha256

SIZE_TOLERANCE = 0.005  # issue 2: a predicted file size within 0.5 %
ZERO_SHARE = 0.5  # of a weight's scales: more than this is damage, unless the reference has them too

Planned = tuple[str, Sequence[tuple[str, str]]]


def integrity(
    artifact: Path,
    *,
    reference: Path | None = None,
    planned: Planned | None = None,
    imatrix: bool = False,
    expected_bytes: int = 0,
    watch: Watch,
) -> dict[str, Any]:
    """Tier 1 on a GGUF. `planned` is the file type and the (part of a name, type) overrides, chosen with
    an importance matrix or not; needs `reference`.

    Returns `{"status", "code", "reason", "checks": [{"id", "status", "text"}], "bytes", "sha256", "tensor_bytes",
    "parameters", "types"}`: it parses, its tensors, shapes and tokenizer are the reference's, types as planned, size
    within 0.5 % of `expected_bytes`, no value that is not a number and no weight whose scales are zero.
    """
    try:
        file = read_gguf(artifact)
        base = read_gguf(reference) if reference is not None else None
    except AdvisorError as error:
        return {**failed("damaged-file", error.message), "checks": [check("parse", error.message)]}
    checks = [check("parse")]
    if base is not None:
        checks.append(check("tensors", _other_tensors(file, base)))
        checks.append(check("tokenizer", _other_tokenizer(file, base)))
        if planned is not None:
            checks.append(check("types", _other_types(file, base, planned, imatrix)))
    if expected_bytes:
        checks.append(check("size", _other_size(file.file_bytes, expected_bytes)))
    found, peak = _scan(file, watch)
    suspects = _mostly_zero(found)
    if suspects and base is not None:
        suspects -= _mostly_zero(_scan(base, watch)[0])
    checks.append(check("values", _bad_values(found, suspects)))
    wrong = next((check for check in checks if check["status"] == "fail"), None)
    return {
        **(failed(f"wrong-{wrong['id']}", wrong["text"]) if wrong else {"status": "pass"}),
        "checks": checks,
        "bytes": file.file_bytes,
        "sha256": sha256_file(artifact),
        "tensor_bytes": sum(tensor.stored_bytes or 0 for tensor in file.tensors),
        "parameters": sum(tensor.elements for tensor in file.tensors),
        "types": dict(sorted(Counter(str(tensor.dtype) for tensor in file.tensors).items())),
        "peak_rss_bytes": peak,
    }


def check(name: str, wrong: str = "") -> dict[str, str]:
    return {"id": name, "status": "fail" if wrong else "pass", "text": wrong}


def _other_tensors(file: GgufFile, base: GgufFile) -> str:
    """How the tensors differ from the reference's in name or shape; empty if they do not."""
    shapes, expected = ({t.name: (t.row_length, t.rows) for t in one.tensors} for one in (file, base))
    if shapes == expected:
        return ""
    name = min(n for n in shapes.keys() | expected.keys() if shapes.get(n) != expected.get(n))
    where = "is missing" if name not in shapes else "is extra" if name not in expected else "has another shape"
    return f"Tensor {name} {where} ({len(shapes)} tensors, the reference has {len(expected)})."


def _other_tokenizer(file: GgufFile, base: GgufFile) -> str:
    same = tokenizer_sha256(file) == tokenizer_sha256(base)
    return "" if same else "The tokenizer is not the reference's: the same text would become other tokens."


def _other_types(file: GgufFile, base: GgufFile, planned: Planned, imatrix: bool) -> str:
    overrides = [(re.escape(part), kind) for part, kind in planned[1]]
    found = {tensor.name: tensor.dtype for tensor in file.tensors}
    wrong = [
        f"{tensor.name} is {found.get(tensor.name)} and {kind} was planned"
        for tensor, kind in tensor_types(base.tensors, model_from_gguf(base), planned[0], overrides, imatrix)
        if found.get(tensor.name) != kind
    ]
    return f"{len(wrong)} tensors have another type than planned: {wrong[0]}." if wrong else ""


def _other_size(size: int, expected: int) -> str:
    near = abs(size - expected) <= SIZE_TOLERANCE * expected
    return "" if near else f"The file has {size} bytes and {expected} were predicted."


def _scan(file: GgufFile, watch: Watch) -> tuple[dict[str, dict[str, Any]], int]:
    """What a worker finds in the numbers of each tensor that has something to tell; the worker's peak memory."""
    if len(file.shards) > 1:
        raise AdvisorError("split-model", f"{file.path.name} is split into parts.", "merge them with llama-gguf-split")
    done = ask({"op": "scan_scales", "model": str(file.path), "tensors": list(_placed(file))}, watch)
    return {found["name"]: found for found in done.result["tensors"]}, done.peak_rss_bytes


def _placed(file: GgufFile) -> Iterator[dict[str, Any]]:
    """Each tensor and where its data begins: one after the other, aligned, which read_gguf has checked.

    Biases and the like are left out: they may be zero.
    """
    offset = file.data_offset
    for tensor in file.tensors:
        size = tensor.stored_bytes or 0
        if tensor.dimensions > 1 or tensor.role == "norm":
            yield {"name": tensor.name, "type": tensor.dtype, "offset": offset, "bytes": size}
        offset += -(-size // file.alignment) * file.alignment


def _mostly_zero(found: dict[str, dict[str, Any]]) -> set[str]:
    return {name for name, values in found.items() if values["zero_share"] > ZERO_SHARE}


def _bad_values(found: dict[str, dict[str, Any]], suspects: set[str]) -> str:
    for name, values in found.items():
        if values["not_finite"]:
            return f"Tensor {name} holds {values['not_finite']} values or scales that are not numbers."
        if name in suspects:
            return f"{values['zero_share']:.0%} of the scales of tensor {name} are zero."
    return ""
