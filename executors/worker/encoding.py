"""Sentence embeddings, the same code over any framework's encoder: smoke test, vectors kept, vectors compared, timing.

What a worker module has to bring is `Encoder`. A store is a folder with the reference's answer to a set of texts:

    vectors.f32    (texts, dimension)  one vector per text, of length 1, little-endian
    tokens.json    the token ids of each text
    index.json     what they are of, with the hashes of the other two; written last
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .agreement import agreement
from .protocol import Request, WorkerError, metric, progress

Vectors = NDArray[np.float32]

SCHEMA = "advisor.vectors/1"
INPUTS = {"input_ids", "attention_mask", "token_type_ids", "position_ids"}  # that an encoder may take
MAX_STORE_BYTES = 256 * 1024**2
SAME = 1 - 1e-6  # a cosine above which texts that have nothing in common count as one and the same


class Encoder(Protocol):
    """A loaded encoder. `dimension` is the length of its vectors, `devices` what really computes them."""

    dimension: int
    devices: list[str]
    load_seconds: float

    def tokenize(self, text: str) -> list[int]:
        """Token ids of `text` with the special tokens around it, as many as the model reads at most."""

    def hidden(self, tokens: Sequence[int]) -> Vectors:
        """The last layer's output, (tokens, dimension)."""


def copy_papers(source: Path, output: Path, papers: Sequence[str]) -> None:
    """Copy the files `papers`, named by their paths in the folder `source`, to the same places in `output`."""
    for name in papers:
        (output / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(source / name, output / name)


def cut(tokens: Sequence[int], limit: int) -> list[int]:
    """At most `limit` tokens: the first ones, and the special token that ends every text."""
    return list(tokens) if len(tokens) <= limit else [*tokens[: limit - 1], tokens[-1]]


def inputs(tokens: Sequence[int], wanted: Collection[str]) -> dict[str, NDArray[np.int64]]:
    """What an encoder takes for one text, each (1, tokens): those of the usual inputs that are `wanted`."""
    count = len(tokens)
    every = {
        "input_ids": np.array([tokens], np.int64),
        "attention_mask": np.ones((1, count), np.int64),
        "token_type_ids": np.zeros((1, count), np.int64),
        "position_ids": np.arange(count, dtype=np.int64)[None],
    }
    return {name: every[name] for name in wanted}


def vector(model: Encoder, tokens: Sequence[int], pooling: str) -> Vectors:
    """The vector of a text, of length 1: the mean over its tokens, or the first token's (`cls`).

    Raises `non-finite-vectors` for one that holds no number or nothing but zeros.
    """
    states = model.hidden(tokens)
    pooled = states[0] if pooling == "cls" else states.mean(axis=0, dtype=np.float64)
    length = float(np.linalg.norm(pooled))
    if not np.isfinite(length) or length == 0:
        raise WorkerError(
            "non-finite-vectors", "The model computes vectors that are not numbers, or zeros: its weights are damaged."
        )
    result: Vectors = (pooled / length).astype(np.float32)
    return result


def smoke(model: Encoder, request: Request) -> dict[str, Any]:
    """Embed the `texts`, which have nothing in common: finite, `dimension` numbers each, not all the same.

    Returns `answers` [{"text", "tokens", "nearest"}] (the highest cosine to another of them), `dimension`,
    `load_seconds`, `devices`. Raises `non-finite-vectors`, `wrong-dimension`, `equal-vectors`.
    """
    texts = [str(text) for text in request["texts"]]
    tokens = [model.tokenize(text) for text in texts]
    vectors = np.stack([vector(model, ids, str(request["pooling"])) for ids in tokens])
    if vectors.shape[1] != int(request["dimension"]):
        raise WorkerError(
            "wrong-dimension", f"Its vectors have {vectors.shape[1]} numbers, and {request['dimension']} are described."
        )
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -1.0)
    if float(cosines.min(where=cosines > -1, initial=1.0)) > SAME:
        raise WorkerError("equal-vectors", "It gives every text the same vector.")
    return {
        "answers": [
            {"text": text, "tokens": len(ids), "nearest": float(row.max())}
            for text, ids, row in zip(texts, tokens, cosines, strict=True)
        ],
        "dimension": int(vectors.shape[1]),
        "load_seconds": model.load_seconds,
        "devices": model.devices,
    }


