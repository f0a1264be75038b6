"""An OpenVINO model folder as a ModelSpec."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from knowledge.hf_config import config_of
from knowledge.ir import GRAPH, Constant, read_ir
from knowledge.records import ModelSpec
from knowledge.stored_model import FLOAT_BITS, Packed, Stored, main_of, read_json, role_of, spec_of


def model_from_ir(folder: Path) -> ModelSpec:
    """The model of an OpenVINO folder. Raises AdvisorError `bad-ir` or `bad-checkpoint` in one sentence."""
    graph = read_ir(folder)
    config = config_of(read_json(folder / "config.json")) if (folder / "config.json").is_file() else {}
    packed, rest = _ir_matrices(graph.tensors)
    notes = "" if config else "it has no config.json: its architecture is not known"
    size = (folder / GRAPH).stat().st_size
    return spec_of(folder, "openvino", packed, rest, config, size, _ir_name(folder, packed), notes)


def _ir_matrices(constants: Iterable[Constant]) -> tuple[list[Packed], list[Stored]]:
    """Weights with the scales and zero points that are named after them."""
    extras: dict[str, list[Constant]] = {}
    plain: list[Constant] = []
    for one in constants:
        base, _, part = one.name.rpartition("/")
        if base and part in ("scale", "zero_point", "fq_weights_1"):
            extras.setdefault(base, []).append(one)
        else:
            plain.append(one)
    packed, rest = [], []
    for one in plain:
        own = extras.pop(one.name, [])
        if len(one.shape) < 2 or one.elements < 4096 or one.kind.startswith(("i64", "i32", "boolean")):
            rest.append(Stored(one.name, one.shape, one.kind, one.bits, one.bytes))
            continue
        rows = one.shape[0]
        scales = max((c.elements for c in own if c.name.endswith("scale")), default=0)
        group = 0 if not scales else -1 if scales <= rows else one.elements // scales
        size = one.bytes + sum(c.bytes for c in own)
        symmetric = not any(c.name.endswith("zero_point") for c in own)
        packed.append(Packed(one.name, rows, one.elements // rows, one.bits, size, group, symmetric, one.kind))
    rest += [Stored(c.name, c.shape, c.kind, c.bits, c.bytes) for some in extras.values() for c in some]
    return packed, rest


def _ir_name(folder: Path, packed: list[Packed]) -> tuple[str, int]:
    """The canonical name of what the weights of the layers are stored in, and its nominal bits."""
    main = main_of(folder, packed)
    if main.bits >= 16:
        return main.kind if main.kind in FLOAT_BITS else "f16", main.bits
    low = [p for p in packed if p.bits < 8]
    if not low:
        return "int8-sym" if main.symmetric else "int8", 8
    share = _share(packed, low)
    if share >= 0.98:
        return _ir_low(low[0]), low[0].bits
    roles = {role_of(p.name) for p in low}
    if main.bits == 8 and all(p.bits < 8 for p in packed if role_of(p.name) in roles):
        base = "int8-sym" if main.symmetric else "int8"
        return "+".join([base, *(f"{role}={_ir_low(low[0])}" for role in sorted(roles))]), 8
    return f"{_ir_low(low[0])}-r{share:.2g}", low[0].bits


def _ir_low(packed: Packed) -> str:
    group = "cw" if packed.group_size < 0 else f"g{packed.group_size}"
    if packed.kind in ("nf4", "f4e2m1", "f8e4m3"):
        kind = {"nf4": "nf4", "f4e2m1": "mxfp4" if packed.group_size == 32 else "fp4", "f8e4m3": "fp8"}[packed.kind]
        return kind if kind == "mxfp4" else f"{kind}-{group}"
    return f"int{packed.bits}-{'sym' if packed.symmetric else 'asym'}-{group}"


def _share(packed: Iterable[Packed], low: Iterable[Packed]) -> float:
    """The share of the layers' weights that `low` are."""
    body = sum(p.elements for p in packed if role_of(p.name) not in ("token_embd", "output"))
    return sum(p.elements for p in low if role_of(p.name) not in ("token_embd", "output")) / max(1, body)
