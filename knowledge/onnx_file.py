"""A bounded look at an ONNX model: what it stores, under which name, in which type; never the weights themselves.

Fields as in onnx.proto (onnx 1.23); how ONNX Runtime packs quantized matrices as in its contrib operators MatMulNBits,
GatherBlockQuantized and QMoE.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path

from knowledge.base import AdvisorError, file_error, printable
from knowledge.protobuf import Field, Malformed, Wire
from knowledge.stored_model import Stored

MAX_INITIALIZERS = 200_000
MAX_NODES = 2_000_000
_DEPTH = 4
_BITS = {
    1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64, 15: 128, 16: 16,
    17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8, 25: 2, 26: 2,
}  # fmt: skip
_NAMES = {1: "f32", 10: "f16", 16: "bf16", 11: "f64"}


@dataclass(frozen=True, slots=True)
class Node:
    """An operation, its inputs by name and its whole-number attributes."""

    op: str
    inputs: tuple[str, ...]
    numbers: dict[str, int]


@dataclass(slots=True)
class OnnxFile:
    """`inputs` are the shapes of the graph's inputs, 0 where a length is free; `data_files` lie beside it."""

    path: Path
    stored: dict[str, Stored] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    inputs: dict[str, tuple[int, ...]] = field(default_factory=dict)
    data_files: set[str] = field(default_factory=set)
    graph_bytes: int = 0


def read_onnx(path: Path) -> OnnxFile:
    """The header of the ONNX model at `path`. AdvisorError `bad-onnx` says in one sentence what is wrong with it."""
    try:
        size = path.stat().st_size
        with path.open("rb") as handle:
            return _Reader(Wire(handle, size), path).model(size)
    except Malformed as error:
        raise _bad(path, str(error)) from error
    except OSError as error:
        raise file_error(error, path) from error


def _bad(path: Path, what: str) -> AdvisorError:
    return AdvisorError("bad-onnx", f"{path.name} is no whole ONNX model: {what}.", "export or download it again")


