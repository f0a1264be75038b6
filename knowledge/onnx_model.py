"""An ONNX language model as a ModelSpec: an .onnx file, or a folder of ONNX Runtime GenAI."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from knowledge.base import printable
from knowledge.hf_config import config_of
from knowledge.onnx_file import Node, OnnxFile, read_onnx
from knowledge.records import ModelSpec
from knowledge.stored_model import FLOAT_BITS, Packed, Stored, damaged, main_of, read_json, spec_of, value_at

GENAI_CONFIG = "genai_config.json"


def model_from_onnx(path: Path) -> ModelSpec:
    """The model in an .onnx file, with what genai_config.json or config.json beside it says.

    Raises AdvisorError `bad-onnx` or `bad-checkpoint` in one sentence.
    """
    file = read_onnx(path)
    packed, rest = _onnx_matrices(file)
    config = _onnx_config(path, file)
    notes = "" if config.get("model_type") else f"nothing beside {path.name} says what architecture it is"
    return spec_of(path, "olive", packed, rest, config, file.graph_bytes, _onnx_name(path, packed), notes)


def model_from_genai(folder: Path) -> ModelSpec:
    """The model of an ONNX Runtime GenAI folder: the graph that its genai_config.json names."""
    decoder = value_at(read_json(folder / GENAI_CONFIG), "model", "decoder")
    name = value_at(decoder, "filename")
    pipeline = value_at(decoder, "pipeline")
    if not isinstance(name, str) or isinstance(pipeline, list):
        raise damaged(folder, "its genai_config.json describes a pipeline of several graphs, which cannot be planned")
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}", name) or ".." in name:
        raise damaged(folder, f"its genai_config.json names {printable(name, 80)!r}, which is no file of the folder")
    return replace(model_from_onnx(folder / name), name=printable(folder.resolve().name, 120), path=str(folder))


def _onnx_config(path: Path, file: OnnxFile) -> dict[str, Any]:
    """What is known of the architecture, under config.json's names: of that file, of genai_config.json, of the inputs
    that hold the cache."""
    config: dict[str, Any] = {}
    if path.with_name("config.json").is_file():
        config = config_of(read_json(path.with_name("config.json")))
    if path.with_name(GENAI_CONFIG).is_file():
        model = value_at(read_json(path.with_name(GENAI_CONFIG)), "model") or {}
        decoder = value_at(model, "decoder") or {}
        config |= {
            "model_type": config.get("model_type") or value_at(model, "type"),
            "max_position_embeddings": value_at(model, "context_length"),
            "vocab_size": value_at(model, "vocab_size"),
            "hidden_size": value_at(decoder, "hidden_size"),
            "num_attention_heads": value_at(decoder, "num_attention_heads"),
            "num_key_value_heads": value_at(decoder, "num_key_value_heads"),
            "num_hidden_layers": value_at(decoder, "num_hidden_layers"),
            "head_dim": value_at(decoder, "head_size"),
        }
    keys = [dims for name, dims in file.inputs.items() if re.match(r"past.*key", name) and len(dims) == 4]
    if keys:
        config.setdefault("num_hidden_layers", len(keys))
        config.setdefault("num_key_value_heads", keys[0][1] or None)
        config.setdefault("head_dim", keys[0][3] or None)
    return config


def _onnx_matrices(file: OnnxFile) -> tuple[list[Packed], list[Stored]]:
    """The matrices with their scales, each once, and what is stored besides."""
    left = dict(file.stored)
    packed = []
    for node in file.nodes:
        found = _onnx_packed(node, left)
        if found:
            packed.append(found)
    rest = []
    for tensor in left.values():
        table = tensor.name.startswith(("cos_cache", "sin_cache"))  # of the rotary embedding, no parameters
        if len(tensor.dims) > 1 and tensor.dtype in FLOAT_BITS and min(tensor.dims) >= 16 and not table:
            row = tensor.dims[-1] if "embed" in tensor.name else tensor.dims[0]
            packed.append(
                Packed(tensor.name, tensor.elements // row, row, tensor.bits, tensor.bytes, kind=tensor.dtype)
            )
        else:
            rest.append(tensor)
    return packed, rest


def _onnx_packed(node: Node, left: dict[str, Stored]) -> Packed | None:
    """The quantized matrix that a node reads, taken out of `left` with its scales and zero points."""
    numbers = node.numbers
    if node.op == "MatMulNBits" and len(node.inputs) > 2 and node.inputs[1] in left:
        rows, row, bits, block = (numbers.get(key, 0) for key in ("N", "K", "bits", "block_size"))
        parts = (1, 2, 3)
    elif node.op == "GatherBlockQuantized" and len(node.inputs) > 2 and node.inputs[0] in left:
        data = left[node.inputs[0]]
        bits = numbers.get("bits", 4)
        block = numbers.get("block_size", 128)
        rows = data.dims[0] if data.dims else 0
        row = data.elements // max(1, rows) * (8 // bits if data.bits == 8 and bits in (2, 4) else 1)
        parts = (0, 2, 3)
    elif node.op == "DequantizeLinear" and len(node.inputs) > 1 and node.inputs[0] in left:
        data = left[node.inputs[0]]
        if len(data.dims) < 2 or data.dtype in FLOAT_BITS:
            return None
        scales = left.get(node.inputs[1])
        bits, row = data.bits, data.dims[0]
        rows = data.elements // max(1, row)
        block = numbers.get("block_size", 0) or (-1 if scales and scales.elements > 1 else 0)
        parts = (0, 1, 2)
    elif node.op == "QMoE":
        return _onnx_experts(node, left)
    else:
        return None
    if bits not in (2, 4, 8, 16) or not 0 < rows < 2**40 or not 0 < row < 2**40:
        return None
    taken = [left.pop(node.inputs[i]) for i in parts if len(node.inputs) > i and node.inputs[i] in left]
    symmetric = not (len(node.inputs) > parts[2] and node.inputs[parts[2]])
    return Packed(taken[0].name, rows, row, bits, sum(t.bytes for t in taken), block, symmetric)


def _onnx_experts(node: Node, left: dict[str, Stored]) -> Packed | None:
    """All experts of a layer together."""
    bits, block = node.numbers.get("expert_weight_bits", 4), node.numbers.get("block_size", -1)
    taken = [left.pop(name) for name in node.inputs if name in left and len(left[name].dims) == 3]
    weights = [t for t in taken if t.bits == 8]
    elements = sum(t.elements for t in weights) * 8 // max(1, bits)
    if not elements or bits not in (4, 8):
        return None
    row = weights[0].dims[-1] * 8 // bits
    size = sum(t.bytes for t in taken)
    return Packed(f"{weights[0].name}.experts", elements // row, row, bits, size, block)


def _onnx_name(path: Path, packed: Iterable[Packed]) -> tuple[str, int]:
    """What most weights of the layers are stored in: a name of its own, since the file does not tell the algorithm."""
    main = main_of(path, packed)
    if main.bits >= 16 or not main.group_size:
        return (main.kind or f"f{main.bits}", main.bits) if main.bits >= 16 else (f"int{main.bits}", main.bits)
    block = "cw" if main.group_size < 0 or main.group_size >= main.row_length else f"b{main.group_size}"
    return f"int{main.bits}-{'' if main.symmetric else 'asym-'}{block}", main.bits
