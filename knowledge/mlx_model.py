"""A quantized MLX folder as a ModelSpec."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from knowledge.base import printable
from knowledge.records import ModelSpec, Tensor
from knowledge.stored_model import FLOAT_BITS, Packed, Stored, damaged, main_of, role_of, spec_of


def model_from_mlx(folder: Path, config: dict[str, Any], tensors: tuple[Tensor, ...], licence: str) -> ModelSpec:
    """The model of a quantized MLX folder, from its config.json and its safetensors headers (as `Tensor`s under their
    own names). Raises AdvisorError `bad-checkpoint`."""
    settings = config["quantization"]
    by_name = {t.name: t for t in tensors}
    packed, rest = [], []
    for tensor in tensors:
        base, _, part = tensor.name.rpartition(".")
        if part in ("scales", "biases") and f"{base}.weight" in by_name:
            continue
        scales, biases = by_name.get(f"{base}.scales"), by_name.get(f"{base}.biases")
        if part != "weight" or scales is None:
            if tensor.dimensions > 1 and tensor.row_length >= 16:
                packed.append(_mlx_plain(tensor))
            else:
                rest.append(Stored(tensor.name, (tensor.rows, tensor.row_length), "", 16, tensor.stored_bytes or 0))
            continue
        own = settings.get(base)
        group, mode, said = _mlx_setting(folder, settings, own)
        row = scales.row_length * group
        bits = 32 * tensor.row_length // max(1, row)
        if (
            bits not in (2, 3, 4, 5, 6, 8)
            or said not in (None, bits)
            or scales.rows != tensor.rows
            or tensor.dtype != "U32"
        ):
            raise damaged(folder, f"the scales of {printable(base, 80)!r} do not fit its weights")
        size = sum(t.stored_bytes or 0 for t in (tensor, scales, biases) if t)
        packed.append(Packed(base, tensor.rows, row, bits, size, group, biases is None, mode))
    name, bits = _mlx_name(folder, packed)
    return spec_of(folder, "mlx", packed, rest, config, len(tensors) * 110, (name, bits), "", licence)


def _mlx_plain(tensor: Tensor) -> Packed:
    kind = {"F32": "f32", "F16": "f16", "BF16": "bf16"}.get(tensor.dtype or "", "f16")
    return Packed(tensor.name, tensor.rows, tensor.row_length, FLOAT_BITS[kind], tensor.stored_bytes or 0, kind=kind)


def _mlx_setting(folder: Path, settings: Mapping[str, Any], own: object) -> tuple[int, str, Any]:
    """Group size, mode and bits, as said."""
    read = own if isinstance(own, dict) else settings
    group, mode = read.get("group_size"), read.get("mode", "affine")
    if group not in (16, 32, 64, 128) or isinstance(group, bool) or mode not in ("affine", "mxfp4", "nvfp4", "mxfp8"):
        raise damaged(folder, "its quantization block names no group size and mode of MLX")
    return group, mode, read.get("bits")


def _mlx_name(folder: Path, packed: list[Packed]) -> tuple[str, int]:
    main = main_of(folder, packed)
    if main.bits >= 16:
        return main.kind, 16
    if main.kind != "affine":
        return main.kind, main.bits
    raised = {p.bits for p in packed if role_of(p.name) in ("ffn_down", "attn_v") and p.bits > main.bits}
    if len(raised) == 1 and (high := raised.pop()) in (4, 6):
        return f"mixed-{main.bits}-{high}", main.bits
    return f"{main.bits}bit-g{main.group_size}", main.bits
