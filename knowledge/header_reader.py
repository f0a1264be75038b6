"""A forward reader of untrusted binary headers: buffered, bounded, never past the end of the file."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

from knowledge.base import MIB, AdvisorError, format_bytes

MAX_HEADER_BYTES = 256 * MIB
MAX_STRING_BYTES = 64 * MIB
MAX_KEPT_STRING_BYTES = MIB

_CHUNK = MIB


def bad(path: Path, what: str, hint: str = "get the file again from where it was published") -> AdvisorError:
    return AdvisorError("bad-gguf", f"{path.name}: {what}.", hint)


class HeaderReader:
    """Reads forward through a buffer of one chunk; never past `limit`."""

    def __init__(self, handle: BinaryIO, path: Path, size: int) -> None:
        self._handle, self.path, self._buffer, self._at = handle, path, b"", 0
        self._base = 0
        self.limit = min(size, MAX_HEADER_BYTES)

    @property
    def position(self) -> int:
        return self._base + self._at

    def rewind(self, position: int) -> None:
        """Back to a position of the first chunk, right after it was read."""
        self._at = position

    def take(self, count: int) -> bytes:
        if self._at + count > len(self._buffer):
            self._refill(count)
        start = self._at
        self._at += count
        return self._buffer[start : self._at]

    def number(self, code: str) -> int:
        values = struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))
        return int(values[0])

    def skip(self, count: int) -> None:
        if self.position + count > self.limit:
            self._end()
        if self._at + count <= len(self._buffer):
            self._at += count
            return
        self._base += self._at + count
        self._handle.seek(self._base)
        self._buffer, self._at = b"", 0

    def skip_strings(self, count: int) -> None:
        """Walk over `count` strings. The loop is tight: vocabularies hold a hundred thousand of them."""
        buffer, at = self._buffer, self._at
        size = len(buffer)
        from_bytes = int.from_bytes
        for _ in range(count):
            end = at + 8
            if end <= size:
                at = end + from_bytes(buffer[at:end], "little")
                if at <= size:
                    continue
                length = at - end
                at = end
            else:
                self._at = at
                length = self.number("Q")
                at = self._at
            self._at = at
            if length > MAX_STRING_BYTES:
                raise bad(self.path, f"claims a text of {length} bytes")
            self.skip(length)
            if self._at >= len(self._buffer):
                self._refill(0)
            buffer, at = self._buffer, self._at
            size = len(buffer)
        self._at = at

    def text(self, limit: int) -> str:
        length = self.number("Q")
        if length > limit:
            raise bad(self.path, f"claims a text of {length} bytes")
        return self.take(length).decode("utf-8", "replace")

    def text_or_skip(self) -> str | None:
        """A text, or None for one that is too long to keep (some files carry a whole tokenizer.json)."""
        length = self.number("Q")
        if length > MAX_STRING_BYTES:
            raise bad(self.path, f"claims a text of {length} bytes")
        if length > MAX_KEPT_STRING_BYTES:
            self.skip(length)
            return None
        return self.take(length).decode("utf-8", "replace")

    def _refill(self, count: int) -> None:
        rest = self._buffer[self._at :]
        self._base += self._at
        if self._base + count > self.limit:
            self._end()
        wanted = min(max(_CHUNK, count), self.limit - self._base) - len(rest)
        self._buffer, self._at = rest + self._handle.read(max(0, wanted)), 0
        if len(self._buffer) < count:
            self._end()

    def _end(self) -> None:
        if self.limit == MAX_HEADER_BYTES:
            raise bad(self.path, f"has a header of more than {format_bytes(MAX_HEADER_BYTES)}")
        raise bad(self.path, "ends in the middle of its header: it is truncated")


def foreign_format(head: bytes) -> tuple[str, str]:
    """What a file that is no GGUF seems to be, by its first 64 bytes, and a hint."""
    text = head.lstrip().lower()
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer to the real file", "fetch the file itself with: git lfs pull"
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "is a web page", "download the file itself, not the page about it"
    if head.startswith(b"PK\x03\x04"):
        return "is a zip archive (perhaps a PyTorch checkpoint)", "name a .gguf file or a folder with safetensors"
    if head[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04"):
        return "is a Python pickle, which is never loaded", "name a .gguf file or a folder with safetensors"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < MAX_HEADER_BYTES:
        return "is a safetensors file", "name the folder that it lies in, with its config.json"
    if text.startswith((b"{", b"[")):
        return "is JSON", "name a .gguf file"
    if head[:4] in (b"ggml", b"lmgg", b"tjgg", b"fmgg"):
        return "is a model in the older ggml format", "convert it, or get a GGUF of it"
    if not head.strip(b"\0"):
        return "begins with zeros", "get the file again from where it was published"
    return "does not begin with GGUF", "name a .gguf file"
