"""Download a model of the Hugging Face hub: into Hugging Face's own cache, checked, then linked into the run folder.

Contract: a file is asked for once. What is in the cache is used; what a killed download left is gone on with (by
ranges); every file that the hub gives a SHA-256 for has it, or the run ends. The licence and the space that is needed
are told and checked before the first byte. The cache has huggingface_hub's own layout and locks, so other programs use
what was downloaded here, and the other way round.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from advisor.plan import ModelSource
from executors.checkpoint_files import checkpoint_files
from executors.folder import copy_file, sha256_file, write_text
from knowledge import hub_http
from knowledge.base import EXIT_INTERRUPTED, EXIT_STEP_FAILED, MIB, AdvisorError, file_error, format_bytes
from knowledge.hub import cached_snapshot, checkpoint_parts, read_repository
from knowledge.hub_files import safe_path
from knowledge.hub_http import HubClient, HubSettings, hub_settings
from knowledge.records import HubFile

LOCK_SECONDS = 3600.0
_TELL_BYTES = 4 * MIB
_WITH_NETWORK = "run it once with the network (planned without --offline, HF_HUB_OFFLINE unset)"
_AGAIN = {"hub-unreachable", "hub-busy"}

Tell = Callable[[float, float, str], None]


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a source comes to: a commit, its files, under which licence."""

    commit: str
    files: tuple[HubFile, ...]
    licence: str


def download(
    source: ModelSource,
    target: Path,
    tell: Tell,
    note: Callable[[str], None],
    cancel: threading.Event | None = None,
    *,
    offline: bool = False,
) -> dict[str, Any]:
    """Put the hub's model at `target`, a new file (GGUF) or folder (a checkpoint): `{"kind", "name", "hf_id",
    "revision", "bytes", "sha256"}`, the hash of a folder over its files' names and hashes.

    `tell` gets bytes done, bytes in all and words; `note` a sentence before the download. Raises AdvisorError:
    `gated-model`, `unknown-model`, `hub-busy`, `hub-unreachable`, `bad-hub-answer`, `not-cached` (offline),
    `hash-mismatch`, `disk-full`, `cancelled`; whatever was downloaded is kept.
    """
    settings = hub_settings(offline=offline)
    client = None if settings.offline else HubClient(settings, source.hf_id)
    wanted = _wanted(source, settings, client)
    home = settings.cache / f"models--{source.hf_id.replace('/', '--')}"
    snapshot = home / "snapshots" / wanted.commit
    absent = [file for file in wanted.files if not _is_there(snapshot / file.path, file)]
    missing = [file for file in absent if not _has_blob(home, file)]
    note(_announcement(source.hf_id, wanted, missing, settings))
    if missing and client is None:
        message = f"{len(missing)} files of {source.hf_id} are not in {settings.cache}, and nothing may be downloaded."
        raise AdvisorError("not-cached", message, _WITH_NETWORK, EXIT_STEP_FAILED)
    _require_space(home, wanted.commit, missing)
    total, done = float(sum(file.bytes for file in absent)), 0
    try:
        for file in absent:
            with _locked(settings.cache, home, file):
                if not _is_there(snapshot / file.path, file):
                    _place(client, wanted.commit, file, home, partial(_tell, tell, done, total), cancel)
            done += file.bytes
    except OSError as error:
        raise file_error(error, Path(error.filename or home)) from error
    if client is not None and not source.revision:
        write_text(home / "refs" / "main", wanted.commit)
    digest = _link_all(snapshot, wanted.files, target, tell)
    sizes = sum(file.bytes for file in wanted.files)
    name = source.hf_id.rpartition("/")[2] if len(wanted.files) > 1 else Path(wanted.files[0].path).name
    return {
        "kind": "hub", "name": name, "hf_id": source.hf_id, "revision": wanted.commit, "bytes": sizes, "sha256": digest,
    }  # fmt: skip


def _tell(tell: Tell, before: int, total: float, here: float) -> None:
    tell(before + here, total, "downloading")


