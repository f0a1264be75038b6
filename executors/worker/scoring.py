"""Teacher-forced scores: keep a reference's log-probabilities on disk, compare another model's logits with them.

Framework-independent: both functions take an iterator of `(logits, targets)`, where `logits` is float32
`(rows, vocabulary)`, valid only until the next step, and `targets` the token ids that followed. Nothing larger than
one such piece is ever in memory, besides four numbers per token. Logarithms are natural (nats).

A store is a folder of raw little-endian arrays, one row per scored token, and `index.json`, written last:

    logprobs.f16   (rows, vocabulary)  log-probabilities of the reference, rounded to 16 bits
    nll.f64        (rows,)             exact negative log-probability of the target
    top1.i32       (rows,)             the reference's most probable token
    tokens.i32     (rows + 1,)         the text's token ids

The stored distribution is renormalized when it is read: KL divergence is then not negative, below 1e-5 nats for the
reference itself, and otherwise off by about 0.1 % of a token's value, in no direction.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .protocol import WorkerError

Pieces = Iterator[tuple[NDArray[np.float32], NDArray[np.int32]]]

SCHEMA = "advisor.reference/1"
MAX_ROWS = 2_000_000
MAX_INDEX_BYTES = 1024**2
ROWS_AT_ONCE = 16  # a few MB of float32 at common vocabularies: stays in the cache
LOWEST = -60000.0  # float16 ends at -65504
LARGEST_EXPONENT = 300.0  # garbage may be worse than a double can say; the same in executors.validation


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Row-wise log-probabilities of finite `logits`, in float32."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    result: NDArray[np.float32] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


def check_finite(logits: NDArray[np.float32]) -> None:
    """Raise WorkerError `non-finite-logits` if any logit is NaN or infinite."""
    if not (math.isfinite(float(logits.max())) and math.isfinite(float(logits.min()))):
        raise WorkerError(
            "non-finite-logits", "The model computes values that are not numbers: its weights are damaged."
        )


def write_reference(pieces: Pieces, store: Path, tokens: NDArray[np.int32], about: Mapping[str, Any]) -> dict[str, Any]:
    """Score `pieces` and keep them in the folder `store`; `about` (rows, vocabulary, ...) goes into its index.

    Returns the index, with `perplexity` and `bytes` added. Raises WorkerError `disk-full` before writing when there is
    no room, and `non-finite-logits`.
    """
    store.mkdir(parents=True, exist_ok=True)
    (store / "index.json").unlink(missing_ok=True)
    rows, vocabulary = int(about["rows"]), int(about["vocabulary"])
    needed = rows * (vocabulary * 2 + 16)
    if needed > shutil.disk_usage(store).free:
        raise WorkerError("disk-full", f"The reference needs {needed / 1e6:.0f} MB and the disk has less.")
    nll, top1, done = np.empty(rows, "<f8"), np.empty(rows, "<i4"), 0
    digests = {"logprobs.f16": hashlib.sha256()}
    with (store / "logprobs.f16").open("wb") as file:
        for logits, targets in _small(pieces):
            log_probabilities = log_softmax(logits)
            here = slice(done, done + len(targets))
            nll[here] = -log_probabilities[np.arange(len(targets)), targets]
            top1[here] = logits.argmax(axis=1)
            data = np.maximum(log_probabilities, LOWEST).astype("<f2").tobytes()
            digests["logprobs.f16"].update(data)
            file.write(data)
            done += len(targets)
        _sync(file.fileno())
    for name, array in {"nll.f64": nll, "top1.i32": top1, "tokens.i32": tokens.astype("<i4")}.items():
        (store / name).write_bytes(array.tobytes())
        digests[name] = hashlib.sha256(array.tobytes())
    index = {
        "schema": SCHEMA,
        **about,
        "perplexity": math.exp(min(float(nll.mean()), LARGEST_EXPONENT)),
        "bytes": sum((store / name).stat().st_size for name in digests),
        "sha256": {name: digest.hexdigest() for name, digest in digests.items()},
    }
    with (store / "index.json").open("w", encoding="utf-8") as file_:
        json.dump(index, file_, indent=1)
        file_.flush()
        _sync(file_.fileno())
    return index


def read_index(store: Path) -> dict[str, Any]:
    """The index of a complete store, its counts checked. Raises WorkerError `bad-reference`."""
    try:
        with (store / "index.json").open("rb") as file:
            index = json.loads(file.read(MAX_INDEX_BYTES))
        counts = [index[key] for key in ("rows", "vocabulary", "block_tokens", "context")]
        sound = index["schema"] == SCHEMA and all(type(count) is int and 0 < count <= 2**31 for count in counts)
        sound = sound and index["rows"] <= MAX_ROWS and index["rows"] % index["block_tokens"] == 0
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        sound = False
    if not sound:
        raise WorkerError("bad-reference", "The stored reference is missing or not complete.")
    return dict(index)


def read_tokens(store: Path, index: Mapping[str, Any]) -> NDArray[np.int32]:
    """The token ids that the reference was scored on."""
    return np.frombuffer(_checked(store, "tokens.i32", index), "<i4")


def compare(pieces: Pieces, store: Path, index: Mapping[str, Any]) -> dict[str, Any]:
    """Compare an artifact's `pieces` with the reference in `store`.

    Returns `blocks`: per block of `block_tokens` rows `[tokens, KL, same top-1, nll reference, nll artifact]`, sums;
    `kl_p99`, `kl_p999` over tokens; and `text_sha256`, `tokens_sha256`, which say what was scored. Raises
    WorkerError `non-finite-logits` and `bad-reference`.
    """
    rows, vocabulary = int(index["rows"]), int(index["vocabulary"])
    nll_reference = np.frombuffer(_checked(store, "nll.f64", index), "<f8")
    top1_reference = np.frombuffer(_checked(store, "top1.i32", index), "<i4")
    kl, same, nll = np.empty(rows), np.empty(rows), np.empty(rows)
    done, digest = 0, hashlib.sha256()
    with (store / "logprobs.f16").open("rb") as file:
        for logits, targets in _small(pieces):
            data = file.read(logits.size * 2)
            digest.update(data)
            if len(data) != logits.size * 2:
                raise WorkerError("bad-reference", "The stored reference is cut short.")
            stored = np.frombuffer(data, "<f2").reshape(len(targets), vocabulary).astype(np.float32)
            here = slice(done, done + len(targets))
            kl[here], nll[here] = _divergence(stored, logits, targets)
            same[here] = logits.argmax(axis=1) == top1_reference[here]
            done += len(targets)
    if done != rows or digest.hexdigest() != index["sha256"]["logprobs.f16"]:
        raise WorkerError("bad-reference", "The stored reference was changed since it was written.")
    columns = np.stack([np.ones(rows), kl, same, nll_reference, nll], axis=1)
    blocks = columns.reshape(-1, int(index["block_tokens"]), 5).sum(axis=1)
    return {
        "blocks": [
            [int(block[0]), float(block[1]), int(block[2]), float(block[3]), float(block[4])] for block in blocks
        ],
        "kl_p99": float(np.quantile(kl, 0.99)),
        "kl_p999": float(np.quantile(kl, 0.999)),
        "text_sha256": index.get("text_sha256"),
        "tokens_sha256": index["sha256"]["tokens.i32"],
    }


def _divergence(
    stored: NDArray[np.float32], logits: NDArray[np.float32], targets: NDArray[np.int32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Per row KL(stored || softmax(logits)), and the artifact's negative log-probability of the target."""
    weights = np.exp(stored)
    total = weights.sum(axis=1)
    shifted = logits - logits.max(axis=1, keepdims=True)
    normalizer = np.log(np.exp(shifted).sum(axis=1))
    nll = normalizer - shifted[np.arange(len(targets)), targets]
    kl = (weights * (stored - shifted)).sum(axis=1) / total - np.log(total) + normalizer
    return np.maximum(kl, 0), nll


def _small(pieces: Pieces) -> Pieces:
    """The same rows in pieces of at most ROWS_AT_ONCE, checked to be finite."""
    for logits, targets in pieces:
        for start in range(0, len(targets), ROWS_AT_ONCE):
            part = logits[start : start + ROWS_AT_ONCE]
            check_finite(part)
            yield part, targets[start : start + ROWS_AT_ONCE]


def _checked(store: Path, name: str, index: Mapping[str, Any]) -> bytes:
    """The bytes of a small file of the store, if they are what was written."""
    try:
        data = (store / name).read_bytes()
        sound = hashlib.sha256(data).hexdigest() == index["sha256"][name]
    except (OSError, LookupError, TypeError):
        sound = False
    if not sound:
        raise WorkerError("bad-reference", "The stored reference was changed since it was written.")
    return data


def _sync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems cannot, and say so
            raise
