"""The weights in an OpenVINO graph: which there are, what they hold, and NNCF's weight compression of them.

A weight is what a MatMul multiplies by or a Gather picks from: a constant, or what Convert, Subtract, Multiply and
Reshape make of a packed constant, its zero points and its scales. Its name is the packed constant's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import openvino as ov

from .protocol import WorkerError, progress

FLOATS = ("f16", "bf16", "f32")
_SCALES = (*FLOATS, "f8e8m0")  # the last one: powers of two, of MXFP4
_UNPACKING = {"Convert", "Subtract", "Multiply", "Reshape", "Transpose"}
_READERS = {"MatMul": 1, "Gather": 0}  # operations and the input that may be a weight
_LEAST_ELEMENTS = 16  # smaller constants are shapes, axes and epsilons
_LOOKED_AT = 1_000_000  # values per tensor, evenly spread


@dataclass(frozen=True, slots=True)
class Weight:
    """`packed` holds the values (plain ones or integers); `scale` and `zero_point` are None where there are none."""

    name: str
    packed: Any
    scale: Any
    zero_point: Any

    @property
    def parts(self) -> list[Any]:
        return [part for part in (self.packed, self.scale, self.zero_point) if part is not None]

    @property
    def kind(self) -> str:
        return type_name(self.packed)

    @property
    def shape(self) -> list[int]:
        return list(self.packed.get_output_shape(0))


def type_name(node: Any) -> str:
    """The element type of a constant, such as `f16` or `u4`."""
    return str(node.get_output_element_type(0).to_string())


def weights_of(model: ov.Model) -> list[Weight]:
    """Every weight of the graph once, in the graph's order."""
    found: dict[str, Weight] = {}
    for node in model.get_ordered_ops():
        place = _READERS.get(node.get_type_name())
        if place is None:
            continue
        constants = _constants(node.input_value(place).get_node())
        if not constants or int(np.prod(constants[0].get_output_shape(0))) < _LEAST_ELEMENTS:
            continue
        packed = constants[0]
        scales = [node for node in constants[1:] if type_name(node) in _SCALES and node.get_output_size() > 0]
        scale = scales[-1] if type_name(packed) not in FLOATS and scales else None
        zero = next((c for c in constants[1:] if c is not scale and type_name(c) == type_name(packed)), None)
        found.setdefault(packed.get_friendly_name(), Weight(packed.get_friendly_name(), packed, scale, zero))
    return list(found.values())


def _constants(node: Any) -> list[Any]:
    """The constants that alone make the value of `node`, the largest first; empty if anything else does."""
    found: list[Any] = []
    waiting = [node]
    while waiting:
        current = waiting.pop()
        if current.get_type_name() == "Constant":
            found.append(current)
        elif current.get_type_name() in _UNPACKING:
            waiting += [port.get_source_output().get_node() for port in current.inputs()]
        else:
            return []
    found = [constant for constant in found if type_name(constant) not in ("i64", "i32")]
    return sorted(found, key=lambda constant: -int(np.prod(constant.get_output_shape(0))))