def _wanted(source: ModelSource, settings: HubSettings, client: HubClient | None) -> _Wanted:
    """As the plan says, or else as the hub (offline: the cache) has the main branch now."""
    if source.revision and source.files:
        files = tuple(HubFile(file.path, file.bytes, file.sha256) for file in source.files)
        if not all(safe_path(file.path) for file in files):
            raise AdvisorError("bad-plan", "This plan names a file outside its model's folder.", "make the plan anew")
        return _Wanted(source.revision, files, source.licence)
    if client is not None:
        repository = read_repository(client, source.revision)
        return _Wanted(repository.commit, checkpoint_parts(repository), repository.licence)
    snapshot = cached_snapshot(settings, source.hf_id, source.revision)
    if snapshot is None:
        message = f"{source.hf_id} is not in {settings.cache}, and nothing may be downloaded (offline)."
        raise AdvisorError("not-cached", message, _WITH_NETWORK, EXIT_STEP_FAILED)
    found = tuple(
        HubFile(path.relative_to(snapshot).as_posix(), path.stat().st_size) for path in checkpoint_files(snapshot)
    )
    return _Wanted(snapshot.name, found, source.licence)


def _announcement(hf_id: str, wanted: _Wanted, missing: Sequence[HubFile], settings: HubSettings) -> str:
    size = sum(file.bytes for file in missing)
    what = f"{format_bytes(size)} to download to {settings.cache}" if missing else f"already in {settings.cache}"
    return f"{hf_id} @{wanted.commit[:8]}, licence {wanted.licence or 'unknown'}: {what}."


def _is_there(path: Path, file: HubFile) -> bool:
    try:
        return path.stat().st_size == file.bytes
    except OSError:
        return False


def _has_blob(home: Path, file: HubFile) -> bool:
    """Whether the cache has the file's content: another commit's, or a killed download's that had no name yet."""
    return bool(file.sha256) and _is_there(home / "blobs" / file.sha256, file)


def _require_space(home: Path, commit: str, missing: Sequence[HubFile]) -> None:
    """AdvisorError `disk-full` before the first byte."""
    need = sum(file.bytes - _size(_incomplete(home, commit, file)) for file in missing)
    if not need:
        return
    try:
        home.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(home).free
    except OSError as error:
        raise file_error(error, home) from error
    if need > free:
        message = f"The download needs {format_bytes(need)} of disk, and {home} has {format_bytes(free)} free."
        raise AdvisorError("disk-full", message, "free some space, or set HF_HOME to another disk", EXIT_STEP_FAILED)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _incomplete(home: Path, commit: str, file: HubFile) -> Path:
    """Where a download grows: named by its content, or else by commit and path, since commits differ in content."""
    name = file.sha256 or hashlib.sha256(f"{commit}/{file.path}".encode()).hexdigest()
    return home / "blobs" / f"{name}.advisor.incomplete"


@contextlib.contextmanager
def _locked(cache: Path, home: Path, file: HubFile) -> Iterator[None]:
    """One download of a file at a time, on the machine: huggingface_hub's own lock of it."""
    from filelock import FileLock, Timeout  # comes with huggingface_hub

    lock = cache / ".locks" / home.name / f"{file.sha256 or re.sub(r'[^A-Za-z0-9.]', '-', file.path)}.lock"
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(lock, timeout=LOCK_SECONDS).acquire()
    except Timeout as error:
        message = f"Another program is downloading {file.path} ({lock})."
        raise AdvisorError("download-in-progress", message, "wait for it and run again", EXIT_STEP_FAILED) from error
    except OSError as error:
        raise file_error(error, lock) from error
    with held:
        yield


def _place(
    client: HubClient | None,
    commit: str,
    file: HubFile,
    home: Path,
    tell: Callable[[float], None],
    cancel: threading.Event | None,
) -> None:
    """Give `file` its place in the commit's snapshot, downloaded unless the cache has its content."""
    if _has_blob(home, file):
        blob = home / "blobs" / file.sha256
    else:
        assert client is not None
        blob = _fetch(client, commit, file, home, tell, cancel)
    _point(home / "snapshots" / commit / file.path, blob)


