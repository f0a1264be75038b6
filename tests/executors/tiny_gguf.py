"""Write a GGUF of a Llama with two layers and 300 KB, whole or broken in a stated way. For tests only."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

U32, I32, F32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
HIDDEN, INTERMEDIATE, LAYERS, HEADS, KV_HEADS = 64, 128, 2, 4, 2
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6
LETTERS = [*"etaoinshrdlu", *("\u2581" + letter for letter in "etaoinshrdlu")]
TOKENS = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *LETTERS]
KINDS = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * len(LETTERS)]

Value = tuple[int, Any]


@dataclass
class TinyModel:
    """`values` are the metadata, `tensors` (dimensions, ggml type, data); what `lie` says replaces header fields."""

    values: dict[str, Value]
    tensors: dict[str, tuple[tuple[int, ...], int, bytes]]
    lie: Mapping[str, int] = field(default_factory=dict)

    def write(self, path: Path) -> Path:
        path.write_bytes(self.encoded())
        return path

    def encoded(self) -> bytes:
        lie = self.lie
        head = b"GGUF" + struct.pack(
            "<IQQ", lie.get("version", 3), lie.get("tensors", len(self.tensors)), lie.get("values", len(self.values))
        )
        for key, (kind, value) in self.values.items():
            head += _string(key, lie.get("key_length")) + struct.pack("<I", kind) + _value(kind, value)
        data = b""
        for name, (dimensions, kind, raw) in self.tensors.items():
            head += _string(name) + struct.pack("<I", lie.get("dimensions", len(dimensions)))
            head += struct.pack(f"<{len(dimensions)}Q", *dimensions)
            head += struct.pack("<IQ", lie.get("type", kind), lie.get("offset", len(data)))
            data += raw + bytes(-len(raw) % 32)
        return head + bytes(-len(head) % 32) + data


def tiny_model(seed: int = 0, **values: Value) -> TinyModel:
    """Random weights of a plausible size in F32; keyword arguments replace metadata (`__` stands for a dot)."""
    draw = np.random.default_rng(seed)
    vocabulary = len(TOKENS)
    tensors: dict[str, tuple[tuple[int, ...], int, bytes]] = {}

    def add(name: str, *dimensions: int) -> None:
        ones = len(dimensions) == 1
        data = np.ones(dimensions) if ones else draw.standard_normal(dimensions) / np.sqrt(dimensions[0])
        tensors[f"{name}.weight"] = (dimensions, 0, data.astype("<f4").tobytes())

    add("token_embd", HIDDEN, vocabulary)
    for layer in range(LAYERS):
        part = f"blk.{layer}"
        add(f"{part}.attn_norm", HIDDEN)
        add(f"{part}.attn_q", HIDDEN, HIDDEN)
        add(f"{part}.attn_k", HIDDEN, HIDDEN * KV_HEADS // HEADS)
        add(f"{part}.attn_v", HIDDEN, HIDDEN * KV_HEADS // HEADS)
        add(f"{part}.attn_output", HIDDEN, HIDDEN)
        add(f"{part}.ffn_norm", HIDDEN)
        add(f"{part}.ffn_gate", HIDDEN, INTERMEDIATE)
        add(f"{part}.ffn_up", HIDDEN, INTERMEDIATE)
        add(f"{part}.ffn_down", INTERMEDIATE, HIDDEN)
    add("output_norm", HIDDEN)
    add("output", HIDDEN, vocabulary)
    known: dict[str, Value] = {
        "general.architecture": (STRING, "llama"),
        "general.name": (STRING, "tiny"),
        "llama.context_length": (U32, 256),
        "llama.embedding_length": (U32, HIDDEN),
        "llama.block_count": (U32, LAYERS),
        "llama.feed_forward_length": (U32, INTERMEDIATE),
        "llama.attention.head_count": (U32, HEADS),
        "llama.attention.head_count_kv": (U32, KV_HEADS),
        "llama.attention.layer_norm_rms_epsilon": (F32, 1e-5),
        "llama.rope.dimension_count": (U32, HIDDEN // HEADS),
        "tokenizer.ggml.model": (STRING, "llama"),
        "tokenizer.ggml.tokens": (ARRAY, (STRING, TOKENS)),
        "tokenizer.ggml.scores": (ARRAY, (F32, [0.0] * vocabulary)),
        "tokenizer.ggml.token_type": (ARRAY, (I32, KINDS)),
        "tokenizer.ggml.bos_token_id": (U32, 1),
        "tokenizer.ggml.eos_token_id": (U32, 2),
    }
    known |= {key.replace("__", "."): value for key, value in values.items()}
    return TinyModel(known, tensors)


def with_weights(model: TinyModel, change: Callable[[str, bytes], bytes]) -> TinyModel:
    """`model` with each tensor's bytes changed (their number must stay)."""
    tensors = {name: (shape, kind, change(name, raw)) for name, (shape, kind, raw) in model.tensors.items()}
    return TinyModel(model.values, tensors, model.lie)


def without(model: TinyModel, *names: str) -> TinyModel:
    """`model` without these metadata or tensors."""
    return TinyModel(
        {key: value for key, value in model.values.items() if key not in names},
        {name: tensor for name, tensor in model.tensors.items() if name not in names},
        model.lie,
    )


def lying(**lie: int) -> TinyModel:
    return TinyModel(tiny_model().values, tiny_model().tensors, lie)


def _string(text: str, length: int | None = None) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data) if length is None else length) + data


def _value(kind: int, value: Any) -> bytes:
    if kind == STRING:
        return _string(value)
    if kind == ARRAY:
        inner, items = value
        return struct.pack("<IQ", inner, len(items)) + b"".join(_value(inner, item) for item in items)
    return struct.pack({U32: "<I", I32: "<i", F32: "<f", BOOL: "<?"}[kind], value)