def compress(model: ov.Model, passes: Sequence[Mapping[str, Any]], samples: Sequence[Mapping[str, Any]]) -> ov.Model:
    """`model` after NNCF's passes, each over the weights that an earlier one left: all of them, or those whose name
    contains one of its `parts`.

    A pass: `mode` (int8_asym, int8_sym, int4_sym, int4_asym, nf4, mxfp4); for 4 bits `group_size` (-1: one scale per
    row), `ratio` (of the weights apart from embedding and head, the rest and those two go to `backup_mode`), `awq`
    (data-free without samples), `scale_estimation` (needs `samples`). Raises `compress-failed`.
    """
    os.environ.setdefault("NNCF_CI", "1")  # NNCF's switch for its telemetry: off
    import nncf

    named: list[Any] = [one for one in vars(nncf.errors).values() if isinstance(one, type)]
    refusals: Any = tuple(one for one in named if issubclass(one, Exception))
    for number, step in enumerate(passes):
        progress(number, len(passes), f"compressing to {step['mode']}")
        _name_apart(model)
        parts = step.get("parts") or []
        others = [w.name for w in weights_of(model) if parts and not any(part in w.name for part in parts)]
        if parts and len(others) == len(weights_of(model)):
            raise WorkerError("compress-failed", f"No weight of this model has {' or '.join(parts)} in its name.")
        options: dict[str, Any] = {"mode": nncf.CompressWeightsMode(step["mode"])}
        if others:
            options["ignored_scope"] = nncf.IgnoredScope(names=others, validate=False)
        if not step["mode"].startswith("int8"):
            options["group_size"] = int(step["group_size"])
            options["ratio"] = float(step["ratio"])
            options["backup_mode"] = nncf.BackupMode(step["backup_mode"])
            options["awq"] = bool(step.get("awq"))
            options["scale_estimation"] = bool(step.get("scale_estimation"))
            if step.get("scale_estimation"):
                options["dataset"] = nncf.Dataset(list(samples))
                options["subset_size"] = len(samples)
        try:
            model = nncf.compress_weights(model, **options)
        except (*refusals, RuntimeError, ValueError) as error:
            words = " ".join(str(error).split())[:300].rstrip(".")
            raise WorkerError("compress-failed", f"NNCF cannot compress the weights: {words}.") from error
    return model


def _name_apart(model: ov.Model) -> None:
    """Give each node a name of its own, as NNCF needs it: what a pass adds may be called as what the file brought."""
    seen: set[str] = set()
    for node in model.get_ordered_ops():
        name = node.get_friendly_name()
        if name in seen:
            node.set_friendly_name(f"{name}_{len(seen)}")
        seen.add(node.get_friendly_name())


def look(model: ov.Model) -> list[dict[str, Any]]:
    """What each weight is and holds, then every other large constant of floats (norms, biases) under its own name.

    `{"name", "weight", "type", "shape", "elements", "bytes", "groups", "symmetric", "not_finite", "zero_share"}`:
    `bytes` with scales and zero points; `groups` scales per row; `not_finite` counts plain values and scales,
    `zero_share` is the share of zeros among scales (among plain values; 0 where numpy can read neither).
    """
    weights = weights_of(model)
    parts = {
        part.get_friendly_name() for w in weights for part in (w.packed, w.scale, w.zero_point) if part is not None
    }
    rows = []
    for number, weight in enumerate(weights):
        progress(number, len(weights), "checking scales")
        rows.append(_row(weight))
    for node in _plain_floats(model):
        if node.get_friendly_name() not in parts:
            rows.append({**_row(Weight(node.get_friendly_name(), node, None, None)), "weight": False})
    return rows


def _plain_floats(model: ov.Model) -> Iterator[Any]:
    for node in model.get_ordered_ops():
        constant = node.get_type_name() == "Constant" and type_name(node) in FLOATS
        if constant and int(np.prod(node.get_output_shape(0))) >= _LEAST_ELEMENTS:
            yield node


def _row(weight: Weight) -> dict[str, Any]:
    values = _floats(weight.packed if weight.scale is None else weight.scale)
    scales = 0 if weight.scale is None else int(np.prod(weight.scale.get_output_shape(0)))
    return {
        "name": weight.name,
        "weight": True,
        "type": weight.kind,
        "shape": weight.shape,
        "elements": int(np.prod(weight.shape)),
        "bytes": sum(part.get_byte_size() for part in weight.parts),
        "groups": scales // weight.shape[0] if weight.shape else 0,
        "symmetric": weight.zero_point is None,
        "not_finite": int(np.count_nonzero(~np.isfinite(values))),
        "zero_share": float(np.mean(values == 0)) if values.size else 0.0,
    }


def _floats(node: Any) -> Any:
    """At most _LOOKED_AT values of a constant of floats or scales; none of another type."""
    if type_name(node) not in _SCALES:
        return np.empty(0, np.float32)
    plain = type_name(node) in ("f16", "f32")
    flat = (node.data if plain else node.get_data(dtype=np.float32)).reshape(-1)
    return flat[:: max(1, flat.size // _LOOKED_AT)]
