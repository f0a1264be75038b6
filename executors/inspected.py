"""Tier 1 of validation over what a worker's `inspect` tells of a model: is it whole, and is it what was planned?

The framework-independent part: see executors.validation for the tiers and docs/adding-a-framework.md for `inspect`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from executors.integrity import ZERO_SHARE, check
from executors.process import Watch, WorkerResult
from executors.validation import VERDICTS, ask, failed
from knowledge.base import AdvisorError
from knowledge.matrix import framework_named

Tensor = Mapping[str, Any]
OtherTypes = Callable[[Sequence[Tensor], Sequence[Tensor]], str]


def integrity(
    artifact: Path,
    framework: str,
    *,
    reference: Path | None,
    expected_bytes: int,
    watch: Watch,
    other_types: OtherTypes | None = None,
) -> dict[str, Any]:
    """It parses, its tensors, shapes and tokenizer are the reference's, types and size as planned, its values sound.

    `other_types` says of the artifact's and the reference's tensors what is not stored as planned; empty if nothing.
    Returns what executors.integrity does; `types` where the worker tells them.
    """
    try:
        found = _inspect(artifact, framework, watch)
    except AdvisorError as error:
        if error.code not in VERDICTS:
            raise
        return {**failed("damaged-file", error.message), "checks": [check("parse", error.message)]}
    seen, base = found.result, _inspect(reference, framework, watch).result if reference else None
    tensors: list[Tensor] = seen["tensors"]
    size = _bytes(artifact)
    checks = [check("parse")]
    if base is not None:
        checks.append(check("tensors", _other_tensors(tensors, base["tensors"])))
        same = seen["tokenizer_sha256"] == base["tokenizer_sha256"]
        checks.append(check("tokenizer", "" if same else "The tokenizer is not the reference's."))
        if other_types is not None and checks[1]["status"] == "pass":
            checks.append(check("types", other_types(tensors, base["tensors"])))
    if expected_bytes:
        checks.append(check("size", _other_size(size, expected_bytes, framework)))
    checks.append(check("values", _bad_values(tensors, base["tensors"] if base else ())))
    wrong = next((one for one in checks if one["status"] == "fail"), None)
    types = Counter(str(tensor["type"]) for tensor in tensors if "type" in tensor)
    return {
        **(failed(f"wrong-{wrong['id']}", wrong["text"]) if wrong else {"status": "pass"}),
        "checks": checks,
        "bytes": size,
        "tensor_bytes": sum(tensor["bytes"] for tensor in tensors),
        "parameters": sum(tensor["elements"] for tensor in tensors),
        **({"types": dict(sorted(types.items()))} if types else {}),
        "peak_rss_bytes": found.peak_rss_bytes,
    }


def _inspect(model: Path, framework: str, watch: Watch) -> WorkerResult:
    return ask({"op": "inspect", "model": str(model)}, watch, framework=framework)


def _other_size(size: int, expected: int, framework: str) -> str:
    near = abs(size - expected) <= framework_named(framework).size_tolerance * expected
    return "" if near else f"The model has {size} bytes and {expected} were predicted."


def _bytes(model: Path) -> int:
    files = [model] if model.is_file() else [path for path in model.rglob("*") if path.is_file()]
    return sum(file.stat().st_size for file in files)


def _other_tensors(seen: Sequence[Tensor], base: Sequence[Tensor]) -> str:
    shapes, expected = ({t["name"]: t["shape"] for t in one} for one in (seen, base))
    if shapes == expected:
        return ""
    name = min(n for n in shapes.keys() | expected.keys() if shapes.get(n) != expected.get(n))
    return f"Tensor {name} is not as in the reference ({len(shapes)} tensors, the reference has {len(expected)})."


def _bad_values(seen: Sequence[Tensor], base: Sequence[Tensor]) -> str:
    zero = {t["name"] for t in base if t["zero_share"] > ZERO_SHARE}
    for tensor in seen:
        if tensor["not_finite"]:
            return f"Tensor {tensor['name']} holds {tensor['not_finite']} values that are not numbers."
        if tensor["zero_share"] > ZERO_SHARE and tensor["name"] not in zero:
            return f"{tensor['zero_share']:.0%} of the scales of tensor {tensor['name']} are zero."
    return ""
