"""A forward reader of untrusted protobuf files: bounded, nested fields never longer than what holds them.

Only what ONNX headers need: varints, lengths, texts, messages; large fields are skipped without being read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from knowledge.base import MIB

MAX_READ_BYTES = 256 * MIB
MAX_FIELDS = 20_000_000
MAX_TEXT = 4096
_CHUNK = 16 * 1024


class Malformed(ValueError):
    """What is wrong with a message, in words."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a message: `number`, `wire` type (0 varint, 1 and 5 fixed, 2 a length), `value` of a varint, else the
    length of what starts at `start`."""

    number: int
    wire: int
    value: int
    start: int

    @property
    def end(self) -> int:
        return self.start + self.value


class Wire:
    """Messages of the file `handle` of `size` bytes."""

    def __init__(self, handle: BinaryIO, size: int) -> None:
        self._handle, self.size = handle, size
        self._buffer, self._base = b"", 0
        self._read = self._fields = 0

    def fields(self, start: int, end: int) -> Iterator[Field]:
        """The fields of the message in [start, end). Raises Malformed where they do not fill it."""
        at = start
        while at < end:
            self._fields += 1
            if self._fields > MAX_FIELDS:
                raise Malformed("it has too many fields")
            key, at = self._varint(at, end)
            number, wire = key >> 3, key & 7
            if wire == 0:
                value, at = self._varint(at, end)
                yield Field(number, wire, value, at)
                continue
            if wire == 2:
                length, at = self._varint(at, end)
            elif wire in (1, 5):
                length = 8 if wire == 1 else 4
            else:
                raise Malformed("it is no protobuf message")
            if number == 0 or at + length > end:
                raise Malformed("a field is longer than what holds it")
            yield Field(number, wire, length, at)
            at += length

    def text(self, field: Field) -> str:
        """A text field. Raises Malformed where it is longer than any name."""
        if field.wire != 2 or field.value > MAX_TEXT:
            raise Malformed("a name is no text or too long")
        return self._bytes(field.start, field.value).decode("utf-8", "replace")

    def varints(self, field: Field) -> list[int]:
        """A repeated number, packed or not, as 64-bit two's complement."""
        if field.wire == 0:
            return [_signed(field.value)]
        if field.wire != 2 or field.value > MAX_TEXT:
            raise Malformed("a list of numbers is too long")
        values, at = [], field.start
        while at < field.end:
            value, at = self._varint(at, field.end)
            values.append(_signed(value))
        return values

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 70, 7):
            if at >= end:
                raise Malformed("it ends in the middle of a number")
            byte = self._bytes(at, 1)[0]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & (2**64 - 1), at
        raise Malformed("a number has no end")

    def _bytes(self, start: int, count: int) -> bytes:
        offset = start - self._base
        if offset < 0 or offset + count > len(self._buffer):
            self._handle.seek(start)
            self._buffer, self._base = self._handle.read(max(_CHUNK, count)), start
            self._read += len(self._buffer)
            if self._read > MAX_READ_BYTES:
                raise Malformed("its header is too large")
            if len(self._buffer) < count:
                raise Malformed("the file ends in the middle of it")
            offset = 0
        return self._buffer[offset : offset + count]


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value
