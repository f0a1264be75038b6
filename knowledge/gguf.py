"""A bounded reader of GGUF headers (versions 2 and 3): standard library only, no weights read, nothing run.

The file is untrusted: every count, length, offset and dimension is checked before it is used, arrays are walked and not
kept, and the tensor data must all be there. What llama.cpp itself refuses is refused (ggml/src/gguf.cpp of
llama-cpp-python 0.3.36), and so is what makes it abort, hang or answer nonsense (knowledge.gguf_model).
"""

from __future__ import annotations

import hashlib
import re
import stat
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from knowledge.base import MIB, AdvisorError, format_bytes, printable
from knowledge.ggml import ggml_types, type_names
from knowledge.gguf_model import check_model, model_of_file, role_of
from knowledge.header_reader import MAX_HEADER_BYTES, HeaderReader, bad, foreign_format
from knowledge.records import ModelSpec, Tensor

Scalar = int | float | bool | str | tuple[int | float | bool, ...]

MAX_KEYS = 65_536
MAX_TENSORS = 65_536
MAX_KEPT_BYTES = 8 * MIB
MAX_KEPT_ARRAY = 4096
MAX_SHARDS = 1000
MAX_NAME_BYTES = 63  # GGML_MAX_NAME less the final zero
MAX_ALIGNMENT = 64 * 1024

_CHUNK = MIB
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_LAYER = re.compile(r"(?:enc\.|dec\.)?blk\.(\d{1,9})\.")
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ArrayInfo:
    """An array of the metadata: the type number of its items, how many, where its items lie in the file."""

    type: int
    count: int
    offset: int
    bytes: int


@dataclass(frozen=True, slots=True)
class GgufFile:
    """What a header says. `metadata` holds scalars, strings and short numeric arrays; `arrays` describes every array.

    `data_offset` is where the first tensor begins; `file_bytes` counts all shards. `file_type` is the llama_ftype
    number, None where the file does not say. `notes` are findings that do not keep it from being used.
    """

    path: Path
    version: int
    metadata: dict[str, Scalar]
    arrays: dict[str, ArrayInfo]
    tensors: tuple[Tensor, ...]
    data_offset: int
    file_bytes: int
    alignment: int
    file_type: int | None
    shards: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()


def read_gguf(path: Path) -> GgufFile:
    """The checked header of a GGUF file, or of all shards of a split one; AdvisorError `bad-gguf` says what is bad."""
    file = _read_one(path)
    count = file.metadata.get("split.count", 1)
    if isinstance(count, int) and count > 1:
        file = _join(file, count)
    check_model(file)
    return file


def read_gguf_header(handle: BinaryIO, path: Path, size: int) -> GgufFile:
    """The checked header of a file of `size` bytes that is not all there: `handle` reads its beginning."""
    file = _parse(HeaderReader(handle, path, size), path, size)
    check_model(file)
    return file


def model_from_gguf(source: Path | GgufFile) -> ModelSpec:
    """The model that a GGUF file holds, with its tensors in the file's order and `header_bytes` up to the first."""
    return model_of_file(source if isinstance(source, GgufFile) else read_gguf(source))


def tokenizer_sha256(file: GgufFile) -> str:
    """A hash over the tokenizer's arrays, to tell whether two files share a tokenizer. Empty where there is none."""
    spans = [info for key, info in sorted(file.arrays.items()) if key.startswith("tokenizer.")]
    digest = hashlib.sha256()
    with file.path.open("rb") as handle:
        for info in spans:
            handle.seek(info.offset)
            left = info.bytes
            while left and (chunk := handle.read(min(left, _CHUNK))):
                digest.update(chunk)
                left -= len(chunk)
    return digest.hexdigest() if spans else ""


# ---- one file


def _read_one(path: Path) -> GgufFile:
    size = _regular_size(path)
    try:
        with path.open("rb") as handle:
            return _parse(HeaderReader(handle, path, size), path, size)
    except OSError as error:
        raise AdvisorError("unreadable", f"Cannot read {path}: {error.strerror}.", "check its permissions") from error


def _regular_size(path: Path) -> int:
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise AdvisorError("not-found", f"There is no file {path}.", "check the path") from error
    except (OSError, ValueError) as error:
        raise AdvisorError("unreadable", f"Cannot read {path}.", "check the path and its permissions") from error
    if stat.S_ISDIR(status.st_mode):
        raise bad(path, "is a folder, not a GGUF file", "name the .gguf file in it")
    if not stat.S_ISREG(status.st_mode):
        raise bad(path, "is not a regular file", "name a .gguf file")
    if status.st_size == 0:
        raise bad(path, "is empty")
    return status.st_size


