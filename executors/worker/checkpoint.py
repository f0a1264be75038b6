"""A GGUF's weights and tokenizer as a Hugging Face folder: safetensors in F16 and tokenizer.json. numpy alone.

What lies where in the GGUF, and what it is called, comes with the request: the header was read and checked before.
Blocks are laid out as in llama.cpp (ggml/src/ggml-common.h); a scale times a small integer plus a minimum is exact in
F32, so the F16 values are those that llama.cpp itself makes.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from .protocol import Operation, Request, WorkerError, progress

Bytes = NDArray[np.uint8]
Values = NDArray[np.float32]

ROWS_AT_ONCE = 4096
HEADER_ALIGNMENT = 8  # of safetensors
MAX_TOKEN_BYTES = 4096
_CONTROL, _USER_DEFINED = 3, 4  # llama_token_type

# Pre-tokenizers by the name that a GGUF gives them (llama.cpp src/llama-vocab.cpp), in the terms of tokenizer.json.
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
PRE_TOKENIZERS: dict[str, dict[str, Any]] = {
    "gpt-2": _BYTE_LEVEL,
    "smollm": {
        "type": "Sequence",
        "pretokenizers": [{"type": "Digits", "individual_digits": True}, _BYTE_LEVEL],
    },
}


def _q4_1(blocks: Bytes) -> Values:
    low, high = blocks[:, 4:] & 15, blocks[:, 4:] >> 4
    return _half(blocks, 0) * np.concatenate([low, high], axis=1).astype(np.float32) + _half(blocks, 2)


def _q8_0(blocks: Bytes) -> Values:
    return _half(blocks, 0) * blocks[:, 2:].view(np.int8).astype(np.float32)


def _half(blocks: Bytes, place: int) -> Values:
    found: Values = np.ascontiguousarray(blocks[:, place : place + 2]).view("<f2").astype(np.float32)
    return found


# type: (bytes of a block, its values)
TYPES: dict[str, tuple[int, Callable[[Bytes], Values]]] = {
    "F32": (4, lambda blocks: np.ascontiguousarray(blocks).view("<f4")),
    "F16": (2, lambda blocks: _half(blocks, 0)),
    "Q4_1": (20, _q4_1),
    "Q8_0": (34, _q8_0),
}


def write_weights(request: Request) -> dict[str, Any]:
    """Write `output` (safetensors, F16) from the GGUF `model`.

    `tensors` [{"name", "type", "offset", "bytes", "rows", "row_length", "dimensions", "heads"}] in the order of the
    file; `heads` above 0 undoes the order in which llama.cpp keeps the rows of a head for its rotary embedding. Returns
    `bytes`. Raises `unsupported-type` and `damaged-file` (a value that F16 does not hold among others).
    """
    tensors, output = request["tensors"], Path(request["output"])
    for tensor in tensors:
        if tensor["type"] not in TYPES:
            raise WorkerError("unsupported-type", f"Tensors of type {tensor['type']} cannot be dequantized here.")
    data = np.memmap(str(request["model"]), dtype=np.uint8, mode="r")
    with output.open("wb") as file:
        file.write(_header(tensors))
        for number, tensor in enumerate(tensors):
            progress(number, len(tensors), "dequantizing")
            for part in _rows(data, tensor):
                _write(file, tensor["name"], part)
        file.flush()
        os.fsync(file.fileno())
    return {"bytes": output.stat().st_size}


def _header(tensors: list[Mapping[str, Any]]) -> bytes:
    """The header of a safetensors file: its length, then JSON padded with spaces."""
    document: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors:
        rows, length = int(tensor["rows"]), int(tensor["row_length"])
        shape = [length] if int(tensor["dimensions"]) == 1 else [rows, length]
        start, end = end, end + 2 * rows * length
        document[tensor["name"]] = {"dtype": "F16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % HEADER_ALIGNMENT)
    return struct.pack("<Q", len(text)) + text


def _rows(data: Bytes, tensor: Mapping[str, Any]) -> Iterator[Values]:
    """The tensor's values, some rows at a time; all rows where they change places."""
    start, size = int(tensor["offset"]), int(tensor["bytes"])
    rows, length, heads = int(tensor["rows"]), int(tensor["row_length"]), int(tensor["heads"])
    raw = data[start : start + size]
    if len(raw) != size or size % rows:
        raise WorkerError("damaged-file", f"The data of tensor {tensor['name']} lies outside the file.")
    block, values = TYPES[tensor["type"]]
    raw = raw.reshape(rows, -1)
    step = rows if heads else ROWS_AT_ONCE
    for at in range(0, rows, step):
        part = values(raw[at : at + step].reshape(-1, block)).reshape(-1, length)
        if heads:
            part = part.reshape(heads, rows // heads // 2, 2, length).swapaxes(1, 2).reshape(rows, length)
        yield part


def _write(file: IO[bytes], name: str, values: Values) -> None:
    with np.errstate(over="ignore"):
        halves = values.astype("<f2")
    if not np.isfinite(halves).all():
        raise WorkerError("damaged-file", f"Tensor {name} holds values that are not numbers or do not fit 16 bits.")
    file.write(halves.tobytes())


def write_tokenizer(request: Request) -> dict[str, Any]:
    """Write `output` (tokenizer.json) from the GGUF `model`.

    `arrays` {"tokens", "merges", "token_type"}: {"offset", "count", "bytes"} in the file; `pre` the name of the
    pre-tokenizer. Returns `special` {token: id}. Raises `unsupported-tokenizer` and `damaged-file`.
    """
    if request["pre"] not in PRE_TOKENIZERS:
        raise WorkerError("unsupported-tokenizer", f"The pre-tokenizer {request['pre']!r} is not known here.")
    arrays = request["arrays"]
    with Path(request["model"]).open("rb") as file:
        tokens = _strings(file, arrays["tokens"])
        merges = _strings(file, arrays["merges"])
        file.seek(int(arrays["token_type"]["offset"]))
        kinds = np.frombuffer(file.read(4 * len(tokens)), "<i4").tolist()
    if len(kinds) != len(tokens) or len(set(tokens)) != len(tokens):
        raise WorkerError("damaged-file", "The vocabulary is not whole, or names a token twice.")
    added = [number for number, kind in enumerate(kinds) if kind in (_CONTROL, _USER_DEFINED)]
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(number, tokens[number], kinds[number] == _CONTROL) for number in added],
        "normalizer": None,
        "pre_tokenizer": PRE_TOKENIZERS[request["pre"]],
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": merges,
        },
    }
    with Path(request["output"]).open("w", encoding="utf-8") as out:
        json.dump(document, out, ensure_ascii=False)
        out.flush()
        os.fsync(out.fileno())
    special = {tokens[number]: number for number in added if kinds[number] == _CONTROL}
    return {"special": special}


