"""The run folder (DESIGN sections 1 and 6): where everything of a run lies, how files get there whole or not at all.

    RUN/plan.json                final once written        RUN/work/       inputs, reference, one folder per rung
    RUN/steps/NN-name/           status, log, metrics      RUN/artifact/   what the run makes
    RUN/report.{json,md,html}    RUN/checklist.{json,md}   RUN/manifest.json

A step is done when its `status.json` says so: that file is written last, by renaming. Whatever is not finished has a
name that ends in `.partial`. Nothing outside the folder is written, and symbolic links in it are refused.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from advisor.plan import inside
from knowledge.base import (
    EXIT_STEP_FAILED,
    AdvisorError,
    atomic_write,
    file_error,
    format_bytes,
    read_error,
    read_json,
    write_json,
)

KEY_VERSION = 1
PARTIAL = ".partial"
LOCK = ".lock"
_CHUNK_BYTES = 4 * 2**20
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LOCKED_BYTE = 4096  # Windows locks bytes against readers too: one that lies beyond the process id


@dataclass(frozen=True, slots=True)
class StepStatus:
    """What `status.json` of a step says. `outputs` maps paths (relative to the run folder) to their SHA-256; `key` is
    the hash of everything that the step depends on; `metrics` is what the step measured."""

    status: Literal["running", "done", "failed"]
    key: str
    outputs: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    peak_rss_bytes: int = 0
    attempts: int = 1
    metrics: dict[str, Any] = field(default_factory=dict)
    message: str = ""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A run's folder by its real path. `path` is the only way from a plan's path to a path of this machine."""

    root: Path

    def path(self, relative: str) -> Path:
        """`relative` in the folder; AdvisorError `bad-path` if it would leave it or passes through a symbolic link."""
        try:
            inside(relative)
        except ValueError as error:
            raise AdvisorError("bad-path", f"{error}.", "make the plan anew with: advisor plan") from error
        current = self.root
        for part in PurePosixPath(relative).parts:
            current /= part
            _refuse_link(current)
        return current

    def relative(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def step(self, name: str) -> Path:
        """The folder of a step, whose files are appended to: `bad-path` where one of them is a symbolic link."""
        folder = self.path(f"steps/{name}")
        for path in folder.iterdir() if folder.is_dir() else ():
            _refuse_link(path)
        return folder


def _refuse_link(path: Path) -> None:
    if path.is_symlink():
        raise AdvisorError(
            "bad-path",
            f"{path} is a symbolic link, and advisor follows none in a run folder.",
            "remove the link and run again",
        )


def open_folder(path: Path) -> RunFolder:
    """The run folder at `path`, made if need be. Refuses a folder that holds something else (`not-a-run`)."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        root = path.resolve(strict=True)
        ours = (root / "plan.json").is_file()
        foreign = [] if ours else [e.name for e in os.scandir(root) if e.name != LOCK and not e.name.endswith(PARTIAL)]
    except FileExistsError as error:
        raise AdvisorError("not-a-run", f"{path} is a file, not a folder.", "name a new folder") from error
    except OSError as error:
        raise file_error(error, path) from error
    if foreign:
        raise AdvisorError("not-a-run", f"{path} is not empty and holds no run.", "name a new or empty folder")
    return RunFolder(root)


def existing_folder(path: Path) -> RunFolder:
    """The folder of an existing run; AdvisorError `not-a-run` where there is none."""
    if not (path / "plan.json").is_file():
        raise AdvisorError(
            "not-a-run", f"{path} holds no run: it has no plan.json.", "name the folder of an advisor run"
        )
    return RunFolder(path.resolve())


def resuming(path: Path | str) -> str:
    """The command that goes on with the run in `path`, quoted for a shell."""
    return shlex.join(["advisor", "run", str(path)])


@contextlib.contextmanager
def locked(folder: RunFolder) -> Iterator[None]:
    """Hold the folder for this process. The system drops the lock with the process, however that ends.

    Raises AdvisorError `run-in-progress` when another process holds it.
    """
    path = folder.root / LOCK
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
    except OSError as error:
        raise file_error(error, path) from error
    try:
        if not _try_lock(handle, path):
            owner = os.read(handle, 32).decode("ascii", "replace").strip() or "unknown"
            raise AdvisorError(
                "run-in-progress",
                f"Another advisor (process {owner}) is working in {folder.root}.",
                "wait for it to end, or name another folder",
            )
        os.ftruncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode("ascii"))
        yield
    finally:
        os.close(handle)


def owner(folder: RunFolder) -> int | None:
    """The id of the process that works in the folder now; None where nobody does."""
    path = folder.root / LOCK
    try:
        handle = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return None
    try:
        if _try_lock(handle, path):
            return None
        said = os.read(handle, 32).decode("ascii", "replace").strip()
        return int(said) if said.isdecimal() else None
    finally:
        os.close(handle)


def _try_lock(handle: int, path: Path) -> bool:
    """Whether the lock is ours now, and nobody else's; AdvisorError where the file system gives none."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(handle, _LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
            os.lseek(handle, 0, os.SEEK_SET)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):
            raise file_error(error, path) from error
        return False
    return True