def embed(model: Encoder, request: Request) -> dict[str, Any]:
    """The vectors of the `groups` of texts; see agreement for a group.

    `mode` "reference" writes the folder `store`: `{"texts", "tokens", "dimension", "bytes"}`. `mode` "compare" puts the
    model's vectors beside those of the store, the token ids first: what agreement returns, with `texts`, `tokens`,
    `dimension`, `devices`, `text_sha256`, `tokens_sha256`. Raises `tokenizer-mismatch`, `wrong-dimension`,
    `bad-reference`, `non-finite-vectors`.
    """
    groups: list[dict[str, Any]] = request["groups"]
    texts = [text for group in groups for text in _texts(group)]
    said = hashlib.sha256("\n".join(texts).encode()).hexdigest()
    tokens = [model.tokenize(text) for text in texts]
    store = Path(request["store"])
    if request["mode"] == "reference":
        return _write(store, _vectors(model, tokens, str(request["pooling"])), tokens, said)
    index, expected, reference = _read(store, said)
    different = next((n for n, (one, other) in enumerate(zip(tokens, expected, strict=True)) if one != other), None)
    if different is not None:
        raise WorkerError(
            "tokenizer-mismatch",
            f"The artifact splits text {different + 1} of {len(texts)} into other tokens than the reference.",
        )
    if model.dimension != reference.shape[1]:
        message = f"The artifact's vectors have {model.dimension} numbers and the reference's {reference.shape[1]}."
        raise WorkerError("wrong-dimension", message)
    vectors = _vectors(model, tokens, str(request["pooling"]))
    return {
        **agreement([len(_texts(group)) for group in groups], vectors, reference),
        "texts": len(texts),
        "tokens": sum(map(len, tokens)),
        "dimension": model.dimension,
        "devices": model.devices,
        "text_sha256": said,
        "tokens_sha256": index["sha256"]["tokens.json"],
    }


def timed(request: Request, embed_one: Callable[[str], object], load_seconds: float) -> dict[str, Any]:
    """Time `embed_one(text)` on every text of the `groups`, one after the other, after a first round.

    Returns `load_seconds`, `sentence_ms` (the median), `sentences_per_second`.
    """
    texts = [text for group in request["groups"] for text in _texts(group)]
    for text in texts[:8]:
        embed_one(text)
    seconds = []
    for number, text in enumerate(texts):
        progress(number, len(texts), "measuring")
        started = time.perf_counter()
        embed_one(text)
        seconds.append(time.perf_counter() - started)
    rate = len(texts) / sum(seconds)
    metric("sentences_per_second", rate)
    return {
        "load_seconds": load_seconds,
        "sentence_ms": 1000 * float(np.median(seconds)),
        "sentences_per_second": rate,
    }


def _texts(group: Mapping[str, Any]) -> list[str]:
    """The query first, then the documents that answer it."""
    return [str(group["query"]), *map(str, group["passages"]), *map(str, group["sentences"])]


def _vectors(model: Encoder, tokens: Sequence[Sequence[int]], pooling: str) -> Vectors:
    rows = []
    for number, ids in enumerate(tokens):
        progress(number, len(tokens), "embedding")
        rows.append(vector(model, ids, pooling))
    return np.stack(rows)


def _write(store: Path, vectors: Vectors, tokens: Sequence[Sequence[int]], texts_sha256: str) -> dict[str, Any]:
    store.mkdir(parents=True, exist_ok=True)
    contents = {"vectors.f32": vectors.astype("<f4").tobytes(), "tokens.json": json.dumps(tokens).encode()}
    for name, data in contents.items():
        (store / name).write_bytes(data)
    index = {
        "schema": SCHEMA,
        "texts": len(tokens),
        "tokens": sum(map(len, tokens)),
        "dimension": int(vectors.shape[1]),
        "text_sha256": texts_sha256,
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()},
        "bytes": sum(map(len, contents.values())),
    }
    with (store / "index.json").open("w", encoding="utf-8") as file:
        json.dump(index, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    return index


def _read(store: Path, texts_sha256: str) -> tuple[dict[str, Any], list[list[int]], Vectors]:
    """A complete store of these texts. Raises `bad-reference`."""
    try:
        index = json.loads(_bytes(store / "index.json"))
        files = {name: _bytes(store / name) for name in ("vectors.f32", "tokens.json")}
        sound = index["schema"] == SCHEMA and index["text_sha256"] == texts_sha256
        sound = sound and all(index["sha256"][name] == hashlib.sha256(data).hexdigest() for name, data in files.items())
        vectors = np.frombuffer(files["vectors.f32"], "<f4").reshape(int(index["texts"]), int(index["dimension"]))
        tokens = json.loads(files["tokens.json"])
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        sound = False
    if not sound:
        raise WorkerError("bad-reference", "The stored reference is missing, not complete, or of other texts.")
    return index, tokens, vectors


def _bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_STORE_BYTES)
