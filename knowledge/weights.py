"""How many bytes a model's weights take in a precision: from tensor shapes and each framework's own rules.

- GGUF: exact, by the quantizer's mixture (knowledge.ggml).
- OpenVINO: exact to some kB for NNCF's weight compression: 1 byte per int8 weight and 3 (symmetric: 2) per row, half a
  byte per int4 weight and 2 (asymmetric: 2.5) per group; embedding and head stay int8, the rest is 16-bit. Own
  measurement, lab notes 2026-11. Which layers a ratio below 1 leaves in int8 is NNCF's choice: taken as an average.
- MLX: bits plus 32/group over Linear and Embedding whose rows divide by the group, 16 bits for the others.
- Olive: ONNX Runtime GenAI's builder: scales and embedding in 32 bits on the CPU and 16 elsewhere, a head of its own
  even where the embedding is shared, and RoPE tables. Within 1 % of six measured models of one size; uncertain for
  others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from knowledge import ggml
from knowledge.precisions import overrides_of, ratio_of, resolve_precision, uses_imatrix
from knowledge.records import ModelSpec, Precision
from knowledge.shapes import TensorGroup, groups_of, tensors_of
from knowledge.tables import read_rows

_GGUF_ALIGNMENT = 32
_GGUF_TENSOR_INFO = 62  # a typical tensor record: name of about 22 bytes, lengths, type and offset
_GGUF_METADATA = 6_000  # architecture keys and chat template
_OPENVINO_XML = 2_350_000  # 2.1 to 2.6 MB, own measurement
_ONNX_GRAPH = 250_000
_SAFETENSORS_ENTRY = 110


@dataclass(frozen=True, slots=True)
class WeightSizes:
    """`tensor_bytes` are the weights alone, `file_bytes` what lies on disk. `ratio` is to 2 bytes per parameter.

    `by_role` are tensor bytes by role, `matrix_bytes` those of layer weights by stored type (GGUF). `nominal_bits` are
    those of the largest share of weights for a mix, else the
    precision's; `fallback_share` the share of weights whose type was replaced because a row did not divide.
    """

    tensor_bytes: int
    file_bytes: int
    bits_per_weight: float
    by_role: dict[str, int]
    matrix_bytes: dict[str, int]
    nominal_bits: int
    fallback_share: float
    ratio: float
    note: str = ""


@dataclass(frozen=True, slots=True)
class _Part:
    group: TensorGroup
    bytes: int
    elements: int
    nominal_bits: int
    fallback: bool = False
    type: str = ""


_cache: dict[tuple[ModelSpec, str, str, bool, str], WeightSizes] = {}


def weights(spec: ModelSpec, precision: Precision, imatrix: bool = False, backend: str = "cpu") -> WeightSizes:
    """The sizes of `spec` in `precision`. `backend` matters to Olive alone (32-bit scales on the CPU).

    An importance matrix changes some of llama.cpp's mixtures: with `imatrix`, or where the precision itself uses one.

    Raises AdvisorError `cannot-quantize` where llama.cpp has no way to store a row.
    """
    side = ("cpu" if backend == "cpu" else "gpu") if precision.scheme == "olive" else ""
    imatrix = imatrix or uses_imatrix(precision)
    key = (spec, precision.framework, precision.name, imatrix, side)
    sizes = _cache.get(key)
    if sizes is None:
        if len(_cache) > 20_000:
            _cache.clear()
        sizes = _cache[key] = _sizes(spec, precision, imatrix, side)
    return sizes


def undividable_row(spec: ModelSpec, precision: Precision) -> tuple[str, int] | None:
    """The first quantized tensor whose row is no whole number of groups, and the row's length; None if all divide."""
    if precision.group_size <= 0 or precision.scheme == "gguf":
        return None
    for group in groups_of(spec):
        kept = precision.scheme == "openvino" and group.role in ("token_embd", "output")
        if _is_matrix(group) and not kept and group.row_length % precision.group_size:
            return group.name, group.row_length
    return None


def gguf_header_bytes(spec: ModelSpec) -> int:
    """Metadata, tokenizer and tensor records before the data: exact for a file, else by the tokenizer's size."""
    if spec.header_bytes:
        return spec.header_bytes
    count = sum(group.count for group in groups_of(spec))
    estimate = tokenizer_bytes(spec.vocab) + count * _GGUF_TENSOR_INFO + _GGUF_METADATA
    return _pad(estimate)


@lru_cache(maxsize=256)
def tokenizer_bytes(vocab: int) -> int:
    """The bytes that a tokenizer of `vocab` entries takes in a GGUF header: of the nearest known one, scaled."""
    sizes = _tokenizers()
    nearest = min(sizes, key=lambda known: abs(known - vocab))
    return round(sizes[nearest] * vocab / nearest)


