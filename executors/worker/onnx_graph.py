"""Look into an ONNX language model as ONNX Runtime GenAI's builder names its parts: matrices, packing, scales.

The graph is read without its weights; those are mapped, or lie in the graph itself.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from .protocol import Request, WorkerError, progress

_SUFFIX = re.compile(r"(_Q\d+|_shared|_tied)+$")
_MATRIX = {
    "MatMul": 1,
    "MatMulNBits": 1,
    "Gemm": 1,
    "Gather": 0,
    "GatherBlockQuantized": 0,
}  # which input is the weight
_PASSED_ON = ("DequantizeLinear", "Reshape", "Transpose", "Cast", "Identity")  # what may lie between it and its weight
_PACKED = ("DequantizeLinear", "MatMulNBits", "GatherBlockQuantized")
_FLOATS = (
    onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE,
)  # fmt: skip
_AT_ONCE = 1 << 22  # values looked at together


def read_graph(path: Path) -> onnx.ModelProto:
    """The graph at `path`, its external weights left where they are. Raises WorkerError `damaged-file`."""
    try:
        return onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's errors have no common class
        raise WorkerError("damaged-file", f"{path.name} is not an ONNX model.") from error


@contextlib.contextmanager
def well_formed(path: Path) -> Iterator[None]:
    """While the graph at `path` is looked into: what breaks the rules of its format is a WorkerError `damaged-file`."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise WorkerError("damaged-file", f"The graph in {path.name} is malformed: {error!r}.") from error


def outputs(path: Path) -> list[str]:
    """What the graph at `path` puts out."""
    return [str(output.name) for output in read_graph(path).graph.output]


def matrices(folder: Path) -> list[str]:
    """The names of the nodes that multiply by a constant matrix, in the folder's 32-bit model."""
    graph = read_graph(folder / "model.onnx").graph
    constant = {tensor.name for tensor in graph.initializer}
    return [str(node.name) for node in graph.node if node.op_type == "MatMul" and node.input[1] in constant]


def scan(request: Request) -> dict[str, Any]:
    """What the folder `model` holds.

    `weights` [{"name", "rows", "columns", "bits", "block_size", "symmetric", "shared", "bytes", "not_finite",
    "zero_share"}]: a matrix by its node's name as in the 32-bit model; `bits` 32 or 16 for floating point, `shared`
    where an earlier one uses the same values, `zero_share` of its scales. `tensors`: count and bytes of everything
    stored; `outputs`, `wanted_output` (empty: none); `hidden` where weights lie elsewhere: in a compiled part, in
    another graph, or in a form that is not known here. Raises `damaged-file`, `cannot-load`.
    """
    from .olive_session import read_config

    about = read_config(Path(request["model"]))
    graph = read_graph(about.file).graph
    with well_formed(about.file):
        found = _look(graph, about.file)
    return {**found, "hidden": found["hidden"] or not about.logits, "wanted_output": about.logits}


def _look(graph: onnx.GraphProto, path: Path) -> dict[str, Any]:
    """What `scan` returns, as far as one graph tells it."""
    stored = {str(tensor.name): tensor for tensor in graph.initializer}
    behind: dict[str, tuple[str, onnx.NodeProto | None]] = {}  # a value: the one that it is made of, what unpacks that
    for node in graph.node:
        if node.op_type in _PASSED_ON:
            name, unpacking = behind.get(str(node.input[0]), (str(node.input[0]), None))
            behind[str(node.output[0])] = name, node if node.op_type in _PACKED else unpacking
    rows: list[dict[str, Any]] = []
    taken: set[str] = set()
    hidden = True
    nodes = [node for node in graph.node if node.op_type in _MATRIX]
    for number, node in enumerate(nodes):
        progress(number, len(nodes), "looking at weights")
        name = str(node.input[_MATRIX[node.op_type]])
        name, unpacking = behind.get(name, (name, None))
        unpacking, weight = unpacking or node, stored.get(name)
        if weight is not None and (weight.data_type in _FLOATS or unpacking.op_type in _PACKED):
            rows.append(_row(node, unpacking, weight, stored, path, shared=weight.name in taken))
            taken.update([str(weight.name), *map(str, unpacking.input)])  # with its scales and zero points
            hidden = hidden and "Gather" in node.op_type
    others = [tensor for tensor in graph.initializer if tensor.name not in taken and len(tensor.dims) == 1]
    for tensor in others:
        values = _array(tensor, path)
        if tensor.data_type in _FLOATS and not np.isfinite(values).all():
            rows.append({**_plain(str(tensor.name), values), "not_finite": int((~np.isfinite(values)).sum())})
    sizes = [stored_bytes(tensor) for tensor in graph.initializer]
    norms = sum(count(tensor) for tensor in others if "norm" in tensor.name)
    return {
        "weights": rows,
        "tensors": len(sizes),
        "tensor_bytes": sum(sizes),
        "norm_elements": norms,
        "outputs": [str(output.name) for output in graph.output],
        "hidden": hidden or any(node.op_type == "EPContext" for node in graph.node),
    }


