"""Builds ONNX files, OpenVINO and MLX folders for the tests: a small valid llama, and whatever is to be wrong with it.

The wire format is protobuf's; the fields are those of onnx.proto.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

FLOAT, UINT8, INT64, FLOAT16 = 1, 2, 7, 10
WIDTH = {FLOAT: 4, UINT8: 1, INT64: 8, FLOAT16: 2}
HIDDEN, FEED_FORWARD, HEADS, KV_HEADS, HEAD_DIM, VOCAB, LAYERS, BLOCK = 256, 512, 4, 2, 64, 1000, 2, 32
CONFIG: dict[str, Any] = {
    "model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": FEED_FORWARD, "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": HEAD_DIM, "vocab_size": VOCAB,
    "max_position_embeddings": 4096, "rms_norm_eps": 1e-5,
}  # fmt: skip
GENAI = {
    "model": {
        "type": "llama", "context_length": 4096, "vocab_size": VOCAB,
        "decoder": {
            "filename": "model.onnx", "hidden_size": HIDDEN, "num_attention_heads": HEADS,
            "num_key_value_heads": KV_HEADS, "num_hidden_layers": LAYERS, "head_size": HEAD_DIM,
        },
    }
}  # fmt: skip
MATRICES = {  # part of the name: rows, row length
    "attn.qkv_proj": (2 * HIDDEN, HIDDEN), "attn.o_proj": (HIDDEN, HIDDEN), "mlp.gate_proj": (FEED_FORWARD, HIDDEN),
    "mlp.up_proj": (FEED_FORWARD, HIDDEN), "mlp.down_proj": (HIDDEN, FEED_FORWARD),
}  # fmt: skip
PARAMS = LAYERS * sum(rows * row for rows, row in MATRICES.values()) + 2 * VOCAB * HIDDEN


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number: int, value: int | bytes | str) -> bytes:
    """A varint for a number, a length and the bytes for anything else."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value & (2**64 - 1))
    raw = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(raw)) + raw


def tensor(name: str, kind: int, dims: Iterable[int], **outside: object) -> bytes:
    """A TensorProto whose bytes lie outside where `outside` says, else inside."""
    shape = list(dims)
    body = b"".join(field(1, n) for n in shape) + field(2, kind) + field(8, name)
    if outside:
        pairs = b"".join(field(13, field(1, key) + field(2, str(value))) for key, value in outside.items())
        return body + pairs + field(14, 1)
    return body + field(9, bytes(math.prod(shape) * WIDTH[kind]))


def node(op: str, inputs: Iterable[str], **numbers: int) -> bytes:
    attributes = b"".join(field(5, field(1, key) + field(3, value) + field(20, 2)) for key, value in numbers.items())
    return b"".join(field(1, name) for name in inputs) + field(2, f"{op}.out") + field(4, op) + attributes


def cache_input(layer: int) -> bytes:
    dims = b"".join(field(1, field(1, n) if n else field(2, "n")) for n in (0, KV_HEADS, 0, HEAD_DIM))
    return field(1, f"past_key_values.{layer}.key") + field(2, field(1, field(1, FLOAT) + field(2, dims)))


