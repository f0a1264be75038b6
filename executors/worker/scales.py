"""Look at the numbers in a GGUF's tensors without a framework: values that are not numbers, scales that are zero.

A quantized block carries its scale (and sometimes its minimum) as 16-bit floats at a fixed place. A scale that is NaN
or infinite, or a weight whose scales are nearly all zero, is damage that llama.cpp loads in silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .protocol import Request, WorkerError, progress

# Bytes of a block and where its 16-bit floats lie, the scale first (llama.cpp ggml/src/ggml-common.h, block_*).
BLOCKS: dict[str, tuple[int, tuple[int, ...]]] = {
    "Q4_0": (18, (0,)), "Q4_1": (20, (0, 2)), "Q5_0": (22, (0,)), "Q5_1": (24, (0, 2)), "Q8_0": (34, (0,)),
    "Q2_K": (84, (80, 82)), "Q3_K": (110, (108,)), "Q4_K": (144, (0, 2)), "Q5_K": (176, (0, 2)), "Q6_K": (210, (208,)),
    "IQ2_XXS": (66, (0,)), "IQ2_XS": (74, (0,)), "IQ2_S": (82, (0,)), "IQ3_XXS": (98, (0,)), "IQ3_S": (110, (0,)),
    "IQ1_S": (50, (0,)), "IQ4_NL": (18, (0,)), "IQ4_XS": (136, (0,)), "TQ1_0": (54, (52,)), "TQ2_0": (66, (64,)),
}  # fmt: skip
FLOATS = {"F16": "<f2", "F32": "<f4"}
MAX_BLOCKS = 1_000_000  # looked at per tensor, evenly spread


def scan(request: Request) -> dict[str, Any]:
    """Look into the file `model` at `tensors` [{"name", "type", "offset", "bytes"}], offsets from the file's start.

    Returns `{"tensors": [{"name", "not_finite", "zero_share"}], "scanned", "skipped"}`: only tensors with something to
    tell. `not_finite` counts scales, minima and plain values; `zero_share` is the share of scales (of plain values)
    that are zero. Types without 16-bit floats (MXFP4, IQ1_M, BF16, ...) are counted as skipped.
    """
    tensors = request["tensors"]
    data = np.memmap(str(request["model"]), dtype=np.uint8, mode="r")
    findings, skipped = [], 0
    for number, tensor in enumerate(tensors):
        progress(number, len(tensors), "checking scales")
        values = _values(data, tensor)
        if values is None:
            skipped += 1
            continue
        not_finite = int(np.count_nonzero(~np.isfinite(values)))
        zero_share = float(np.mean(values[0] == 0)) if values.size else 1.0
        if not_finite or zero_share > 0:
            findings.append({"name": tensor["name"], "not_finite": not_finite, "zero_share": zero_share})
    return {"tensors": findings, "scanned": len(tensors) - skipped, "skipped": skipped}


def _values(data: NDArray[np.uint8], tensor: Mapping[str, Any]) -> NDArray[np.floating[Any]] | None:
    """(fields, blocks): scales first; for plain floats one field. None for a type that is not looked into."""
    start, size = int(tensor["offset"]), int(tensor["bytes"])
    raw = data[start : start + size]
    if start < 0 or size < 0 or len(raw) != size:
        raise WorkerError("damaged-file", f"The data of tensor {tensor['name']} lies outside the file.")
    if tensor["type"] in FLOATS:
        plain = raw.view(FLOATS[tensor["type"]])
        return plain[:: max(1, len(plain) // MAX_BLOCKS)][None]
    if tensor["type"] not in BLOCKS:
        return None
    block, places = BLOCKS[tensor["type"]]
    blocks = raw.reshape(-1, block)
    blocks = blocks[:: max(1, len(blocks) // MAX_BLOCKS)]
    return np.stack([np.ascontiguousarray(blocks[:, place : place + 2]).view("<f2")[:, 0] for place in places])
