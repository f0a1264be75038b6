"""Importance matrices: how strongly each input column of a weight matrix is used, as the quantizer weighs errors by it.

While llama.cpp evaluates a text, its evaluation callback shows every matrix product; the squares of the activations
that enter it are summed per column (and per expert, where products are routed). The file is the GGUF that
llama-imatrix writes and llama-quantize reads: per weight `NAME.in_sum2` (matrices, columns) and `NAME.counts`
(matrices, 1), the number of rows that were summed.
"""

from __future__ import annotations

import ctypes
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import llama_cpp as llama
import numpy as np
from numpy.typing import NDArray

from . import ggml_tensors as tensors
from .evaluation import read_text
from .llama_session import SCORE_BATCH, open_session
from .protocol import Request, WorkerError, progress

LEAST_ROWS = 16  # products of fewer rows are no prompt processing (llama.cpp tools/imatrix/imatrix.cpp)
LEAST_TOKENS = 256
WINDOW = 512
_SUMS, _COUNTS = ".in_sum2", ".counts"


@dataclass
class Collected:
    """Sums of squares (matrices, columns) and rows summed (matrices,) of each weight; `failure` ends the collection."""

    sums: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    counts: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    failure: str = ""

    def entry(self, name: str, matrices: int, columns: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        sums = self.sums.setdefault(name, np.zeros((matrices, columns)))
        return sums, self.counts.setdefault(name, np.zeros(matrices))


def imatrix(request: Request) -> dict[str, Any]:
    """Collect the importance matrix of `model` over the first `tokens` tokens of the file `text` into `output`.

    The text goes through in windows of 512 tokens, or the model's context if that is less; `threads`. Returns `tokens`,
    `weights` (matrices covered), `bytes`. Raises WorkerError `text-too-short`, and `worker-error` where this build of
    llama.cpp cannot be listened to.
    """
    operations = tensors.check_layout()
    collected = Collected()
    listen = llama.ggml_backend_sched_eval_callback(
        lambda address, ask, _: _on_product(address, ask, operations, collected)
    )
    session = open_session({**request, "n_ctx": WINDOW}, batch_tokens=SCORE_BATCH, eval_callback=listen)
    tokens = session.tokenize(read_text(request), special=False)[: int(request["tokens"])]
    batch = session.batch_tokens
    size = session.n_ctx // batch * batch
    tokens = tokens[: len(tokens) // batch * batch]  # whole batches: a short one would not be heard
    if len(tokens) < LEAST_TOKENS:
        raise WorkerError("text-too-short", f"{len(tokens)} tokens are too few for an importance matrix.")
    for start in range(0, len(tokens), size):
        window = tokens[start : start + size].copy()
        if session.first_token is not None:
            window[0] = session.first_token
        session.clear()
        for at in range(0, len(window), batch):
            session.feed(window[at : at + batch], at, every=True)
            if collected.failure:
                raise WorkerError("worker-error", collected.failure)
            progress(start + at + batch, len(tokens), "collecting activations")
    if not collected.sums:
        raise WorkerError("worker-error", "llama.cpp showed no matrix product of this model.")
    output = Path(request["output"])
    _write(output, collected, Path(request["text"]).name, -(-len(tokens) // size), size)
    return {"tokens": len(tokens), "weights": len(collected.sums), "bytes": output.stat().st_size}


def _on_product(address: int, ask: bool, operations: dict[str, int], collected: Collected) -> bool:
    """llama.cpp's callback: with `ask`, whether the node's inputs are wanted; without, they are there. False stops."""
    try:
        node = tensors.view(address)
        if node.op not in operations.values():
            return not ask
        if ask:
            return _wanted(node, routed=node.op == operations["MUL_MAT_ID"])
        _add(node, collected, routed=node.op == operations["MUL_MAT_ID"])
    except Exception as error:  # an exception cannot pass through native code: it is told afterwards
        traceback.print_exc()
        collected.failure = f"Activations cannot be read: {error}."
        return False
    return True


def _wanted(node: tensors.Tensor, *, routed: bool) -> bool:
    weight, rows = tensors.view(node.src[0]), tensors.view(node.src[1])
    enough = (rows.ne[2] if routed else rows.ne[1]) >= LEAST_ROWS
    return bool(enough and weight.name.startswith(b"blk.") and rows.type == tensors.F32)


def _add(node: tensors.Tensor, collected: Collected, *, routed: bool) -> None:
    weight, rows = tensors.view(node.src[0]), tensors.view(node.src[1])
    matrices = weight.ne[2] if routed else weight.ne[2] * weight.ne[3]
    sums, counts = collected.entry(weight.name.decode("utf-8", "replace"), matrices, weight.ne[0])
    activations = tensors.values(rows, node.src[1])
    if not np.isfinite(activations).all():
        raise ValueError("an activation is not a number")
    if routed:
        add_routed(sums, counts, activations[0], tensors.values(tensors.view(node.src[2]), node.src[2])[0, 0])
    else:
        add_plain(sums, counts, activations.reshape(-1, *activations.shape[2:]))


def add_plain(sums: NDArray[np.float64], counts: NDArray[np.float64], activations: NDArray[np.float32]) -> None:
    """Add the squares of `activations` (slices, rows, columns); slices are dealt to the matrices in order."""
    squares = np.square(activations, dtype=np.float64).sum(axis=1)
    for number, square in enumerate(squares):
        matrix = number * len(sums) // len(squares)
        sums[matrix] += square
        counts[matrix] += activations.shape[1]


def add_routed(
    sums: NDArray[np.float64],
    counts: NDArray[np.float64],
    activations: NDArray[np.float32],
    experts: NDArray[np.int32],
) -> None:
    """Add the squares of `activations` (tokens, 1 or slots, columns) to the expert that `experts` (tokens, slots) gives
    each slot."""
    tokens, slots = experts.shape
    squares = np.square(activations, dtype=np.float64)
    squares = np.broadcast_to(squares, (tokens, slots, squares.shape[2]))
    np.add.at(sums, experts, squares)
    np.add.at(counts, experts, 1)


def _write(path: Path, collected: Collected, dataset: str, chunks: int, chunk_size: int) -> None:
    matrices: dict[str, NDArray[np.float32]] = {}
    for name, sums in sorted(collected.sums.items()):
        matrices[name + _SUMS] = sums.astype(np.float32)
        matrices[name + _COUNTS] = collected.counts[name].astype(np.float32)[:, np.newaxis]
    texts: dict[str, str | list[str]] = {"general.type": "imatrix", "imatrix.datasets": [dataset]}
    tensors.write_matrices(path, matrices, texts, {"imatrix.chunk_count": chunks, "imatrix.chunk_size": chunk_size})


def read_importance(path: Path) -> dict[str, NDArray[np.float32]]:
    """Mean squares per column of each weight in an importance matrix; 1 for experts that no token reached.

    Raises WorkerError `damaged-file`.
    """
    found = tensors.read_matrices(path)
    importance = {}
    for key, sums in found.items():
        if not key.endswith(_SUMS):
            continue
        name = key.removesuffix(_SUMS)
        counts = found.get(name + _COUNTS)
        if counts is None or counts.shape != (len(sums), 1) or not np.isfinite(sums).all():
            raise WorkerError("damaged-file", f"{path.name} is no sound importance matrix: see {name}.")
        importance[name] = np.where(counts > 0, sums / np.maximum(counts, 1), 1).astype(np.float32)
    if not importance:
        raise WorkerError("damaged-file", f"{path.name} holds no importance matrix.")
    return importance


def for_quantizer(importance: dict[str, NDArray[np.float32]]) -> Any:
    """`importance` as the array that llama_model_quantize takes; valid while `importance` is."""
    entries = (llama.llama_model_imatrix_data * (len(importance) + 1))()  # ended by an empty entry
    for entry, (name, values) in zip(entries, importance.items(), strict=False):
        entry.name = name.encode()
        entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        entry.size = values.size
    return entries