class HouseOnnx:
    """A decoder in 4-bit blocks, its weights beside it; `write` makes the folder."""

    def __init__(self, *, symmetric: bool = True, inline: bool = False) -> None:
        self.tensors: list[bytes] = []
        self.nodes: list[bytes] = []
        self.inputs = [cache_input(layer) for layer in range(LAYERS)]
        self.offset, self.inline = 0, inline
        for layer in range(LAYERS):
            for part, (rows, row) in MATRICES.items():
                self.quantized(f"model.layers.{layer}.{part}.MatMul.weight", rows, row, symmetric)
            self.add(f"model.layers.{layer}.input_layernorm.weight", FLOAT, [HIDDEN])
        self.quantized("lm_head.MatMul.weight", VOCAB, HIDDEN, symmetric)
        self.add("model.embed_tokens.weight", FLOAT, [VOCAB, HIDDEN])
        self.nodes.append(node("Gather", ["model.embed_tokens.weight", "input_ids"]))

    def add(self, name: str, kind: int, dims: list[int]) -> str:
        size = math.prod(dims) * WIDTH[kind]
        if self.inline:
            self.tensors.append(tensor(name, kind, dims))
        else:
            place = {"location": "model.onnx.data", "offset": self.offset, "length": size}
            self.tensors.append(tensor(name, kind, dims, **place))
        self.offset += size
        return name

    def quantized(self, name: str, rows: int, row: int, symmetric: bool) -> None:
        blocks = row // BLOCK
        inputs = ["x", self.add(f"{name}_Q4", UINT8, [rows, blocks, BLOCK // 2])]
        inputs.append(self.add(f"{name}_scales", FLOAT, [rows, blocks]))
        if not symmetric:
            inputs.append(self.add(f"{name}_zp", UINT8, [rows, blocks // 2]))
        self.nodes.append(node("MatMulNBits", inputs, K=row, N=rows, bits=4, block_size=BLOCK))

    def graph(self) -> bytes:
        parts = [(1, self.nodes), (5, self.tensors), (11, self.inputs)]
        return b"".join(field(number, one) for number, some in parts for one in some)

    def raw(self) -> bytes:
        return field(1, 10) + field(2, "house") + field(7, self.graph()) + field(8, field(2, 21))

    def write(self, folder: Path, *, genai: Mapping[str, Any] | None = GENAI) -> Path:
        folder.mkdir(exist_ok=True)
        (folder / "model.onnx").write_bytes(self.raw())
        if not self.inline:
            (folder / "model.onnx.data").touch()
            os.truncate(folder / "model.onnx.data", self.offset)
        if genai is not None:
            (folder / "genai_config.json").write_text(json.dumps(genai))
        return folder


def house_ir(folder: Path, *, kind: str = "u4", group: int = 64, head: str = "") -> Path:
    """An OpenVINO folder: layers in `kind` by `group`, embedding and head in u8; `head` goes before the graph."""
    folder.mkdir(exist_ok=True)
    offset = 0
    layers: list[str] = []

    def constant(name: str, element: str, shape: list[int], bits: int) -> None:
        nonlocal offset
        size = math.prod(shape) * bits // 8
        data = f'element_type="{element}" shape="{", ".join(map(str, shape))}" offset="{offset}" size="{size}"'
        layers.append(f'<layer id="{len(layers)}" name={quoteattr(name)} type="Const"><data {data} /></layer>')
        offset += size

    for layer in range(LAYERS):
        for part, (rows, row) in MATRICES.items():
            name = f"self.model.layers.{layer}.{part}.weight"
            shape = [rows, row // group, group] if group > 0 else [rows, row]
            scales = [rows, row // group, 1] if group > 0 else [rows, 1]
            constant(name, kind, shape, 4)
            if kind == "u4":
                constant(f"{name}/zero_point", "u4", scales, 4)
            constant(f"{name}/scale", "f16", scales, 16)
    for name in ("self.model.embed_tokens.weight", "self.lm_head.weight"):
        constant(name, "u8", [VOCAB, HIDDEN], 8)
        constant(f"{name}/zero_point", "u8", [VOCAB, 1], 8)
        constant(f"{name}/scale", "f16", [VOCAB, 1], 16)
    graph = f'<?xml version="1.0"?>{head}<net name="house" version="11"><layers>{"".join(layers)}</layers></net>'
    (folder / "openvino_model.xml").write_text(graph)
    (folder / "openvino_model.bin").touch()
    os.truncate(folder / "openvino_model.bin", offset)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


def house_mlx(folder: Path, *, bits: int = 4, group: int = 64, **config: Any) -> Path:
    """A quantized MLX folder."""
    folder.mkdir(exist_ok=True)
    header: dict[str, Any] = {}
    offset = 0

    def add(name: str, dtype: str, shape: list[int], width: int) -> None:
        nonlocal offset
        end = offset + width * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, end]}
        offset = end

    parts = {f"model.layers.{layer}.{part}": shape for layer in range(LAYERS) for part, shape in MATRICES.items()}
    for name, (rows, row) in (parts | {"model.embed_tokens": (VOCAB, HIDDEN), "lm_head": (VOCAB, HIDDEN)}).items():
        add(f"{name}.weight", "U32", [rows, row * bits // 32], 4)
        add(f"{name}.scales", "BF16", [rows, row // group], 2)
        add(f"{name}.biases", "BF16", [rows, row // group], 2)
    add("model.norm.weight", "BF16", [HIDDEN], 2)
    raw = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw)
    os.truncate(folder / "model.safetensors", 8 + len(raw) + offset)
    block = {"quantization": {"group_size": group, "bits": bits, "mode": "affine"}}
    (folder / "config.json").write_text(json.dumps({**CONFIG, **block, **config}))
    return folder