@lru_cache(maxsize=1)
def _tokenizers() -> dict[int, int]:
    return {int(row["vocab"]): int(row["header_bytes"]) for row in read_rows("tokenizers.csv")}


def _sizes(spec: ModelSpec, precision: Precision, imatrix: bool, side: str) -> WeightSizes:
    note = ""
    if precision.scheme == "gguf":
        parts = list(_gguf(spec, precision, imatrix))
        extra = gguf_header_bytes(spec) + _padding(parts)
    elif precision.scheme == "openvino":
        parts = list(_openvino(spec, precision))
        extra = _OPENVINO_XML + tokenizer_bytes(spec.vocab)
    elif precision.scheme == "mlx":
        parts = list(_mlx(spec, precision))
        extra = _SAFETENSORS_ENTRY * 3 * sum(p.group.count for p in parts) + tokenizer_bytes(spec.vocab)
    else:
        parts = list(_olive(spec, precision, side))
        extra = _ONNX_GRAPH + tokenizer_bytes(spec.vocab)
        note = "sizes of ONNX models are within about 2 %: which tensors are shared depends on the builder's version"
    by_role: dict[str, int] = {}
    by_type: dict[str, int] = {}
    shares: dict[int, int] = {}
    for part in parts:
        if part.type and part.group.layers:
            by_type[part.type] = by_type.get(part.type, 0) + part.bytes
        by_role[part.group.role] = by_role.get(part.group.role, 0) + part.bytes
        shares[part.nominal_bits] = shares.get(part.nominal_bits, 0) + part.elements
    total = sum(by_role.values())
    elements = sum(shares.values())
    mixed = bool(overrides_of(precision))
    return WeightSizes(
        tensor_bytes=total,
        file_bytes=total + extra,
        bits_per_weight=8 * total / elements,
        by_role=by_role,
        matrix_bytes=by_type,
        nominal_bits=max(shares, key=lambda bits: shares[bits]) if mixed else precision.nominal_bits,
        fallback_share=sum(p.elements for p in parts if p.fallback) / elements,
        ratio=total / (2 * spec.params),
        note=note,
    )


def _is_matrix(group: TensorGroup) -> bool:
    return group.dimensions > 1 and group.role not in ("norm", "bias", "conv") and group.row_length >= 16


# ---- GGUF


def _gguf(spec: ModelSpec, precision: Precision, imatrix: bool) -> Iterator[_Part]:
    ftype = str(precision.settings["type"])
    overrides = overrides_of(precision)
    if any(re.search(r"\d|blk", pattern) for pattern, _ in overrides):
        yield from _gguf_by_tensor(spec, ftype, overrides, imatrix)
        return
    mixture = ggml.mixtures()[ftype]
    positions, attention_layers = _positions(spec)
    setting = ggml.setting_of(spec, attention_layers, imatrix)
    quantized = mixture.base not in ("F32", "F16", "BF16")
    tied = not any(group.name == "output.weight" for group in groups_of(spec))
    for group in groups_of(spec):
        manual = next((kind for pattern, kind in overrides if re.search(pattern, group.name)), None)
        if group.dimensions < 2 or not ggml.quantizable_name(group.name):
            yield _gguf_part(group, ggml.kept_type(group.dtype, spec), group.count)
        elif not quantized:
            yield _gguf_part(group, mixture.base, group.count)
        elif manual is not None:
            yield _gguf_part(group, manual, group.count)
        else:
            category = ggml.category_of(group.name)
            role = "output" if tied and category == "token_embd" else category
            indices = positions.get(group.name, (0,))
            if setting.experts and mixture.by_layer_always and category != "attn_v" and group.layers:
                indices = group.layers
            wanted = ggml.chosen_types(mixture, role, setting, group.row_length, group.dimensions > 2, indices)
            for kind, count in wanted.items():
                yield _gguf_part(group, kind, count)


def _gguf_by_tensor(
    spec: ModelSpec, ftype: str, overrides: tuple[tuple[str, str], ...], imatrix: bool
) -> Iterator[_Part]:
    for tensor, kind in ggml.tensor_types(tensors_of(spec), spec, ftype, overrides, imatrix):
        group = TensorGroup(
            tensor.name, tensor.role, tensor.row_length, tensor.rows, () if tensor.layer is None else (tensor.layer,),
            tensor.dimensions,
        )  # fmt: skip
        yield _gguf_part(group, kind, 1)


def _gguf_part(group: TensorGroup, wanted: str, count: int) -> _Part:
    name = ggml.fit_type(wanted, group.row_length)
    kind = ggml.ggml_types()[name]
    return _Part(
        group=group,
        bytes=kind.row_bytes(group.row_length) * group.rows * count,
        elements=group.row_length * group.rows * count,
        nominal_bits=_nominal(name),
        fallback=name != wanted,
        type=name,
    )


