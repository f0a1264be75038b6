"""Composed GGUF files for tests: headers written by hand, weights a hole in a sparse file.

They say what a reader must do with a header; they prove nothing about real models.
"""

import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

LAYERS, HIDDEN, FFN, KV_WIDTH, VOCAB = 4, 256, 512, 128, 320
F32, F16 = 0, 1
ELEMENT_BYTES = {F32: 4, F16: 2}
Tensor = tuple[str, tuple[int, ...], int]

METADATA: dict[str, Any] = {
    "general.architecture": "llama",
    "general.name": "Small Llama",
    "general.file_type": 1,
    "llama.block_count": LAYERS,
    "llama.context_length": 2048,
    "llama.embedding_length": HIDDEN,
    "llama.feed_forward_length": FFN,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.vocab_size": VOCAB,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.tokens": [f"t{number}" for number in range(VOCAB)],
}


def tensors(layers: int = LAYERS) -> list[Tensor]:
    found: list[Tensor] = [("token_embd.weight", (HIDDEN, VOCAB), F16), ("output_norm.weight", (HIDDEN,), F32)]
    shapes = {
        "attn_norm": (HIDDEN,), "ffn_norm": (HIDDEN,), "attn_q": (HIDDEN, HIDDEN), "attn_k": (HIDDEN, KV_WIDTH),
        "attn_v": (HIDDEN, KV_WIDTH), "attn_output": (HIDDEN, HIDDEN), "ffn_gate": (HIDDEN, FFN),
        "ffn_up": (HIDDEN, FFN), "ffn_down": (FFN, HIDDEN),
    }  # fmt: skip
    for layer in range(layers):
        found += [
            (f"blk.{layer}.{name}.weight", shape, F32 if len(shape) == 1 else F16) for name, shape in shapes.items()
        ]
    return found


def write_gguf(
    path: Path,
    metadata: Mapping[str, Any] | None = None,
    shapes: Sequence[Tensor] | None = None,
    *,
    version: int = 3,
    tensor_count: int | None = None,
    metadata_count: int | None = None,
    missing_bytes: int = 0,
    cut: int | None = None,
) -> Path:
    """A GGUF with METADATA updated by `metadata` (None removes a key). `cut` keeps only the first bytes of the header;
    `missing_bytes` makes the weights end too early; the counts, if given, are claimed instead of the true ones."""
    pairs = {key: value for key, value in {**METADATA, **(metadata or {})}.items() if value is not None}
    shapes = tensors() if shapes is None else shapes
    head = struct.pack("<4sIQQ", b"GGUF", version, _or(tensor_count, len(shapes)), _or(metadata_count, len(pairs)))
    head += b"".join(_text(key) + _value(value) for key, value in pairs.items())
    offset = 0
    for name, shape, kind in shapes:
        head += _text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset % 2**63)
        size = ELEMENT_BYTES.get(kind, 4)
        for length in shape:
            size *= length
        offset += -(-size // 32) * 32
    path.write_bytes(head[:cut])
    if cut is None:
        os.truncate(path, max(len(head), -(-len(head) // 32) * 32 + min(offset, 2**30) - missing_bytes))
    return path


def _or(claimed: int | None, true: int) -> int:
    return true if claimed is None else claimed


def _text(text: str) -> bytes:
    raw = text.encode("utf-8", "surrogateescape")
    return struct.pack("<Q", len(raw)) + raw


def _value(value: Any) -> bytes:
    if isinstance(value, bytes):  # a raw value: type and content
        return value
    if isinstance(value, str):
        return struct.pack("<I", 8) + _text(value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, list):
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(_text, value))
    return struct.pack("<II", 4, value) if 0 <= value < 2**32 else struct.pack("<Iq", 11, value)