def _parse(reader: HeaderReader, path: Path, size: int) -> GgufFile:
    version = _version(reader, path, size)
    tensor_count, key_count = reader.number("Q"), reader.number("Q")
    if key_count > MAX_KEYS or key_count * 13 > size:
        raise bad(path, f"claims {key_count} metadata entries")
    if tensor_count > MAX_TENSORS or tensor_count * 24 > size:
        raise bad(path, f"claims {tensor_count} tensors")
    metadata: dict[str, Scalar] = {}
    arrays: dict[str, ArrayInfo] = {}
    _read_metadata(reader, key_count, metadata, arrays)
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 1 <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        raise bad(path, f"has an alignment of {alignment}, which is no power of two")
    described = [_tensor(reader) for _ in range(tensor_count)]
    data_offset = -(-reader.position // alignment) * alignment
    notes = _check_layout(path, described, data_offset, alignment, size)
    file_type = metadata.get("general.file_type")
    return GgufFile(
        path=path,
        version=version,
        metadata=metadata,
        arrays=arrays,
        tensors=tuple(tensor for tensor, _ in described),
        data_offset=data_offset,
        file_bytes=size,
        alignment=alignment,
        file_type=file_type if isinstance(file_type, int) else None,
        shards=(path,),
        notes=notes,
    )


def _version(reader: HeaderReader, path: Path, size: int) -> int:
    head = reader.take(min(size, 64))
    if head[:4] != b"GGUF":
        what, hint = foreign_format(head)
        raise bad(path, f"is not a GGUF file: it {what}", hint)
    reader.rewind(4)
    version = reader.number("I")
    if version in (1, 2, 3):
        if version == 1:
            raise bad(path, "is a GGUF of version 1, which llama.cpp no longer reads", "get a newer conversion")
        return version
    if version & 0xFFFF == 0:
        raise bad(path, "was written for a big-endian machine", "get the little-endian file")
    raise bad(path, f"claims GGUF version {version}; versions 2 and 3 are known")


def _read_metadata(reader: HeaderReader, count: int, metadata: dict[str, Scalar], arrays: dict[str, ArrayInfo]) -> None:
    kept = 0
    for _ in range(count):
        key = reader.text(65_535)
        if not key or key in metadata or key in arrays:
            raise bad(reader.path, f"has an empty or repeated metadata key {printable(key, 60)!r}")
        kind = reader.number("I")
        if kind == _STRING:
            value = reader.text_or_skip()
            if value is not None:
                metadata[key] = value
                kept += len(value)
        elif kind == _ARRAY:
            info, items = _array(reader, key)
            arrays[key] = info
            if items is not None:
                metadata[key] = items
                kept += 8 * len(items)
        elif code := _SCALARS.get(kind):
            metadata[key] = struct.unpack("<" + code, reader.take(struct.calcsize("<" + code)))[0]
        else:
            raise bad(reader.path, f"has metadata {printable(key, 60)!r} of unknown type {kind}")
        if kept > MAX_KEPT_BYTES:
            raise bad(reader.path, f"has more than {format_bytes(MAX_KEPT_BYTES)} of texts in its metadata")


def _array(reader: HeaderReader, key: str) -> tuple[ArrayInfo, tuple[int | float | bool, ...] | None]:
    kind, count = reader.number("I"), reader.number("Q")
    offset = reader.position
    if kind == _STRING:
        if count > MAX_HEADER_BYTES // 8:
            raise bad(reader.path, f"claims {count} texts in {printable(key, 60)!r}")
        reader.skip_strings(count)
        return ArrayInfo(kind, count, offset, reader.position - offset), None
    code = _SCALARS.get(kind)
    if code is None:
        raise bad(reader.path, f"has an array {printable(key, 60)!r} of unknown type {kind}")
    width = struct.calcsize("<" + code)
    if count > MAX_HEADER_BYTES // width:
        raise bad(reader.path, f"claims {count} values in {printable(key, 60)!r}")
    items = None
    if count <= MAX_KEPT_ARRAY:
        items = struct.unpack(f"<{count}{code}", reader.take(count * width))
    else:
        reader.skip(count * width)
    return ArrayInfo(kind, count, offset, count * width), items


def _tensor(reader: HeaderReader) -> tuple[Tensor, int]:
    """A tensor's record and the offset of its data."""
    name = reader.text(MAX_NAME_BYTES)
    shown = printable(name, 70)
    if not name.isprintable() or not name.isascii():
        raise bad(reader.path, f"names a tensor {shown!r}")
    count = reader.number("I")
    if not 1 <= count <= 4:
        raise bad(reader.path, f"gives tensor {shown!r} {count} dimensions")
    lengths = struct.unpack(f"<{count}Q", reader.take(8 * count))
    kind_number, offset = reader.number("I"), reader.number("Q")
    elements = 1
    for length in lengths:
        elements *= length
        if not 1 <= length < 2**40 or elements >= 2**48:
            raise bad(reader.path, f"gives tensor {shown!r} the impossible shape {list(lengths)}")
    type_name = type_names().get(kind_number)
    if type_name is None:
        raise bad(reader.path, f"stores tensor {shown!r} in the unknown type {kind_number}", "a newer file format?")
    kind = ggml_types()[type_name]
    if lengths[0] % kind.block:
        raise bad(reader.path, f"stores rows of {lengths[0]} of tensor {shown!r} in {type_name} blocks of {kind.block}")
    layer = _LAYER.match(name)
    rows = elements // lengths[0]
    tensor = Tensor(
        name=name,
        role=role_of(name),
        row_length=lengths[0],
        rows=rows,
        layer=int(layer[1]) if layer else None,
        dtype=type_name,
        stored_bytes=kind.row_bytes(lengths[0]) * rows,
        dimensions=max(1, sum(1 for i in range(count) if any(length > 1 for length in lengths[i:]))),
    )
    return tensor, offset


def _check_layout(
    path: Path, described: list[tuple[Tensor, int]], data_offset: int, alignment: int, size: int
) -> tuple[str, ...]:
    """Names are unique, the data lies one after the other as llama.cpp wants it, and is all there."""
    names = set()
    expected = 0
    for tensor, offset in described:
        if tensor.name in names:
            raise bad(path, f"has two tensors named {printable(tensor.name, 70)!r}")
        names.add(tensor.name)
        if offset != expected:
            raise bad(path, f"puts tensor {printable(tensor.name, 70)!r} at {offset}, where {expected} was due")
        expected += -(-(tensor.stored_bytes or 0) // alignment) * alignment
    if not described:
        return ()
    last = described[-1][0].stored_bytes or 0
    least = data_offset + described[-1][1] + last
    if size < least:
        missing = format_bytes(least - size)
        raise bad(path, f"is truncated: {missing} of its weights are missing", "finish the download")
    extra = size - data_offset - expected
    return (f"{format_bytes(extra)} follow the last tensor",) if extra > 0 else ()


# ---- split files


def _join(first: GgufFile, count: int) -> GgufFile:
    """All shards of a split file as one, given the first."""
    match = _SHARD.fullmatch(first.path.name)
    if count > MAX_SHARDS:
        raise bad(first.path, f"claims to be split into {count} files")
    if not match or int(match["count"]) != count:
        raise bad(first.path, f"is one of {count} parts and is not named so", "keep the names that the parts came with")
    if int(match["number"]) != 1 or first.metadata.get("split.no", 0) != 0:
        name = f"{match['stem']}-00001-of-{count:05d}.gguf"
        raise bad(first.path, "is a later part of a split model", f"name its first part, {printable(name, 120)}")
    tensors, total, notes = list(first.tensors), first.file_bytes, list(first.notes)
    header, paths = first.data_offset, [first.path]
    for number in range(2, count + 1):
        path = first.path.with_name(f"{match['stem']}-{number:05d}-of-{count:05d}.gguf")
        part = _read_one(path)
        if part.metadata.get("split.no") != number - 1:
            raise bad(path, f"does not say that it is part {number} of {count}")
        tensors += part.tensors
        total += part.file_bytes
        header += part.data_offset
        notes += part.notes
        paths.append(path)
    names = {tensor.name for tensor in tensors}
    if len(names) != len(tensors):
        raise bad(first.path, "has the same tensor in two of its parts")
    claimed = first.metadata.get("split.tensors.count", len(tensors))
    if claimed != len(tensors):
        raise bad(first.path, f"claims {claimed} tensors and its parts hold {len(tensors)}")
    return replace(
        first, tensors=tuple(tensors), file_bytes=total, data_offset=header, shards=tuple(paths), notes=tuple(notes)
    )
