"""How many bytes a model's weights take in a precision: from tensor shapes and each framework's own rules.

GGUF follows the quantizer's mixture (knowledge.ggml) and is exact; the other frameworks' rules are in
knowledge.packing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from knowledge import ggml
from knowledge.packing import Part, mlx_parts, onnx_parts, openvino_parts, row_step
from knowledge.precisions import overrides_of, uses_imatrix
from knowledge.records import ModelSpec, Precision
from knowledge.shapes import TensorGroup, groups_of, tensors_of
from knowledge.tables import read_rows

_GGUF_ALIGNMENT = 32
_GGUF_TENSOR_INFO = 62  # a typical tensor record: name of about 22 bytes, lengths, type and offset
_GGUF_METADATA = 6_000  # architecture keys and chat template
_OPENVINO_XML = (1_000_000, 45_000)  # bytes, and per layer: own measurements of made models of 4 layers and of SmolLM2
_ONNX_GRAPH = 250_000
_TOKENIZER_JSON = 1.96  # times its bytes in a GGUF: own measurement, SmolLM2 as transformers 5.5 writes it
_SAFETENSORS_ENTRY = 110
# Of an encoder's folder besides weights: bytes of the graph, and per layer (own measurement, all-MiniLM-L6-v2 and a
# BERT of 12 layers, 2026-11-28); bytes per token of the vocabulary, in OpenVINO's tokenizers and in tokenizer.json.
_ENCODER_IR = (53_000, 47_000, 31.1)
_ENCODER_ONNX = (0, 14_500, 15.3)


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


_cache: dict[tuple[ModelSpec, str, str, bool, str], WeightSizes] = {}


def weights(spec: ModelSpec, precision: Precision, imatrix: bool = False, backend: str = "cpu") -> WeightSizes:
    """The sizes of `spec` in `precision`. `backend` matters to Olive alone (32-bit scales on the CPU).

    An importance matrix changes some of llama.cpp's mixtures: with `imatrix`, or where the precision itself uses one.

    A model that a framework's own tools have made has the bytes that are stored, in the precision that it is in.

    Raises AdvisorError `cannot-quantize` where llama.cpp has no way to store a row.
    """
    if spec.source_framework == precision.framework and spec.source_precision == precision.name:
        return _as_stored(spec, precision)
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
        step = row_step(group, precision)
        if step and group.row_length % step:
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


@lru_cache(maxsize=64)
def _as_stored(spec: ModelSpec, precision: Precision) -> WeightSizes:
    by_role: dict[str, int] = {}
    for tensor in spec.tensors:
        by_role[tensor.role] = by_role.get(tensor.role, 0) + (tensor.stored_bytes or 0)
    total = sum(by_role.values())
    return WeightSizes(
        tensor_bytes=total,
        file_bytes=total + spec.header_bytes,
        bits_per_weight=8 * total / spec.params,
        by_role=by_role,
        matrix_bytes={},
        nominal_bits=precision.nominal_bits,
        fallback_share=0.0,
        ratio=total / (2 * spec.params),
    )


def _encoder_extra(spec: ModelSpec, scheme: str) -> int:
    graph, per_layer, per_token = _ENCODER_IR if scheme == "openvino" else _ENCODER_ONNX
    listed = next((file.bytes for file in spec.files if file.path == "tokenizer.json"), 0)
    tokenizer = 0 if scheme == "openvino" else spec.tokenizer_bytes or max(0, listed)
    return graph + per_layer * spec.layers + (tokenizer or round(per_token * spec.vocab))


def _sizes(spec: ModelSpec, precision: Precision, imatrix: bool, side: str) -> WeightSizes:
    note = ""
    if precision.scheme == "gguf":
        parts = list(_gguf(spec, precision, imatrix))
        extra = gguf_header_bytes(spec) + _padding(parts)
    elif precision.scheme == "openvino":
        parts = list(openvino_parts(spec, precision))
        extra = (
            _encoder_extra(spec, precision.scheme)
            if spec.is_encoder
            else _OPENVINO_XML[0] + _OPENVINO_XML[1] * spec.layers + tokenizer_bytes(spec.vocab)
        )
    elif precision.scheme == "mlx":
        parts = list(mlx_parts(spec, precision))
        extra = _SAFETENSORS_ENTRY * 3 * sum(p.group.count for p in parts) + tokenizer_bytes(spec.vocab)
    else:
        parts = list(onnx_parts(spec, precision, side))
        extra = _ONNX_GRAPH + round(_TOKENIZER_JSON * tokenizer_bytes(spec.vocab))
        extra = _encoder_extra(spec, precision.scheme) if spec.is_encoder else extra
        note = "sizes of ONNX models are those of one version of the builder: others share other tensors"
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


# ---- GGUF


def _gguf(spec: ModelSpec, precision: Precision, imatrix: bool) -> Iterator[Part]:
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
            yield _gguf_part(group, ggml.kept_type(group.name, group.dtype, spec), group.count)
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
) -> Iterator[Part]:
    for tensor, kind in ggml.tensor_types(tensors_of(spec), spec, ftype, overrides, imatrix):
        group = TensorGroup(
            tensor.name, tensor.role, tensor.row_length, tensor.rows, () if tensor.layer is None else (tensor.layer,),
            tensor.dimensions,
        )  # fmt: skip
        yield _gguf_part(group, kind, 1)


def _gguf_part(group: TensorGroup, wanted: str, count: int) -> Part:
    name = ggml.fit_type(wanted, group.row_length)
    kind = ggml.ggml_types()[name]
    return Part(
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


def _padding(parts: list[Part]) -> int:
    """What rounding each tensor up to the alignment adds."""
    padding = 0
    for part in parts:
        count = max(1, part.elements // (part.group.row_length * part.group.rows))
        each = part.bytes // count
        padding += (_pad(each) - each) * count
    return padding
