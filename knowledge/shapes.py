"""The weight tensors of a model from the fields of its record, by `data/architectures.toml`.

Layers of the same shape are kept together as a `TensorGroup`, so that a whole catalogue can be sized within the
start-up budget; `tensors_of` writes them out one by one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from knowledge.records import AttentionGroup, ModelSpec, Tensor
from knowledge.tables import read_document


@dataclass(frozen=True, slots=True)
class TensorGroup:
    """Tensors of one name, shape and stored type in several layers. `layers` is empty outside the layers."""

    suffix: str
    role: str
    row_length: int
    rows: int
    layers: tuple[int, ...]
    dimensions: int
    dtype: str | None = None

    @property
    def count(self) -> int:
        return max(1, len(self.layers))

    @property
    def elements(self) -> int:
        """Of all tensors of the group together."""
        return self.row_length * self.rows * self.count

    @property
    def name(self) -> str:
        """The GGUF name of its first tensor."""
        return f"blk.{self.layers[0]}.{self.suffix}" if self.layers else self.suffix


def tensors_of(spec: ModelSpec) -> tuple[Tensor, ...]:
    """Every weight tensor: as read from the file, else as the architecture has them.

    Where the architecture is not known tensor by tensor, what is missing from `spec.params` is one tensor of role
    `other`, so that the sum is right.
    """
    return spec.tensors or tuple(
        Tensor(
            suffix if layer is None else f"blk.{layer}.{suffix}",
            group.role,
            group.row_length,
            group.rows,
            layer,
            group.dtype,
            None,
            group.dimensions,
        )
        for group in groups_of(spec)
        for suffix in (group.suffix,)
        for layer in (group.layers or (None,))
    )


@lru_cache(maxsize=512)
def groups_of(spec: ModelSpec) -> tuple[TensorGroup, ...]:
    """The tensors of `tensors_of`, grouped."""
    return _group(spec.tensors) if spec.tensors else _from_architecture(spec)


def is_complete(spec: ModelSpec) -> bool:
    """Whether every tensor is known, none stands for the rest."""
    return not any(group.suffix == _REST for group in groups_of(spec))


_REST = "rest.weight"


def _group(tensors: tuple[Tensor, ...]) -> tuple[TensorGroup, ...]:
    groups: dict[tuple[Any, ...], list[int]] = {}
    for t in tensors:
        suffix = t.name if t.layer is None else t.name.removeprefix(f"blk.{t.layer}.")
        key = (suffix, t.role, t.row_length, t.rows, t.dimensions, t.dtype, t.layer is None)
        groups.setdefault(key, []).extend(() if t.layer is None else (t.layer,))
    return tuple(
        TensorGroup(suffix, role, row, rows, tuple(sorted(layers)), dimensions, dtype)
        for (suffix, role, row, rows, dimensions, dtype, _), layers in groups.items()
    )


def _from_architecture(spec: ModelSpec) -> tuple[TensorGroup, ...]:
    document = _document()
    architecture = document["architectures"].get(spec.architecture)
    top = ["token_embd", *([] if spec.tied_embeddings else ["output"])]
    groups = []
    if architecture is not None and spec.layers:
        if not architecture.get("no_output_norm"):
            top.append("output_norm")
        top += architecture.get("top", "").split()
        groups = _layer_groups(spec, architecture)
    head = [_piece(name, spec, None, ()) for name in top]
    known = [group for group in (*head, *groups) if group is not None]
    missing = spec.params - sum(group.elements for group in known)
    if missing > max(0.002 * spec.params, 1) and spec.hidden:
        known.append(TensorGroup(_REST, "other", spec.hidden, missing // spec.hidden, (), 2))
    return tuple(known)


def _layer_groups(spec: ModelSpec, architecture: dict[str, Any]) -> list[TensorGroup | None]:
    every = tuple(range(spec.layers))
    lead = int(architecture.get("dense_lead", 0)) if spec.is_moe else 0
    ffn = "moe" if spec.is_moe and "moe" in architecture else "dense"
    plan: list[tuple[str, AttentionGroup | None, tuple[int, ...]]] = [
        (architecture.get("every", ""), None, every),
        (architecture.get(ffn, ""), None, every[lead:]),
        (architecture.get("dense", ""), None, every[:lead]),
    ]
    for group, layers in layers_by_group(spec):
        either = "attention" if group.kind in ("full", "window") else "recurrent"
        plan.append((architecture.get(group.kind, architecture.get(either, "")), group, layers))
    return [_piece(name, spec, group, layers) for names, group, layers in plan if layers for name in names.split()]


def layers_by_group(spec: ModelSpec) -> list[tuple[AttentionGroup, tuple[int, ...]]]:
    """Which layers belong to which attention group: the rarer kinds sit at even distances, last in each period.

    Layers that use the cache of earlier ones come after all that have their own.
    """
    sharing = [group for group in spec.attention if group.kind == "none" and group.kv_heads]
    first = spec.layers - sum(group.layers for group in sharing)
    others = [group for group in spec.attention if group not in sharing]
    return _spread(others, range(max(0, first))) + _spread(sharing, range(max(0, first), spec.layers))


def _spread(groups: list[AttentionGroup], layers: range) -> list[tuple[AttentionGroup, tuple[int, ...]]]:
    free = list(layers)
    placed = []
    for group in sorted(groups, key=lambda g: g.layers):
        count = min(group.layers, len(free))
        taken = [free[(i + 1) * len(free) // count - 1] for i in range(count)]
        placed.append((group, tuple(taken)))
        free = [layer for layer in free if layer not in set(taken)]
    return placed


def _piece(name: str, spec: ModelSpec, group: AttentionGroup | None, layers: tuple[int, ...]) -> TensorGroup | None:
    suffix, role, row, rows, dimensions = _document()["pieces"][name]
    try:
        row_length, row_count = _length(row, spec, group), _length(rows, spec, group)
    except KeyError:
        return None
    if row_length <= 0 or row_count <= 0:
        return None
    return TensorGroup(suffix, role, row_length, row_count, layers, dimensions)


def _length(formula: str, spec: ModelSpec, group: AttentionGroup | None) -> int:
    symbols = _symbols(spec)
    if group is not None and group.kv_heads and group.key_length:
        length = group.key_length
        symbols = {**symbols, "D": length, "K": group.kv_heads * length, "Q": spec.heads * length}
    return sum(
        math.prod(int(factor) if factor.isdigit() else symbols[factor] for factor in term.split("*"))
        for term in formula.split("+")
    )


@lru_cache(maxsize=512)
def _symbols(spec: ModelSpec) -> dict[str, int]:
    return {
        "H": spec.hidden,
        "L": spec.layers,
        "F": spec.intermediate,
        "N": spec.heads,
        "D": spec.head_dim,
        "Q": spec.heads * spec.head_dim,
        "K": spec.kv_heads * spec.head_dim,
        "V": spec.vocab,
        "E": spec.experts,
        "X": spec.expert_intermediate,
        "S": spec.shared_intermediate,
        **dict(spec.dimensions),
    }


@lru_cache(maxsize=1)
def _document() -> dict[str, Any]:
    return read_document("architectures.toml")


def window_period(architecture: str) -> int:
    """Every how many layers one attends to everything, where the architecture slides a window; 0 where it does not."""
    return int(_document()["window_period"].get(architecture, 0))