@lru_cache(maxsize=64)
def _nominal(type_name: str) -> int:
    bits = ggml.ggml_types()[type_name].bits
    return 32 if bits > 16 else 16 if bits > 9 else max(1, int(bits))


@lru_cache(maxsize=512)
def _positions(spec: ModelSpec) -> tuple[dict[str, tuple[int, ...]], int]:
    """For each group in a counted category, the running numbers of its tensors; and how many attn_v there are."""
    by_category: dict[str, list[tuple[int, str, str]]] = {}
    for group in groups_of(spec):
        if group.dimensions > 1 and ggml.quantizable_name(group.name):
            category = ggml.category_of(group.name)
            by_category.setdefault(category, []).extend((layer, group.suffix, group.name) for layer in group.layers)
    positions: dict[str, list[int]] = {}
    for entries in by_category.values():
        for index, (_, _, name) in enumerate(sorted(entries)):
            positions.setdefault(name, []).append(index)
    return {name: tuple(indices) for name, indices in positions.items()}, len(by_category.get("attn_v", ()))


def _pad(size: int) -> int:
    return -(-size // _GGUF_ALIGNMENT) * _GGUF_ALIGNMENT


def _padding(parts: list[_Part]) -> int:
    """What rounding each tensor up to the alignment adds."""
    padding = 0
    for part in parts:
        count = max(1, part.elements // (part.group.row_length * part.group.rows))
        each = part.bytes // count
        padding += (_pad(each) - each) * count
    return padding


# ---- OpenVINO


def _openvino(spec: ModelSpec, precision: Precision) -> Iterator[_Part]:
    overrides = [(pattern, resolve_precision(kind, "openvino")[0]) for pattern, kind in overrides_of(precision)]
    for group in groups_of(spec):
        chosen = next((kind for pattern, kind in overrides if re.search(pattern, group.name)), precision)
        if not _is_matrix(group) or chosen.nominal_bits == 16:
            yield _Part(group, 2 * group.elements, group.elements, 16)
        elif chosen.nominal_bits == 8 or group.role in ("token_embd", "output"):
            per_row = 2 if chosen.nominal_bits == 8 and chosen.symmetric else 3
            yield _Part(group, group.elements + per_row * group.rows * group.count, group.elements, 8)
        else:
            low = ratio_of(chosen)
            groups_per_row = 1 if chosen.group_size < 0 else -(-group.row_length // chosen.group_size)
            scales = groups_per_row * group.rows * group.count * (2.0 if chosen.symmetric else 2.5)
            high = group.elements + 3 * group.rows * group.count
            size = round(low * (group.elements / 2 + scales) + (1 - low) * high)
            yield _Part(group, size, group.elements, 4 if low >= 0.5 else 8)


# ---- MLX


def _mlx(spec: ModelSpec, precision: Precision) -> Iterator[_Part]:
    scale_bytes = 4 if precision.method == "affine" else 1
    for group in groups_of(spec):
        fits = _is_matrix(group) and precision.group_size > 0 and group.row_length % precision.group_size == 0
        if not fits:
            plain = precision.group_size > 0 and _is_matrix(group)
            yield _Part(group, 2 * group.elements, group.elements, 16, fallback=plain)
            continue
        bits = 8 if group.role == "ffn_router" else precision.nominal_bits
        scales = group.elements // precision.group_size * scale_bytes
        yield _Part(group, group.elements * bits // 8 + scales, group.elements, bits)


# ---- Olive


def _olive(spec: ModelSpec, precision: Precision, side: str) -> Iterator[_Part]:
    wide = 4 if side == "cpu" or precision.name == "f32" else 2
    plain = precision.nominal_bits >= 16
    for group in groups_of(spec):
        if not plain and _is_matrix(group) and group.role != "token_embd":
            yield _olive_matrix(group, precision, wide)
            continue
        yield _Part(group, wide * group.elements, group.elements, 8 * wide)
        if group.role == "token_embd" and spec.tied_embeddings and not plain:
            head = TensorGroup("output.weight", "output", group.row_length, group.rows, (), 2)
            yield _olive_matrix(head, precision, wide)
    table = TensorGroup("rope", "other", max(1, spec.head_dim), max(1, spec.context), (), 1)
    yield _Part(table, wide * table.elements, 0, 8 * wide)


def _olive_matrix(group: TensorGroup, precision: Precision, wide: int) -> _Part:
    size = precision.group_size if precision.group_size > 0 else group.row_length
    blocks = -(-group.row_length // size) * group.rows * group.count
    zero_point = 0.0 if precision.symmetric else wide if precision.method == "k_quant" else 0.5
    total = group.elements * precision.nominal_bits // 8 + round(blocks * (wide + zero_point))
    return _Part(group, total, group.elements, precision.nominal_bits)
