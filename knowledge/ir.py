"""A bounded look at an OpenVINO model folder: which constants does its graph name, and do all lie in its weight file?

Standard library only, nothing run: a truncated weight file is found without OpenVINO. Document types, and with them
entities, are refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from knowledge.base import MIB, AdvisorError, file_error, printable

GRAPH, WEIGHTS = "openvino_model.xml", "openvino_model.bin"
MAX_GRAPH_BYTES = 256 * MIB
MAX_CONSTANTS = 500_000
_CHUNK = MIB
_BITS = {
    "f64": 64, "f32": 32, "f16": 16, "bf16": 16, "i64": 64, "u64": 64, "i32": 32, "u32": 32, "i16": 16, "u16": 16,
    "i8": 8, "u8": 8, "f8e4m3": 8, "f8e5m2": 8, "f8e8m0": 8, "boolean": 8, "i4": 4, "u4": 4, "nf4": 4, "f4e2m1": 4,
    "u6": 6, "u3": 3, "u2": 2, "i2": 2, "u1": 1,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Constant:
    """What the graph keeps in the weight file, under the first name that it has there. `bits` 0: a type that is not
    known here."""

    name: str
    kind: str
    shape: tuple[int, ...]
    bytes: int

    @property
    def bits(self) -> int:
        return _BITS.get(self.kind, 0)

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class IrFolder:
    """`tensors` lie in the weight file, the last of them ending at `weight_bytes`, the file's own size or less."""

    tensors: tuple[Constant, ...]
    weight_bytes: int

    @property
    def constants(self) -> int:
        return len(self.tensors)


def read_ir(folder: Path) -> IrFolder:
    """The constants of the graph in `folder`, checked; AdvisorError `bad-ir` says what is wrong."""
    graph, weights = folder / GRAPH, folder / WEIGHTS
    import xml.parsers.expat  # late: the names of this module are needed where no graph is read

    spans: dict[tuple[int, int], Constant] = {}
    layer = [""]

    def start(tag: str, attributes: dict[str, str]) -> None:
        if tag == "layer":
            layer[0] = attributes.get("name", "")[:400]
        if tag == "data" and {"offset", "size"} <= attributes.keys():
            span = (int(attributes["offset"]), int(attributes["size"]))
            if span not in spans:
                spans[span] = _constant(layer[0], attributes, span[1])
            if len(spans) > MAX_CONSTANTS:
                raise ValueError(f"it names more than {MAX_CONSTANTS} constants")

    def refuse(*_: object) -> None:
        raise ValueError("it declares a document type")

    parser = xml.parsers.expat.ParserCreate()
    parser.StartElementHandler = start
    parser.StartDoctypeDeclHandler = refuse
    try:
        if graph.stat().st_size > MAX_GRAPH_BYTES:
            raise ValueError("it is too large for a graph")
        size = weights.stat().st_size
        with graph.open("rb") as file:
            while chunk := file.read(_CHUNK):
                parser.Parse(chunk, False)
            parser.Parse(b"", True)
    except OSError as error:
        raise file_error(error, Path(error.filename or graph)) from error
    except (ValueError, xml.parsers.expat.ExpatError) as error:
        raise _bad(graph, f"is no OpenVINO graph: {error}") from error
    if not spans:
        raise _bad(graph, "names no weights")
    end = max(offset + length for offset, length in spans)
    if end > size or min(min(span) for span in spans) < 0:
        raise _bad(weights, f"has {size} bytes and its graph names {end}")
    return IrFolder(tuple(spans.values()), end)


def _constant(name: str, attributes: dict[str, str], size: int) -> Constant:
    kind = attributes.get("element_type", "")[:20]
    shape = tuple(int(part) for part in attributes.get("shape", "").split(",") if part.strip())
    if len(shape) > 8 or any(not 0 <= n < 2**40 for n in shape) or math.prod(shape) >= 2**48:
        raise ValueError(f"its constant {printable(name, 60)!r} has an impossible shape")
    if kind in _BITS and size != -(-math.prod(shape) * _BITS[kind] // 8):
        raise ValueError(f"its constant {printable(name, 60)!r} has another size than its shape")
    return Constant(name, kind, shape, size)


def _bad(path: Path, what: str) -> AdvisorError:
    return AdvisorError("bad-ir", f"{path} {what}.", "make or download the model folder again")
