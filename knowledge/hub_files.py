"""The files of one commit of a hub repository: what the hub lists, checked; what of it is read, kept on disk.

Everything here comes from outside: counts and sizes are bounded, file names stay in their folder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path, PurePosixPath
from typing import Any

from knowledge.base import MIB, AdvisorError, atomic_write, file_error, printable
from knowledge.checkpoint import MAX_HEADER_BYTES
from knowledge.hub_http import HubClient
from knowledge.records import HubFile

SCHEMA = "advisor.hub/1"
MAX_FILES = 20_000
COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FIRST_BYTES = 256 * 1024  # what is asked of a file whose header's length is not known yet
_GGUF_STEP = 4 * MIB


@dataclass(frozen=True, slots=True)
class Repository:
    """One commit of a repository as the hub lists it. `licence` is `unknown` where the hub does not say."""

    hf_id: str
    commit: str
    files: tuple[HubFile, ...]
    licence: str

    def file(self, path: str) -> HubFile | None:
        return next((file for file in self.files if file.path == path), None)


def as_json(repository: Repository) -> dict[str, Any]:
    files = [[file.path, file.bytes, file.sha256] for file in repository.files]
    head = {"schema": SCHEMA, "hf_id": repository.hf_id, "commit": repository.commit, "licence": repository.licence}
    return {**head, "files": files}


def from_json(document: dict[str, Any]) -> Repository:
    files = tuple(HubFile(*row) for row in document["files"])
    return Repository(document["hf_id"], document["commit"], files, document["licence"])


def described(client: HubClient, info: Any) -> Repository:
    """The hub's description, checked; `bad-hub-answer` where it is none."""
    if not isinstance(info, dict) or not isinstance(info.get("siblings"), list):
        raise client.bad_answer("it lists no files")
    commit, siblings = info.get("sha"), info["siblings"]
    if not isinstance(commit, str) or not COMMIT.fullmatch(commit):
        raise client.bad_answer("it does not name a commit")
    if len(siblings) > MAX_FILES:
        raise client.bad_answer(f"it lists more than {MAX_FILES} files")
    files = tuple(_file(client, entry) for entry in siblings)
    return Repository(client.hf_id, commit, files, _licence(info))


def _file(client: HubClient, entry: Any) -> HubFile:
    path = entry.get("rfilename") if isinstance(entry, dict) else None
    if not isinstance(path, str) or not safe_path(path):
        raise client.bad_answer(f"it lists a file {printable(str(path), 80)!r}, which leaves its folder")
    lfs = entry.get("lfs") if isinstance(entry.get("lfs"), dict) else {}
    size, sha256 = lfs.get("size", entry.get("size")), lfs.get("sha256") or lfs.get("oid") or ""
    whole = isinstance(size, int) and not isinstance(size, bool) and 0 <= size < 2**50
    named = isinstance(sha256, str) and _SHA256.fullmatch(sha256)
    return HubFile(path, size if whole else -1, sha256 if named else "")


def safe_path(path: str) -> bool:
    """Whether a hub's file name stays in the folder that it is written to, on any system."""
    parts = PurePosixPath(path).parts
    plain = 0 < len(path) <= 300 and path.isprintable() and not re.search(r'[\\:*?"<>|~]', path)
    return plain and not path.startswith("/") and all(part.strip(". ") for part in parts) and path == "/".join(parts)


def _licence(info: Mapping[str, Any]) -> str:
    """The card's licence: its own name where it has one (`license: other`), else the tag; `unknown`: never guessed."""
    raw = info.get("cardData")
    card = raw if isinstance(raw, dict) else {}
    said = card.get("license")
    if said == "other" and isinstance(card.get("license_name"), str):
        said = card["license_name"]
    if not isinstance(said, str):
        tags = info.get("tags")
        listed = [tag for tag in (tags if isinstance(tags, list) else []) if isinstance(tag, str)]
        said = next((tag.partition(":")[2] for tag in listed[:1000] if tag.startswith("license:")), "unknown")
    return printable(said, 60).strip().lower() or "unknown"


class Reader:
    """The files of one commit: kept ones from disk, others by request. `client` None: nothing may be requested."""

    def __init__(self, client: HubClient | None, repository: Repository, folder: Path) -> None:
        self.client, self.repository, self.folder = client, repository, folder

    def size(self, path: str) -> int:
        """Of the whole file; asked for where the list does not say it."""
        file = self.repository.file(path)
        if file is not None and file.bytes >= 0:
            return file.bytes
        return self.part(path, 0, 1)[1]

    def part(self, path: str, start: int, stop: int) -> tuple[bytes, int]:
        if self.client is None:
            message = (
                f"{self.repository.hf_id} was not read to its end before, and nothing may be downloaded (offline)."
            )
            raise AdvisorError("not-cached", message, "plan it once with the network, or name a local folder or file")
        file = self.repository.file(path)
        if file is not None and file.bytes == 0:
            return b"", 0
        found, size = self.client.read(self.repository.commit, path, start, stop)
        if file is not None and file.bytes not in (-1, size):
            raise self.client.bad_answer(f"{path} has {size} bytes and is listed with {file.bytes}")
        return found, size

    def keep(self, path: str, limit: int, *, cut: bool = False) -> Path:
        """A small file, whole; with `cut`, no more of it than `limit`."""
        kept = self.folder / path
        if not kept.is_file():
            size = self.size(path)
            if size > limit and not cut:
                raise self.bad(f"its {path} is too large")
            body = self.part(path, 0, min(size, limit))[0] if size else b""
            with atomic_write(kept, "wb") as file:
                file.write(body)
        return kept

    def keep_header(self, path: str) -> None:
        """A safetensors file up to the end of its header."""
        kept = self.folder / path
        if kept.is_file():
            return
        head, size = self.part(path, 0, _FIRST_BYTES)
        length = 8 + int.from_bytes(head[:8], "little")
        if not 10 <= length <= min(size, MAX_HEADER_BYTES):
            raise self.bad(f"{path} has no valid safetensors header")
        if length > len(head):
            head += self.part(path, len(head), length)[0]
        with atomic_write(kept, "wb") as file:
            file.write(head[:length])

    def bad(self, what: str) -> AdvisorError:
        hint = "look for another copy or conversion of the model"
        return AdvisorError("bad-checkpoint", f"{self.repository.hf_id}: {what}.", hint)


class Growing(RawIOBase):
    """The beginning of a hub's file as a binary file: what is kept is read from disk, more is requested and kept."""

    def __init__(self, reader: Reader, path: str, kept: Path, size: int) -> None:
        self._reader, self._path, self._size = reader, path, size
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            self._file = kept.open("a+b")
        except OSError as error:
            raise file_error(error, kept) from error
        self._have, self._at = min(self._file.seek(0, 2), size), 0

    def seek(self, offset: int, whence: int = 0) -> int:
        assert whence == 0
        self._at = offset
        return offset

    def read(self, size: int = -1) -> bytes:
        stop = min(self._size, self._at + max(0, size))
        while self._have < stop:
            block, _ = self._reader.part(self._path, self._have, min(self._size, self._have + _GGUF_STEP))
            self._file.write(block)
            self._file.flush()
            self._have += len(block)
        self._file.seek(self._at)
        found = self._file.read(stop - self._at)
        self._at += len(found)
        return found

    def close(self) -> None:
        self._file.close()
        super().close()
