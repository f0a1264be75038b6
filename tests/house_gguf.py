"""Builds GGUF files for the tests: a small valid llama, and whatever is to be wrong with it."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, field
from pathlib import Path

BLOCKS = {0: (1, 4), 1: (1, 2), 2: (32, 18), 8: (32, 34)}


def text(value: str | bytes) -> bytes:
    raw = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(raw)) + raw


def entry(key: str | bytes, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def u32(key: str, value: int) -> bytes:
    return entry(key, 4, struct.pack("<I", value))


def f32(key: str, value: float) -> bytes:
    return entry(key, 6, struct.pack("<f", value))


def string(key: str, value: str | bytes) -> bytes:
    return entry(key, 8, text(value))


def strings(key: str, values: list[str]) -> bytes:
    return entry(key, 9, struct.pack("<IQ", 8, len(values)) + b"".join(text(v) for v in values))


def numbers(key: str, values: list[int]) -> bytes:
    return entry(key, 9, struct.pack("<IQ", 5, len(values)) + struct.pack(f"<{len(values)}i", *values))


@dataclass
class House:
    """A two-layer llama of 64 x 128 with 96 tokens. Change what a test is about, then `write`."""

    layers: int = 2
    metadata: dict[str, bytes] = field(default_factory=dict)
    tensors: list[tuple[str, tuple[int, ...], int]] = field(default_factory=list)
    offsets: dict[str, int] = field(default_factory=dict)
    version: int = 3
    tensor_count: int | None = None
    key_count: int | None = None
    alignment: int = 32
    magic: bytes = b"GGUF"

    def __post_init__(self) -> None:
        llama = {
            "block_count": self.layers, "context_length": 512, "embedding_length": 64, "feed_forward_length": 128,
            "attention.head_count": 4, "attention.head_count_kv": 2, "rope.dimension_count": 16, "vocab_size": 96,
        }  # fmt: skip
        self.metadata = {
            "general.architecture": string("general.architecture", "llama"),
            "general.name": string("general.name", "House"),
            "general.license": string("general.license", "apache-2.0"),
            "general.file_type": u32("general.file_type", 7),
            **{f"llama.{key}": u32(f"llama.{key}", value) for key, value in llama.items()},
            "llama.attention.layer_norm_rms_epsilon": f32("llama.attention.layer_norm_rms_epsilon", 1e-5),
            "tokenizer.ggml.tokens": strings("tokenizer.ggml.tokens", [f"t{i}" for i in range(96)]),
            "tokenizer.ggml.eos_token_id": u32("tokenizer.ggml.eos_token_id", 2),
        }
        self.tensors = [("token_embd.weight", (64, 96), 8), ("output_norm.weight", (64,), 0)]
        for i in range(self.layers):
            shapes = {
                "attn_norm": (64,), "attn_q": (64, 64), "attn_k": (64, 32), "attn_v": (64, 32), "attn_output": (64, 64),
                "ffn_norm": (64,), "ffn_gate": (64, 128), "ffn_up": (64, 128), "ffn_down": (128, 64),
            }  # fmt: skip
            self.tensors += [(f"blk.{i}.{n}.weight", s, 8 if len(s) == 2 else 0) for n, s in shapes.items()]

    def set(self, key: str, raw: bytes) -> House:
        self.metadata[key] = raw
        return self

    def header(self) -> tuple[bytes, int]:
        """The header's bytes and the size of the data that it promises."""
        infos, offset = [], 0
        for name, shape, kind in self.tensors:
            block, size = BLOCKS.get(kind, (1, 4))
            rows = 1
            for length in shape[1:]:
                rows *= length
            at = self.offsets.get(name, offset)
            infos.append(text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, at % 2**64))
            offset += -(-(shape[0] // block * size * rows) // self.alignment) * self.alignment
        counts = (
            len(self.tensors) if self.tensor_count is None else self.tensor_count,
            len(self.metadata) if self.key_count is None else self.key_count,
        )
        head = self.magic + struct.pack("<IQQ", self.version, *counts)
        return head + b"".join(self.metadata.values()) + b"".join(infos), offset

    def write(self, path: Path, *, cut: int | None = None, missing: int = 0, extra: int = 0) -> Path:
        head, data = self.header()
        path.write_bytes(head[:cut] if cut is not None else head)
        if cut is None:
            os.truncate(path, -(-len(head) // self.alignment) * self.alignment + data % 2**34 - missing + extra)
        return path
