"""How OpenVINO, MLX and ONNX Runtime store the weights of a model in a precision: bytes by group of tensors.

- OpenVINO (NNCF's weight compression, exact to some kB: own measurement, lab notes 2026-11): 1 byte per int8 weight and
  3 (symmetric: 2) per row; half a byte per 4-bit weight and the scale (2 bytes; 1 in MXFP4 and NVFP4) per group, with
  half a byte for the zero point of an asymmetric one; embedding and head stay in the backup type, the rest is 16-bit.
  Which layers a ratio below 1 leaves in the backup type is NNCF's choice: taken as an average.
  An encoder starts from 32 bits, so norms and biases keep 4 bytes (own measurement, all-MiniLM-L6-v2, 2026-11-28).
- MLX (exact: mlx-lm 0.32.2, convert.py and utils.py): bits plus scale and bias per group for every layer whose rows the
  group divides, 16 bits for the others. Some architectures keep some layers in 8 bits (data/mlx_layers.csv), and what
  was published in MXFP4 stays so.
- ONNX Runtime GenAI's builder (exact: 0.14.1, models/builders/base.py and onnxruntime's matmul_nbits_quantizer.py):
  scales, norms and what is not quantized in 32 bits on the CPU and 16 elsewhere, rows padded to whole blocks, zero
  points packed, the embedding in full unless the algorithm shares it with the head, and RoPE tables.
- Olive's own passes, which make what runs on the CPU (exact: olive-ai 0.13.0, own measurement 2026-11-24): as the
  builder, with embedding and head in 8 bits by 32 and with zero points, one table where the two are tied; experts stay
  in 32 bits (own run of a made gpt-oss, 2026-11-30).
- Olive's dynamic quantization of an encoder (exact: the same, 2026-11-28): 1 byte per weight and 5 (scale, zero point)
  per output channel, of a table that is looked up 5 in all; norms and biases in 32 bits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from knowledge.precisions import overrides_of, ratio_of, resolve_precision
from knowledge.records import ModelSpec, Precision
from knowledge.shapes import TensorGroup, groups_of
from knowledge.tables import read_rows

DYNAMIC = "dynamic"  # the method of a precision that ONNX Runtime's dynamic quantization makes
_SHARED = ("rtn", "rtn_last", "k_quant_last", "k_quant_mixed")  # algorithms that keep a tied embedding tied
_TWICE = ("gemma2",)  # whose tied embedding lies there twice, where it is not quantized (own run, 2026-11-30)
_PACKED_EXPERTS = 32  # weights that share a scale in the builder's experts
_ATTENTION_INPUTS = ("attn_q", "attn_k", "attn_v", "attn_qkv")


@dataclass(frozen=True, slots=True)
class Part:
    """Some tensors of a group, stored in one way. `fallback`: not as the precision would have it."""

    group: TensorGroup
    bytes: int
    elements: int
    nominal_bits: int
    fallback: bool = False
    type: str = ""


def more_bits(index: int, count: int) -> bool:
    """Whether a layer is among those that mixed recipes give more bits: the first and last eighth and every third
    between (llama.cpp src/llama-quant.cpp use_more_bits; mlx-lm convert.py)."""
    return index < count // 8 or index >= 7 * count // 8 or (index - count // 8) % 3 == 2


def row_step(group: TensorGroup, precision: Precision) -> int:
    """What the rows of a group must be a multiple of to be quantized; 0 where any length will do."""
    if precision.group_size <= 0 or precision.scheme == "gguf" or not _is_matrix(group):
        return 0
    embedding = group.role == "token_embd"
    if precision.scheme == "mlx":
        return precision.group_size
    if precision.scheme == "openvino":
        return 0 if embedding or group.role == "output" else precision.group_size
    if precision.method in _CHECKPOINT_METHODS:
        return 0 if embedding or group.role == "output" else precision.group_size
    return 0 if embedding or precision.symmetric else 2 * precision.group_size


_CHECKPOINT_METHODS = ("awq", "gptq")  # quantized before the export, layer by layer


def _is_matrix(group: TensorGroup) -> bool:
    return group.dimensions > 1 and group.role not in ("norm", "bias") and group.row_length >= 16


def _split(group: TensorGroup, layers: int, chosen: Callable[[int, int], bool] | None) -> Iterator[tuple[bool, int]]:
    """(whether chosen, how many elements) of the layers of a group, in a model of `layers`."""
    high = sum(chosen(layer, layers) for layer in group.layers) if chosen else 0
    for is_high, count in ((True, high), (False, group.count - high)):
        if count:
            yield is_high, group.elements // group.count * count


# ---- OpenVINO


def openvino_parts(spec: ModelSpec, precision: Precision) -> Iterator[Part]:
    overrides = [(pattern, resolve_precision(kind, "openvino")[0]) for pattern, kind in overrides_of(precision)]
    for group in groups_of(spec):
        chosen = next((kind for pattern, kind in overrides if re.search(pattern, group.name)), precision)
        if not _is_matrix(group) and spec.is_encoder:
            yield Part(group, 4 * group.elements, group.elements, 32)
        elif not _is_matrix(group) or chosen.nominal_bits == 16:
            yield Part(group, 2 * group.elements, group.elements, 16)
        elif chosen.nominal_bits == 8:
            yield _eight(group, "int8_sym" if chosen.symmetric else "int8_asym")
        elif group.role in ("token_embd", "output"):
            yield _eight(group, str(chosen.settings.get("backup_mode", "int8_asym")))
        else:
            low = ratio_of(chosen)
            groups_per_row = 1 if chosen.group_size < 0 else -(-group.row_length // chosen.group_size)
            per_group = 1.0 if chosen.settings.get("mode") == "mxfp4" else 2.0 if chosen.symmetric else 2.5
            scales = groups_per_row * group.rows * group.count * per_group
            high = _eight(group, str(chosen.settings.get("backup_mode", "int8_asym"))).bytes
            size = round(low * (group.elements / 2 + scales) + (1 - low) * high)
            yield Part(group, size, group.elements, 4 if low >= 0.5 else 8)


def _eight(group: TensorGroup, backup: str) -> Part:
    """A group in the backup type: 8 bits with the scale of each row, or left in 16."""
    if backup == "none":
        return Part(group, 2 * group.elements, group.elements, 16)
    per_row = 2 if backup == "int8_sym" else 3
    return Part(group, group.elements + per_row * group.rows * group.count, group.elements, 8)


# ---- MLX


@lru_cache(maxsize=1)
def _mlx_layers() -> dict[tuple[str, str], tuple[int, int]]:
    """(bits, group size) of the layers that an architecture keeps apart, by (architecture, role); 16 bits: as they
    are; 0 bits: like the others, and never raised by a mixed recipe."""
    return {
        (row["architecture"], role): (int(row["bits"]), int(row["group_size"]))
        for row in read_rows("mlx_layers.csv")
        for role in row["roles"].split()
    }


def mlx_parts(spec: ModelSpec, precision: Precision) -> Iterator[Part]:
    high, usual = precision.settings.get("q_high_bits"), int(str(precision.settings.get("q_bits", 16)))
    keeps_experts = spec.source_precision.upper() == "MXFP4"
    for group in groups_of(spec):
        fits = _is_matrix(group) and precision.group_size > 0 and group.row_length % precision.group_size == 0
        bits, size = _mlx_layers().get((spec.architecture, group.role), (0, 1))
        if keeps_experts and group.role.endswith("_exps"):
            yield _mlx_part(group, group.elements, 4, 32, 1)
        elif not fits or bits == 16:
            plain = precision.group_size > 0 and _is_matrix(group)
            yield Part(group, 2 * group.elements, group.elements, 16, fallback=plain)
        elif bits and high is None:
            yield _mlx_part(group, group.elements, bits, size, 4)
        elif isinstance(high, int):
            raised = "kv_" in group.suffix or (size and group.role.startswith(("attn_v", "attn_qkv", "ffn_down")))
            for is_high, elements in _split(group, spec.layers, more_bits if raised else None):
                bits = high if is_high or group.role == "output" else usual
                yield _mlx_part(group, elements, bits, precision.group_size, 4)
        else:
            scale_bytes = 4 if precision.method == "affine" else 1
            yield _mlx_part(group, group.elements, usual, precision.group_size, scale_bytes)


def _mlx_part(group: TensorGroup, elements: int, bits: int, group_size: int, scale_bytes: int) -> Part:
    return Part(group, elements * bits // 8 + elements // group_size * scale_bytes, elements, bits)


# ---- ONNX Runtime


def onnx_parts(spec: ModelSpec, precision: Precision, side: str) -> Iterator[Part]:
    """`side` is `cpu` (Olive's passes) or `gpu` (everything but the CPU: the builder)."""
    if precision.method == DYNAMIC:
        yield from _dynamic_parts(spec)
        return
    if side == "cpu" and is_made_by_passes(precision):
        yield from _olive_parts(spec, precision)
        return
    wide = 4 if side == "cpu" or precision.name == "f32" else 2
    plain = precision.nominal_bits >= 16
    algorithm = precision.settings.get("algo")
    shared = spec.tied_embeddings and (plain or algorithm in _SHARED)
    head_bits = precision.settings.get("head_bits", precision.nominal_bits)
    for group in groups_of(spec):
        if group.role == "token_embd":
            if not shared or plain:
                copies = 2 if plain and spec.tied_embeddings and spec.architecture in _TWICE else 1
                yield Part(group, copies * wide * group.elements, group.elements, 8 * wide)
            if spec.tied_embeddings and not plain:
                head = TensorGroup("output.weight", "output", group.row_length, group.rows, (), 2)
                yield _onnx_matrix(head, head.elements, precision, int(str(head_bits)), wide)
        elif plain or not _is_matrix(group):
            yield Part(group, wide * group.elements, group.elements, 8 * wide)
        elif group.role == "output":
            yield _onnx_matrix(group, group.elements, precision, int(str(head_bits)), wide)
        elif group.role.endswith("_exps"):
            yield _onnx_experts(group, side, precision.nominal_bits)
        else:
            mixed = algorithm == "k_quant_mixed" and group.role in (*_ATTENTION_INPUTS, "ffn_down")
            for is_high, elements in _split(group, spec.layers, _more_bits_onnx if mixed else None):
                yield _onnx_matrix(group, elements, precision, 8 if is_high else precision.nominal_bits, wide)
    yield _rope_table(spec, wide)


def _dynamic_parts(spec: ModelSpec) -> Iterator[Part]:
    for group in groups_of(spec):
        if _is_matrix(group):
            scaled = group.rows * group.count if group.layers else group.count
            yield Part(group, group.elements + 5 * scaled, group.elements, 8)
        else:
            yield Part(group, 4 * group.elements, group.elements, 32)


def is_made_by_passes(precision: Precision) -> bool:
    """Whether Olive's own passes over an ONNX model make an Olive precision."""
    algorithm = precision.settings.get("algo")
    return algorithm == "k_quant_last" or (algorithm == "rtn" and precision.symmetric)


def _olive_parts(spec: ModelSpec, precision: Precision) -> Iterator[Part]:
    overrides = [(pattern, resolve_precision(kind, "olive")[0]) for pattern, kind in overrides_of(precision)]
    eight = resolve_precision("int8", "olive")[0]
    for group in groups_of(spec):
        if group.role == "token_embd":
            yield _onnx_matrix(group, group.elements, replace(eight, symmetric=False), 8, 4)
        elif not _is_matrix(group):
            yield Part(group, 4 * group.elements, group.elements, 32)
        elif group.role == "output":
            yield _onnx_matrix(group, group.elements, eight, 8, 4)
        elif group.role.endswith("_exps"):
            yield Part(group, 4 * group.elements, group.elements, 32, fallback=True)
        else:
            chosen = next((kind for pattern, kind in overrides if re.search(pattern, group.name)), precision)
            yield _onnx_matrix(group, group.elements, chosen, chosen.nominal_bits, 4)
    yield _rope_table(spec, 4)


def _rope_table(spec: ModelSpec, wide: int) -> Part:
    """Of layers with a window Gemma 3 has a table of their own."""
    tables = 2 if spec.architecture == "gemma3" else 1
    table = TensorGroup("rope", "other", max(1, spec.head_dim), tables * max(1, spec.context), (), 1)
    return Part(table, wide * table.elements, 0, 8 * wide)


def _more_bits_onnx(index: int, count: int) -> bool:
    return index < count / 8 or index >= 7 * count / 8 or (index - round(count / 8)) % 3 == 2


def _onnx_matrix(group: TensorGroup, elements: int, precision: Precision, bits: int, wide: int) -> Part:
    size = precision.group_size if precision.group_size > 0 else group.row_length
    rows = elements // group.row_length
    blocks = -(-group.row_length // size)
    zero_points = 0 if precision.symmetric else -(-blocks * bits // 8)
    total = rows * (blocks * (size * bits // 8 + wide) + zero_points)
    return Part(group, total, elements, bits)


def _onnx_experts(group: TensorGroup, side: str, bits: int) -> Part:
    """The experts of a layer (the QMoE operator): 16-bit scales by block on the CPU and by row elsewhere."""
    scales = group.elements // (_PACKED_EXPERTS if side == "cpu" else group.row_length)
    return Part(group, group.elements * bits // 8 + 2 * scales, group.elements, bits)
