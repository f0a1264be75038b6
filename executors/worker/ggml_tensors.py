"""ggml's tensors through ctypes: a view on `struct ggml_tensor`, and matrices of floats written to and read from GGUF.

The binding knows tensors only as addresses, so their layout is repeated here (ggml/include/ggml.h as vendored by
llama-cpp-python 0.3.36) and `check_layout` proves it on tensors that ggml itself makes, before anything relies on it.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from llama_cpp import _ctypes_extensions, _ggml
from numpy.typing import NDArray

from .protocol import WorkerError

F32, I32 = 0, 26  # ggml_type
MAX_MATRICES = 100_000
_U32 = ctypes.c_uint32

ggml: Any = _ctypes_extensions.load_shared_library("ggml-base", _ggml.libggml_base_path)


class Tensor(ctypes.Structure):
    """`struct ggml_tensor` up to its name. `ne` are the lengths of its dimensions, innermost first, `nb` the strides in
    bytes."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * 4),
        ("nb", ctypes.c_size_t * 4),
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * 16),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * 10),
        ("view_src", ctypes.c_void_p),
        ("view_offs", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("name", ctypes.c_char * 64),
    )


class _InitParams(ctypes.Structure):
    _fields_ = (("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


class _GgufParams(ctypes.Structure):
    _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.POINTER(ctypes.c_void_p)))


def _declare(name: str, result: Any, *arguments: Any) -> None:
    function = getattr(ggml, name)
    function.restype, function.argtypes = result, arguments


_P, _S, _I64 = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int64
_declare("ggml_init", _P, _InitParams)
_declare("ggml_free", None, _P)
_declare("ggml_new_tensor_2d", _P, _P, ctypes.c_int, _I64, _I64)
_declare("ggml_new_tensor_3d", _P, _P, ctypes.c_int, _I64, _I64, _I64)
_declare("ggml_mul_mat", _P, _P, _P, _P)
_declare("ggml_mul_mat_id", _P, _P, _P, _P, _P)
_declare("ggml_set_name", _P, _P, _S)
_declare("ggml_get_data", _P, _P)
_declare("ggml_op_name", _S, ctypes.c_int)
_declare("ggml_nbytes", ctypes.c_size_t, _P)
_declare("ggml_tensor_overhead", ctypes.c_size_t)
_declare("ggml_get_tensor", _P, _P, _S)
_declare("ggml_backend_tensor_get", None, _P, _P, ctypes.c_size_t, ctypes.c_size_t)
_declare("gguf_init_empty", _P)
_declare("gguf_init_from_file", _P, _S, _GgufParams)
_declare("gguf_free", None, _P)
_declare("gguf_set_val_str", None, _P, _S, _S)
_declare("gguf_set_val_u32", None, _P, _S, _U32)
_declare("gguf_set_arr_str", None, _P, _S, ctypes.POINTER(_S), ctypes.c_size_t)
_declare("gguf_add_tensor", None, _P, _P)
_declare("gguf_write_to_file", ctypes.c_bool, _P, _S, ctypes.c_bool)
_declare("gguf_get_n_tensors", _I64, _P)
_declare("gguf_get_tensor_name", _S, _P, _I64)


def view(address: int) -> Tensor:
    """The tensor at `address`."""
    return Tensor.from_address(address)


def check_layout() -> dict[str, int]:
    """Numbers of the operations MUL_MAT and MUL_MAT_ID. Raises WorkerError `worker-error` where tensors of this ggml
    are laid out otherwise than `Tensor` says: nothing may then be read through it."""
    context = ggml.ggml_init(_InitParams(1 << 20, None, False))
    try:
        weight, experts = ggml.ggml_new_tensor_2d(context, F32, 48, 5), ggml.ggml_new_tensor_3d(context, F32, 48, 5, 3)
        rows, routed = ggml.ggml_new_tensor_2d(context, F32, 48, 7), ggml.ggml_new_tensor_3d(context, F32, 48, 2, 7)
        ids = ggml.ggml_new_tensor_2d(context, I32, 2, 7)
        ggml.ggml_set_name(weight, b"blk.0.layout.weight")
        plain, chosen = ggml.ggml_mul_mat(context, weight, rows), ggml.ggml_mul_mat_id(context, experts, routed, ids)
        operations = {"MUL_MAT": view(plain).op, "MUL_MAT_ID": view(chosen).op}
        sound = (
            view(weight).name == b"blk.0.layout.weight"
            and tuple(view(plain).ne) == (5, 7, 1, 1)
            and tuple(view(plain).src[:3]) == (weight, rows, None)
            and tuple(view(chosen).ne) == (5, 2, 7, 1)
            and tuple(view(chosen).src[:4]) == (experts, routed, ids, None)
            and tuple(view(routed).nb) == (4, 192, 384, 2688)
            and view(rows).data == ggml.ggml_get_data(rows)
            and (view(rows).type, view(ids).type) == (F32, I32)
            and all(0 <= number < 256 for number in operations.values())
            and all((ggml.ggml_op_name(number) or b"").decode() == name for name, number in operations.items())
        )
    finally:
        ggml.ggml_free(context)
    if not sound:
        raise WorkerError(
            "worker-error",
            "This build of llama.cpp lays out its tensors otherwise than expected: none can be read.",
        )
    return operations