def remove_partials(folder: RunFolder) -> int:
    """Remove what killed runs left under temporary names; how many there were. Call under the lock."""
    count = 0
    for base, folders, files in os.walk(folder.root):
        for name in [name for name in folders if name.endswith(PARTIAL)]:
            folders.remove(name)
            discard(Path(base, name))
            count += 1
        for name in files:
            if name.endswith(PARTIAL):
                Path(base, name).unlink(missing_ok=True)
                count += 1
    return count


def staging(final: Path) -> Path:
    """A temporary sibling of `final`, its folder made. The name is new each time: a worker that outlives a killed run
    for a moment never writes into the file of the next one."""
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise file_error(error, final.parent) from error
    return final.with_name(f".{final.name}.{secrets.token_hex(4)}{PARTIAL}")


def publish(temporary: Path, final: Path) -> None:
    """Give a finished file or folder its final name, replacing what was there, after it has reached the disk."""
    try:
        for path in [temporary, *temporary.rglob("*")] if temporary.is_dir() else [temporary]:
            _sync(path)
        if final.is_dir():
            discard(final)
        temporary.replace(final)
        _sync(final.parent)
    except OSError as error:
        raise file_error(error, final) from error


def discard(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def link_or_copy(source: Path, final: Path) -> None:
    """Make `final` the same file as `source`: a hard link in the run folder, a copy where the file system has none."""
    temporary = staging(final)
    try:
        os.link(source, temporary)
    except OSError:
        copy_file(source, temporary)
    publish(temporary, final)


def copy_file(source: Path, target: Path, on_fraction: Callable[[float], None] = lambda _: None) -> str:
    """Copy the bytes of `source` to the new file `target`, reading once; their SHA-256."""
    digest = hashlib.sha256()
    done = 0
    try:
        with source.open("rb") as reader, target.open("xb") as writer:
            total = os.fstat(reader.fileno()).st_size or 1
            while chunk := reader.read(_CHUNK_BYTES):
                digest.update(chunk)
                writer.write(chunk)
                done += len(chunk)
                on_fraction(min(1.0, done / total))
    except OSError as error:
        target.unlink(missing_ok=True)
        raise (read_error(error, source) if error.filename == str(source) else file_error(error, target)) from error
    return digest.hexdigest()


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file, read in pieces."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise read_error(error, path) from error


def sha256_tree(folder: RunFolder, relative: str) -> dict[str, str]:
    """The SHA-256 of the file at `relative`, or of every file below it, by path relative to the run folder."""
    top = folder.path(relative)
    paths = sorted(top.rglob("*")) if top.is_dir() else [top]
    return {
        name: sha256_file(folder.path(name))
        for name in map(folder.relative, paths)
        if not folder.path(name).is_dir() and not name.endswith(PARTIAL)
    }


def step_key(settings: dict[str, Any], inputs: dict[str, str], framework_version: str) -> str:
    """The hash of all that decides a step's result: settings, content of its inputs, framework, this layout."""
    return _digest(
        {"version": KEY_VERSION, "settings": settings, "inputs": inputs, "framework_version": framework_version}
    )


def _digest(document: dict[str, Any]) -> str:
    """The SHA-256 of a document's canonical JSON."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def write_status(step: Path, status: StepStatus) -> None:
    document = asdict(status)
    write_json(step / "status.json", {**document, "digest": _digest(document)})


def read_status(step: Path) -> StepStatus | None:
    """The status of a step; None where there is none or it is not what `write_status` wrote (`digest` tells)."""
    if not (step / "status.json").is_file():
        return None
    try:
        document = read_json(step / "status.json", "step status")
        if document.pop("digest") != _digest(document):
            return None
        status = StepStatus(**document)
        for path, sha256 in status.outputs.items():
            inside(path)
            if not _SHA256.fullmatch(sha256):
                return None
    except (AdvisorError, KeyError, TypeError, ValueError, AttributeError):
        return None
    return status


def damaged_outputs(folder: RunFolder, status: StepStatus) -> list[str]:
    """The outputs of a finished step that are missing or no longer what it wrote. Reads them whole."""
    return [
        path
        for path, sha256 in status.outputs.items()
        if not folder.path(path).is_file() or sha256_file(folder.path(path)) != sha256
    ]


def require_disk(folder: RunFolder, need_bytes: int, what: str) -> None:
    """AdvisorError `disk-full` when `what` needs more than is free where the run lies."""
    free = shutil.disk_usage(folder.root).free
    if need_bytes > free:
        raise AdvisorError(
            "disk-full",
            f"{what} needs {format_bytes(need_bytes)} of disk, and {folder.root} has {format_bytes(free)} free.",
            "free some space, or name a folder on another disk with --workdir",
            EXIT_STEP_FAILED,
        )


def write_text(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text)


def _sync(path: Path) -> None:
    """fsync of a file, and of a folder where the system knows that."""
    if path.is_dir() and sys.platform == "win32":
        return
    handle = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
