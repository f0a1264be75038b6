"""Tier 1 of validation: is a GGUF whole, and is it what was planned? Nothing is run; see executors.validation."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from knowledge.gguf import read_gguf

from executors.executor import Watch
from executors.validation import ask, failed
from knowledge.base import AdvisorError
from knowledge.ggml import tensor_types
from knowledge.records import ModelSpec, Tensor

SIZE_TOLERANCE = 0.005  # issue 2: a predicted file size within 0.5 %
ALIGNMENT = 32  # GGUF_DEFAULT_ALIGNMENT
ZERO_SHARE = 0.5  # of a weight's scales: more than this is damage, unless the reference has them too


def integrity(
    artifact: Path,
    *,
    reference: Path | None = None,
    planned: tuple[str, Sequence[tuple[str, str]]] | None = None,
    expected_bytes: int = 0,
    watch: Watch,
) -> dict[str, Any]:
    """Tier 1 on a GGUF: nothing is run. `planned` is the file type and the (name part, type) overrides.

    Returns `{"status", "code", "reason", "checks": [{"id", "status", "text"}], "bytes", "sha256", "tensor_bytes",
    "parameters", "types"}`: it parses, its tensors and shapes are the reference's, types as planned, size within 0.5 %
    of `expected_bytes`, no value that is not a number and no weight whose scales are zero.
    """
    try:
        spec = read_gguf(artifact)
        base = read_gguf(reference) if reference is not None else None
    except AdvisorError as error:
        return {**failed("damaged-file", error.message), "checks": [_check("parse", error.message)]}
    checks = [_check("parse")]
    if base is not None:
        checks.append(_check("tensors", _other_tensors(spec, base)))
    if base is not None and planned is not None:
        checks.append(_check("types", _other_types(spec, base, planned)))
    size = artifact.stat().st_size
    if expected_bytes:
        wrong = abs(size - expected_bytes) > SIZE_TOLERANCE * expected_bytes
        words = f"The file has {size} bytes and {expected_bytes} were predicted."
        checks.append(_check("size", words if wrong else ""))
    found, peak = _scan(artifact, spec, watch)
    suspects = _mostly_zero(found)
    if suspects and reference is not None and base is not None:
        suspects -= _mostly_zero(_scan(reference, base, watch)[0])
    checks.append(_check("values", _bad_values(found, suspects)))
    wrong_one = next((check for check in checks if check["status"] == "fail"), None)
    return {
        **(failed(f"wrong-{wrong_one['id']}", wrong_one["text"]) if wrong_one else {"status": "pass"}),
        "checks": checks,
        "bytes": size,
        "sha256": _sha256(artifact),
        "tensor_bytes": sum(tensor.stored_bytes or 0 for tensor in spec.tensors),
        "parameters": sum(tensor.elements for tensor in spec.tensors),
        "types": dict(sorted(Counter(tensor.dtype or "?" for tensor in spec.tensors).items())),
        "peak_rss_bytes": peak,
    }


def _check(name: str, wrong: str = "") -> dict[str, str]:
    return {"id": name, "status": "fail" if wrong else "pass", "text": wrong}


def _other_tensors(spec: ModelSpec, base: ModelSpec) -> str:
    """How the tensors differ from the reference's in name or shape; empty if they do not."""
    shapes, expected = ({t.name: (t.row_length, t.rows) for t in one.tensors} for one in (spec, base))
    if shapes == expected:
        return ""
    name = min(n for n in shapes.keys() | expected.keys() if shapes.get(n) != expected.get(n))
    where = (
        "is missing"
        if name not in shapes
        else "is not in the reference"
        if name not in expected
        else "has another shape"
    )
    return f"Tensor {name} {where} ({len(shapes)} tensors, the reference has {len(expected)})."


def _other_types(spec: ModelSpec, base: ModelSpec, planned: tuple[str, Sequence[tuple[str, str]]]) -> str:
    overrides = [(re.escape(part), kind) for part, kind in planned[1]]
    found = {tensor.name: tensor.dtype for tensor in spec.tensors}
    wrong = [
        f"{tensor.name} is {found.get(tensor.name)} and {kind} was planned"
        for tensor, kind in tensor_types(base.tensors, base, planned[0], overrides)
        if found.get(tensor.name) != kind
    ]
    return f"{len(wrong)} tensors have another type than planned: {wrong[0]}." if wrong else ""


def _scan(path: Path, spec: ModelSpec, watch: Watch) -> tuple[dict[str, dict[str, Any]], int]:
    """What the worker finds in the numbers of each matrix and vector that has something to tell; its peak memory."""
    tensors = [
        {"name": tensor.name, "type": tensor.dtype, "offset": offset, "bytes": tensor.stored_bytes}
        for tensor, offset in _placed(spec)
        if tensor.dimensions > 1 or "norm" in tensor.name  # a bias may be zero
    ]
    done = ask({"op": "scan_scales", "model": str(path), "tensors": tensors}, watch)
    return {found["name"]: found for found in done.result["tensors"]}, done.peak_rss_bytes


def _placed(spec: ModelSpec) -> Iterator[tuple[Tensor, int]]:
    """Each tensor and where its data begins: one after the other, aligned, as llama.cpp insists (ggml/src/gguf.cpp)."""
    offset = spec.header_bytes
    for tensor in spec.tensors:
        yield tensor, offset
        offset += -(-(tensor.stored_bytes or 0) // ALIGNMENT) * ALIGNMENT


def _mostly_zero(found: dict[str, dict[str, Any]]) -> set[str]:
    return {name for name, values in found.items() if values["zero_share"] > ZERO_SHARE}


def _bad_values(found: dict[str, dict[str, Any]], suspects: set[str]) -> str:
    for name, values in found.items():
        if values["not_finite"]:
            return f"Tensor {name} holds {values['not_finite']} values or scales that are not numbers."
        if name in suspects:
            return f"{values['zero_share']:.0%} of the scales of tensor {name} are zero."
    return ""


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