def _fetch(
    client: HubClient,
    commit: str,
    file: HubFile,
    home: Path,
    tell: Callable[[float], None],
    cancel: threading.Event | None,
) -> Path:
    """Download `file`, going on with what a killed download left, and check it; its blob in the cache."""
    incomplete = _incomplete(home, commit, file)
    incomplete.parent.mkdir(parents=True, exist_ok=True)
    sha256 = hashlib.sha256()
    failures = 0
    with incomplete.open("a+b") as out:
        _take_up(out, sha256, file.bytes)
        while (have := out.tell()) < file.bytes:
            try:
                _stream(client, commit, file, out, sha256, tell, cancel)
            except AdvisorError as error:
                failures = 1 if out.tell() > have else failures + 1
                if error.code not in _AGAIN or failures >= hub_http.ATTEMPTS:
                    raise
                time.sleep(hub_http.BACKOFF_SECONDS * 2**failures)
        out.flush()
        os.fsync(out.fileno())
        if file.sha256 and sha256.hexdigest() != file.sha256:
            incomplete.unlink()
            message = f"{file.path} of {client.hf_id} is not what the hub lists: its SHA-256 is another one."
            raise AdvisorError("hash-mismatch", message, "run again to download it anew", EXIT_STEP_FAILED)
        out.seek(0)
        git = hashlib.sha1(b"blob %d\0" % file.bytes, usedforsecurity=False)
        blob = home / "blobs" / (file.sha256 or _digest(out, git))
    incomplete.replace(blob)
    return blob


def _digest(file: Any, digest: Any) -> str:
    while chunk := file.read(MIB):
        digest.update(chunk)
    return str(digest.hexdigest())


def _take_up(out: Any, sha256: Any, size: int) -> None:
    """Hash what is there already, and stand at its end; a file that is too long is begun anew."""
    out.seek(0, os.SEEK_END)
    if out.tell() > size:
        out.truncate(0)
    out.seek(0)
    _digest(out, sha256)


def _stream(
    client: HubClient,
    commit: str,
    file: HubFile,
    out: Any,
    sha256: Any,
    tell: Callable[[float], None],
    cancel: threading.Event | None,
) -> None:
    """One request for the rest of the file; AdvisorError where it breaks, with what came kept."""
    start = out.tell()
    told = start
    with client.stream(commit, file.path, start, file.bytes) as (begin, chunks):
        skip = start - begin  # a hub that sends the whole file again: what is here already is passed over
        for chunk in chunks:
            if cancel is not None and cancel.is_set():
                raise AdvisorError("cancelled", "Cancelled.", "run again to go on", EXIT_INTERRUPTED)
            fresh = chunk[skip:] if skip < len(chunk) else b""
            skip = max(0, skip - len(chunk))
            if out.tell() + len(fresh) > file.bytes:
                raise client.bad_answer(f"{file.path} is longer than it says")
            try:
                out.write(fresh)
            except OSError as error:
                raise file_error(error, Path(out.name)) from error
            sha256.update(fresh)
            if out.tell() - told >= _TELL_BYTES:
                told = out.tell()
                out.flush()
                tell(told)


def _point(place: Path, blob: Path) -> None:
    """Give a blob its name in the snapshot: a link, as huggingface_hub does, or a copy where there are no links."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    try:
        place.symlink_to(os.path.relpath(blob, place.parent))
    except OSError:
        try:
            os.link(blob, place)
        except OSError:
            copy_file(blob, place)


def _link_all(snapshot: Path, files: Sequence[HubFile], target: Path, tell: Tell) -> str:
    """The cache's files in the run folder, each checked; their hash."""
    if len(files) == 1 and files[0].path.lower().endswith(".gguf"):
        return _link(snapshot / files[0].path, target, files[0])
    digest = hashlib.sha256()
    target.mkdir()
    needed = {path.relative_to(snapshot).as_posix() for path in checkpoint_files(snapshot)}
    chosen = sorted((file for file in files if file.path in needed), key=lambda file: file.path)
    for number, file in enumerate(chosen):
        tell(number, len(chosen), "checking")
        (target / file.path).parent.mkdir(exist_ok=True)
        digest.update(f"{file.path}\n{_link(snapshot / file.path, target / file.path, file)}\n".encode())
    return digest.hexdigest()


def _link(cached: Path, target: Path, file: HubFile) -> str:
    """Hard links where the file system has them (nothing in a run writes to its sources), else copies."""
    real = cached.resolve()
    try:
        os.link(real, target)
        sha256 = sha256_file(target)
    except OSError:
        sha256 = copy_file(real, target)
    if file.sha256 not in ("", sha256):
        message = f"{cached} is not what the hub lists: its SHA-256 is another one."
        raise AdvisorError("hash-mismatch", message, "remove it from the cache and run again", EXIT_STEP_FAILED)
    return sha256