def values(tensor: Tensor, address: int) -> NDArray[Any]:
    """A copy of the F32 or I32 tensor at `address`, wherever it lies, with its dimensions outermost first."""
    kind = np.dtype(np.float32 if tensor.type == F32 else np.int32)
    size = ggml.ggml_nbytes(address)
    data = (ctypes.c_char * size)()
    ggml.ggml_backend_tensor_get(address, data, 0, size)
    return np.ndarray(tuple(tensor.ne)[::-1], kind, data, strides=tuple(tensor.nb)[::-1])


def write_matrices(
    path: Path,
    matrices: Mapping[str, NDArray[np.float32]],
    texts: Mapping[str, str | list[str]],
    numbers: Mapping[str, int],
) -> None:
    """Write a GGUF of two-dimensional F32 tensors and metadata. Raises OSError."""
    room = sum(array.nbytes + ggml.ggml_tensor_overhead() + 64 for array in matrices.values()) + 4096
    context, file = ggml.ggml_init(_InitParams(room, None, False)), ggml.gguf_init_empty()
    for key, text in texts.items():
        if isinstance(text, str):
            ggml.gguf_set_val_str(file, key.encode(), text.encode())
        else:
            ggml.gguf_set_arr_str(file, key.encode(), (_S * len(text))(*(one.encode() for one in text)), len(text))
    for key, number in numbers.items():
        ggml.gguf_set_val_u32(file, key.encode(), number)
    for name, array in matrices.items():
        tensor = ggml.ggml_new_tensor_2d(context, F32, array.shape[1], array.shape[0])
        ggml.ggml_set_name(tensor, name.encode())
        ctypes.memmove(ggml.ggml_get_data(tensor), np.ascontiguousarray(array, np.float32).ctypes.data, array.nbytes)
        ggml.gguf_add_tensor(file, tensor)
    written = ggml.gguf_write_to_file(file, os.fsencode(path), False)
    ggml.gguf_free(file)
    ggml.ggml_free(context)
    if not written:
        raise OSError(f"{path.name} cannot be written")
    with path.open("rb+") as handle:
        os.fsync(handle.fileno())


def read_matrices(path: Path) -> dict[str, NDArray[np.float32]]:
    """The F32 matrices of a GGUF, by name. Raises WorkerError `damaged-file`."""
    context = ctypes.c_void_p()
    file = ggml.gguf_init_from_file(os.fsencode(path), _GgufParams(False, ctypes.pointer(context)))
    if not file:
        raise WorkerError("damaged-file", f"{path.name} is missing or no GGUF file.")
    found = {}
    for name in _names(file):
        address = ggml.ggml_get_tensor(context, name)
        tensor = view(address)
        if tensor.type != F32 or tuple(tensor.ne[2:]) != (1, 1):
            raise WorkerError("damaged-file", f"{path.name} holds other things than matrices of floats.")
        shape = (tensor.ne[1], tensor.ne[0])
        pointer = ctypes.cast(ggml.ggml_get_data(address), ctypes.POINTER(ctypes.c_float))
        found[name.decode("utf-8", "replace")] = np.ctypeslib.as_array(pointer, shape).copy()
    ggml.gguf_free(file)
    ggml.ggml_free(context)
    return found


def _names(file: int) -> Iterable[bytes]:
    count = ggml.gguf_get_n_tensors(file)
    if count > MAX_MATRICES:
        raise WorkerError("damaged-file", "The file holds too many matrices.")
    return (ggml.gguf_get_tensor_name(file, number) for number in range(count))