def _added(number: int, token: str, special: bool) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": special}
    return {"id": number, "content": token, **flags}


def _strings(file: IO[bytes], span: Mapping[str, Any]) -> list[str]:
    """The strings of a GGUF array: each a 64-bit length and that many bytes."""
    file.seek(int(span["offset"]))
    data = file.read(int(span["bytes"]))
    found, at = [], 0
    for _ in range(int(span["count"])):
        if at + 8 > len(data):
            raise WorkerError("damaged-file", "The vocabulary ends early.")
        size = struct.unpack_from("<Q", data, at)[0]
        if size > MAX_TOKEN_BYTES or at + 8 + size > len(data):
            raise WorkerError("damaged-file", "The vocabulary holds a token that is too long.")
        found.append(data[at + 8 : at + 8 + size].decode("utf-8", "replace"))
        at += 8 + size
    return found


def token_ids(request: Request) -> dict[str, Any]:
    """What this environment's readers of the Hugging Face folder `folder` make of `texts`: `ids` {reader: ids of each}.

    The `tokenizers` library reads tokenizer.json as it is, if there is one; transformers, where it is there, may build
    another tokenizer. Nothing special is added in front. Raises `toolchain-missing` where there is no reader, and
    `unsupported-tokenizer`. With `max_tokens` as for an encoder: special tokens around it, and no more than that.
    """
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    folder, texts = Path(request["folder"]), [str(text) for text in request["texts"]]
    limit = int(request.get("max_tokens", 0))
    around = limit > 0
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise WorkerError("toolchain-missing", f"This environment has no tokenizers: {error}.") from error
    found: dict[str, list[list[int]]] = {}
    if (folder / "tokenizer.json").is_file():
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        if around:
            tokenizer.no_padding()
            tokenizer.enable_truncation(limit)
        found["tokenizers"] = [tokenizer.encode(text, add_special_tokens=around).ids for text in texts]
    try:
        from transformers import AutoTokenizer
    except ImportError:
        AutoTokenizer = None
    if AutoTokenizer is not None:
        try:
            made = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        except (ImportError, OSError, ValueError) as error:
            words = " ".join(str(error).split())[:200]
            raise WorkerError("unsupported-tokenizer", f"transformers cannot read the tokenizer: {words}") from error
        options: dict[str, Any] = {"add_special_tokens": around, "padding": False}
        options |= {"truncation": True, "max_length": limit} if around else {}
        found["transformers"] = [list(made(text, **options)["input_ids"]) for text in texts]
    if not found:
        raise WorkerError("unsupported-tokenizer", "The folder has no tokenizer.json, the one form that is read here.")
    return {"ids": found}


OPERATIONS: dict[str, Operation] = {
    "write_weights": write_weights,
    "write_tokenizer": write_tokenizer,
    "token_ids": token_ids,
}
