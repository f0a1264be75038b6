"""Checkpoints whose weights are published quantized because the model was trained so (gpt-oss: experts in MXFP4,
BitNet: ternary matrices), in this project's terms: what is packed into bytes, as the matrices that it stands for.

Names and packing as transformers 5.17 writes them (integrations/mxfp4.py, integrations/bitnet.py) and llama.cpp's
converter reads them. Pure; where parts do not fit together, a ValueError says which.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from knowledge.records import Tensor

_BLOCK = 32  # weights of one MXFP4 scale
_PER_BYTE = {"MXFP4": 2, "ternary": 4}
# What `quant_method` calls them.
METHODS = {"mxfp4": "MXFP4", "bitnet": "ternary"}
_EXPERTS = re.compile(r"(blk\.\d+)\.mlp\.experts\.(gate_up|down)_proj_(blocks|scales|bias)")
_HALVES = {"gate_up": ("ffn_gate_exps", "ffn_up_exps"), "down": ("ffn_down_exps",)}


def native_tensors(kind: str, tensors: tuple[Tensor, ...], config: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """`tensors` of a checkpoint of `kind` (a value of METHODS), with the packed ones as matrices of that type."""
    return tuple(_experts(tensors, config) if kind == "MXFP4" else _ternary(tensors))


def _experts(tensors: tuple[Tensor, ...], config: Mapping[str, Any]) -> Iterator[Tensor]:
    """Blocks of 16 bytes and a scale each, gate and up in alternating rows: a tensor per part, as GGUF has them."""
    row_lengths = {"gate_up": config.get("hidden_size"), "down": config.get("intermediate_size")}
    by_name = {tensor.name: tensor for tensor in tensors}
    for tensor in tensors:
        match = _EXPERTS.fullmatch(tensor.name)
        if not match:
            yield tensor
            continue
        layer, part, what = match.groups()
        halves = _HALVES[part]
        if what == "bias":
            for name in halves:
                row = tensor.row_length // len(halves)
                yield replace(tensor, name=f"{layer}.{name}.bias", role="bias", row_length=row)
        elif what == "blocks":
            scales = by_name.get(tensor.name.removesuffix("blocks") + "scales")
            weights, row_length = _PER_BYTE["MXFP4"] * tensor.elements, row_lengths[part]
            if scales is None or _BLOCK * scales.elements != weights:
                raise ValueError(f"{tensor.name} and its scales do not fit together")
            if not isinstance(row_length, int) or row_length < 1 or weights % (row_length * len(halves)):
                raise ValueError(f"{tensor.name} and the widths of config.json do not fit together")
            stored = (tensor.stored_bytes or 0) + (scales.stored_bytes or 0)
            for name in halves:
                size, rows = stored // len(halves), weights // row_length // len(halves)
                yield Tensor(f"{layer}.{name}.weight", name, row_length, rows, tensor.layer, "MXFP4", size, 3)


def _ternary(tensors: tuple[Tensor, ...]) -> Iterator[Tensor]:
    """Four weights to a byte, by rows, with one scale per matrix."""
    for tensor in tensors:
        if tensor.name.endswith(".weight_scale"):
            continue
        if tensor.dtype == "U8":
            yield replace(tensor, rows=tensor.rows * _PER_BYTE["ternary"], dtype="ternary")
        else:
            yield tensor