class _Reader:
    def __init__(self, wire: Wire, path: Path) -> None:
        self.wire, self.found = wire, OnnxFile(path)
        self.nodes = 0

    def model(self, size: int) -> OnnxFile:
        graphs = [f for f in self.wire.fields(0, size) if f.number == 7 and f.wire == 2]
        if len(graphs) != 1:
            raise Malformed("it holds no graph" if not graphs else "it holds several graphs")
        self._graph(graphs[0], 0)
        inline = sum(t.bytes for t in self.found.stored.values()) if not self.found.data_files else 0
        self.found.graph_bytes = max(0, size - inline)
        return self.found

    def _graph(self, graph: Field, depth: int) -> None:
        if depth > _DEPTH:
            raise Malformed("its graphs are nested too deeply")
        for part in self.wire.fields(graph.start, graph.end):
            if part.wire != 2:
                continue
            if part.number == 1:
                self._node(part, depth)
            elif part.number == 5:
                self._keep(self._tensor(part))
            elif part.number == 11 and depth == 0:
                self._input(part)

    def _keep(self, tensor: Stored) -> None:
        if len(self.found.stored) >= MAX_INITIALIZERS:
            raise Malformed(f"it stores more than {MAX_INITIALIZERS} tensors")
        if tensor.name in self.found.stored:
            raise Malformed(f"it stores {printable(tensor.name, 60)!r} twice")
        self.found.stored[tensor.name] = tensor

    def _node(self, node: Field, depth: int) -> None:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise Malformed("it has too many nodes")
        inputs, outputs, op, numbers = [], [], "", {}
        constant: list[Stored] = []
        for part in self.wire.fields(node.start, node.end):
            if part.wire == 2 and part.number == 1:
                inputs.append(self.wire.text(part))
            elif part.wire == 2 and part.number == 2:
                outputs.append(self.wire.text(part))
            elif part.wire == 2 and part.number == 4:
                op = self.wire.text(part)
            elif part.wire == 2 and part.number == 5:
                name, number = self._attribute(part, depth, constant)
                if number is not None:
                    numbers[name] = number
        for number, tensor in enumerate(constant):
            name = tensor.name or f"{outputs[0] if outputs else 'constant'}.{self.nodes}.{number}"
            self._keep(Stored(name, tensor.dims, tensor.dtype, tensor.bits, tensor.bytes))
        self.found.nodes.append(Node(op, tuple(inputs), numbers))

    def _attribute(self, attribute: Field, depth: int, constant: list[Stored]) -> tuple[str, int | None]:
        name, number = "", None
        for part in self.wire.fields(attribute.start, attribute.end):
            if part.number == 1 and part.wire == 2:
                name = self.wire.text(part)
            elif part.number == 3 and part.wire == 0:
                number = self.wire.varints(part)[0]
            elif part.number == 5 and part.wire == 2:
                constant.append(self._tensor(part))
            elif part.number == 6 and part.wire == 2:
                self._graph(part, depth + 1)
        return name, number

    def _input(self, value: Field) -> None:
        name, dims = "", []
        for part in self.wire.fields(value.start, value.end):
            if part.number == 1:
                name = self.wire.text(part)
            elif part.number == 2 and part.wire == 2:
                for kind in self.wire.fields(part.start, part.end):
                    if kind.number == 1 and kind.wire == 2:
                        dims = self._shape(kind)
        self.found.inputs[name] = tuple(dims)

    def _shape(self, kind: Field) -> list[int]:
        dims = []
        for shape in self.wire.fields(kind.start, kind.end):
            if shape.number != 2 or shape.wire != 2:
                continue
            for dim in self.wire.fields(shape.start, shape.end):
                values = [f.value for f in self.wire.fields(dim.start, dim.end) if f.number == 1 and f.wire == 0]
                dims.append(values[0] if values and values[0] < 2**32 else 0)
                if len(dims) > 16:
                    raise Malformed("an input has too many dimensions")
        return dims

    def _tensor(self, tensor: Field) -> Stored:
        dims: list[int] = []
        name, dtype, raw, outside = "", 0, None, {}
        for part in self.wire.fields(tensor.start, tensor.end):
            if part.number == 1:
                dims += self.wire.varints(part)
            elif part.number == 2 and part.wire == 0:
                dtype = part.value
            elif part.number == 8:
                name = self.wire.text(part)
            elif part.number == 9 and part.wire == 2:
                raw = part.value
            elif part.number == 13 and part.wire == 2:
                pair = {f.number: self.wire.text(f) for f in self.wire.fields(part.start, part.end) if f.wire == 2}
                outside[pair.get(1, "")] = pair.get(2, "")
        shown = printable(name, 60)
        if dtype not in _BITS or len(dims) > 8 or any(not 0 <= n < 2**40 for n in dims) or math.prod(dims) >= 2**48:
            raise Malformed(f"it describes the tensor {shown!r} impossibly")
        size = -(-math.prod(dims) * _BITS[dtype] // 8)
        if raw is not None and raw != size:
            raise Malformed(f"the tensor {shown!r} has another size than its shape")
        if outside:
            self._outside(outside, size, shown)
        return Stored(name, tuple(dims), _NAMES.get(dtype, str(_BITS[dtype])), _BITS[dtype], size)

    def _outside(self, where: dict[str, str], size: int, shown: str) -> None:
        """That the bytes of a tensor lie in a plain file beside the model."""
        name = where.get("location", "")
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}", name) or ".." in name:
            raise Malformed(f"the tensor {shown!r} lies in {printable(name, 80)!r}, which is no file beside it")
        try:
            offset, length = int(where.get("offset") or 0), int(where.get("length") or size)
        except ValueError as error:
            raise Malformed(f"the tensor {shown!r} has no place in {name}") from error
        file = self.found.path.with_name(name)
        if name not in self.found.data_files:
            if file.is_symlink() or not file.is_file():
                raise Malformed(f"its weights lie in {name}, which is not there")
            self.found.data_files.add(name)
        if length != size or offset < 0 or offset + length > file.stat().st_size:
            raise Malformed(f"the tensor {shown!r} is not all there in {name}")
