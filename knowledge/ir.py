"""A bounded look at an OpenVINO model folder: does every constant that the graph names lie in its weight file?

Standard library only, nothing run: a truncated weight file is found without OpenVINO.
"""

from __future__ import annotations

import xml.parsers.expat
from dataclasses import dataclass
from pathlib import Path

from knowledge.base import MIB, AdvisorError, file_error

GRAPH, WEIGHTS = "openvino_model.xml", "openvino_model.bin"
MAX_GRAPH_BYTES = 256 * MIB
_CHUNK = MIB


@dataclass(frozen=True, slots=True)
class IrFolder:
    """`constants` lie in the weight file, the last of them ending at `weight_bytes`, the file's own size or less."""

    constants: int
    weight_bytes: int


def read_ir(folder: Path) -> IrFolder:
    """The constants of the graph in `folder`, checked; AdvisorError `bad-ir` says what is wrong."""
    graph, weights = folder / GRAPH, folder / WEIGHTS
    spans: list[tuple[int, int]] = []

    def start(tag: str, attributes: dict[str, str]) -> None:
        if tag == "data" and {"offset", "size"} <= attributes.keys():
            spans.append((int(attributes["offset"]), int(attributes["size"])))

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
    return IrFolder(len(spans), end)


def _bad(path: Path, what: str) -> AdvisorError:
    return AdvisorError("bad-ir", f"{path} {what}.", "make or download the model folder again")