def _row(
    node: onnx.NodeProto,
    unpacking: onnx.NodeProto,
    weight: onnx.TensorProto,
    stored: Mapping[str, onnx.TensorProto],
    path: Path,
    *,
    shared: bool,
) -> dict[str, Any]:
    """The row of a matrix; `unpacking` is the node with its scales: the one that uses it, or one in between."""
    said = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in unpacking.attribute}
    name = _SUFFIX.sub("", str(node.name))
    name = name.replace("GatherBlockQuantized", "Gather").replace("MatMulNBits", "MatMul").replace("Gemm", "MatMul")
    around = [stored[part] for part in unpacking.input if part in stored and part != weight.name]
    size = stored_bytes(weight) + sum(map(stored_bytes, around))
    if weight.data_type in _FLOATS:
        bits, block, symmetric, looked_at = bits_of(weight), 0, True, weight
    else:
        between = unpacking.op_type == "DequantizeLinear"
        bits = bits_of(weight) if between else int(said.get("bits", 4))
        block = int(said.get("block_size", 0) if between else said["block_size"])
        scales = next((t for t in around if t.data_type in _FLOATS), None)
        if scales is None:
            raise WorkerError("damaged-file", f"{name} has no scales.")
        symmetric, looked_at = all(t.data_type != weight.data_type for t in around), scales
    if node.op_type == "MatMulNBits":
        rows, columns = int(said["N"]), int(said["K"])
    elif node.op_type == "MatMul":
        columns, rows = weight.dims[0], weight.dims[-1]
    else:
        rows, columns = weight.dims[0], weight.dims[-1] * bits_of(weight) // bits
    not_finite, zero = values_of(looked_at, path)
    return {
        "name": name,
        "rows": int(rows),
        "columns": int(columns),
        "bits": bits,
        "block_size": block,
        "symmetric": symmetric,
        "shared": shared,
        "bytes": 0 if shared else size,
        "not_finite": not_finite,
        "zero_share": zero if bits < 16 else 0.0,
    }


def _plain(name: str, values: NDArray[Any]) -> dict[str, Any]:
    """A row for a tensor that is no matrix and not sound."""
    return {
        "name": name, "rows": 1, "columns": values.size, "bits": 32, "block_size": 0, "symmetric": True,
        "shared": False, "bytes": values.nbytes, "zero_share": 0.0,
    }  # fmt: skip


def values_of(tensor: onnx.TensorProto, path: Path) -> tuple[int, float]:
    """How many values of a tensor are no numbers, and which share of them is zero."""
    values = _array(tensor, path)
    if tensor.data_type not in _FLOATS or not values.size:
        return 0, 0.0
    not_finite = zero = 0
    for part in _pieces(values.reshape(-1)):
        not_finite += int((~np.isfinite(part)).sum())
        zero += int((part == 0).sum())
    return not_finite, zero / values.size


def _pieces(values: NDArray[Any]) -> Iterator[NDArray[Any]]:
    for start in range(0, len(values), _AT_ONCE):
        yield values[start : start + _AT_ONCE]


def _array(tensor: onnx.TensorProto, path: Path) -> NDArray[Any]:
    """The values of a tensor, mapped where they lie in a file beside the graph; packed ones as they lie there.

    Raises WorkerError `damaged-file` where they lie outside of it.
    """
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        if not tensor.raw_data and count(tensor):
            return np.asarray(onnx.numpy_helper.to_array(tensor))
        data = np.frombuffer(tensor.raw_data, np.uint8)
    else:
        place = {entry.key: entry.value for entry in tensor.external_data}
        file = path.parent / Path(place["location"]).name
        start, size = int(place.get("offset", 0)), int(place.get("length", 0)) or stored_bytes(tensor)
        if not file.is_file() or start < 0 or start + size > file.stat().st_size:
            raise WorkerError("damaged-file", f"The values of {tensor.name} lie outside of {file.name}.")
        data = np.memmap(file, np.uint8, "r", start, (size,)) if size else np.empty(0, np.uint8)
    if stored_bytes(tensor) != data.size:
        raise WorkerError("damaged-file", f"{tensor.name} has another size than its shape.")
    values: NDArray[Any] = data.view(dtype)
    return values


def count(tensor: onnx.TensorProto) -> int:
    return int(np.prod([int(size) for size in tensor.dims], dtype=np.int64))


def bits_of(tensor: onnx.TensorProto) -> int:
    """What each value of a tensor takes."""
    if tensor.data_type in (onnx.TensorProto.INT4, onnx.TensorProto.UINT4):
        return 4
    return 8 * int(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)).itemsize)


def stored_bytes(tensor: onnx.TensorProto) -> int:
    """What a tensor takes."""
    return -(-count(tensor) * bits_of(tensor) // 8)
