"""What every floor shares: the error type, exit codes, sizes in bytes, the user's data folder, atomic writes."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

GIB = 1024**3
MIB = 1024**2

EXIT_OK = 0
EXIT_BAD_INPUT = 2
EXIT_NEEDS_INPUT = 3
EXIT_INFEASIBLE = 4
EXIT_GATE_FAILED = 5
EXIT_TOOLCHAIN_MISSING = 6
EXIT_STEP_FAILED = 7
EXIT_INTERRUPTED = 130


class AdvisorError(Exception):
    """A failure that a person can act on: what happened (`message`), what to do next (`hint`).

    `code` is a stable kebab-case word for programs; `exit_code` is the process's exit code. Raised where the cause is
    known, shown in one place (ui.cli). Neither sentence may contain control characters from untrusted input: they are
    replaced here.
    """

    def __init__(self, code: str, message: str, hint: str, exit_code: int = EXIT_BAD_INPUT) -> None:
        super().__init__(message)
        self.code = code
        self.message = printable(message)
        self.hint = printable(hint)
        self.exit_code = exit_code

    def as_json(self) -> dict[str, Any]:
        """The error document of the contract (DESIGN section 2)."""
        return {"status": "error", "error": {"code": self.code, "message": self.message, "hint": self.hint}}


def printable(text: str, limit: int = 600) -> str:
    """`text` on one line with control, bidi and other unprintable characters replaced, cut at `limit` characters."""
    clean = "".join(c if c.isprintable() else " " if c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return clean if len(clean) <= limit else clean[: limit - 1] + "\N{HORIZONTAL ELLIPSIS}"


_SIZE = re.compile(
    r"\s*(?P<number>\d+(?:\.\d+)?|\.\d+)\s*(?P<unit>[kmgt]?)(?P<binary>i?)(?P<byte>b?)\s*", re.IGNORECASE
)
_POWER = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_MAX_SIZE = 2**60


def parse_size(text: str, option: str, *, decimal: bool = False) -> int:
    """A size such as `8GB`, `8GiB`, `8192MB` or `8` (GB), in bytes.

    Every unit is binary (the marketing 8 GB is 8 GiB), unless `decimal`: then GB is 10^9 and GiB stays 2^30.
    Raises AdvisorError `bad-size` naming `option` for anything else, zero, or more than an exbibyte.
    """
    match = _SIZE.fullmatch(text)
    hint = f"write {option} as a number with a unit, for example 8GB or 512MB"
    if not match:
        raise AdvisorError("bad-size", f"{option}: {text!r} is not a size.", hint)
    unit = match["unit"].lower()
    plain_bytes = not unit and match["byte"] and not match["binary"]
    power = 0 if plain_bytes else _POWER[unit or "g"]
    base = 1000 if decimal and not match["binary"] else 1024
    size: float = float(match["number"]) * base**power
    if not math.isfinite(size) or not 1 <= size <= _MAX_SIZE:
        raise AdvisorError("bad-size", f"{option}: {text!r} is out of range.", hint)
    return round(size)


def format_bytes(size: float) -> str:
    """`size` bytes for people, in binary units: `1.5 GiB`, `98.0 MiB`."""
    for unit, scale in (("TiB", 1024**4), ("GiB", GIB), ("MiB", MIB), ("KiB", 1024)):
        if abs(size) >= scale:
            return f"{size / scale:.2f} {unit}" if unit in ("GiB", "TiB") else f"{size / scale:.1f} {unit}"
    return f"{size:.0f} B"


def advisor_home() -> Path:
    """The user's data folder: `ADVISOR_HOME`, else where platformdirs says. Not created here."""
    if home := os.environ.get("ADVISOR_HOME"):
        return Path(home).expanduser()
    from platformdirs import user_data_path  # imported late: 15 ms that most commands do not need

    return user_data_path("edge-advisor", appauthor=False)


def exists(path: Path) -> bool:
    """Whether there is a `path`, as far as this user may see: unlike Path.exists, it raises nothing."""
    try:
        path.stat()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def atomic_write(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Write a file that appears under its final name whole or not at all.

    Writes to a sibling ending in `.partial`, flushes, fsyncs, renames. On any failure the sibling is removed; an
    OSError becomes one AdvisorError (`unwritable`, `disk-full`).
    """
    import tempfile  # imported late: 6 ms that only writers need

    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
        temporary = Path(name)
        text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
        with os.fdopen(handle, mode, **text) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
        temporary = None
    except OSError as error:
        raise file_error(error, path) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_json(path: Path, document: Any) -> None:
    """Write `document` as indented JSON, atomically, refusing NaN and infinities."""
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    with atomic_write(path) as file:
        file.write(text + "\n")


def file_error(error: OSError, path: Path) -> AdvisorError:
    """The sentence for an operating system error at `path`."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return AdvisorError(
            "disk-full", f"No space left to write {path}.", "free some space, or name another folder", EXIT_STEP_FAILED
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return AdvisorError("unwritable", f"No permission to write {path}.", "name a folder that you may write to")
    reason = error.strerror or type(error).__name__
    return AdvisorError("file-error", f"{path}: {reason}.", "check the path and try again")


def read_error(error: OSError, path: Path) -> AdvisorError:
    """The sentence for what keeps `path` from being read."""
    reason = error.strerror or type(error).__name__
    return AdvisorError("unreadable", f"Cannot read {path}: {reason}.", "check the path and its permissions")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def read_json(path: Path, what: str, *, limit_bytes: int = 32 * MIB) -> Any:
    """The JSON document in `path`, at most `limit_bytes` large. Raises AdvisorError `bad-json` naming `what`."""
    hint = f"name a {what} written by advisor"
    try:
        if path.is_dir():
            raise AdvisorError("bad-json", f"{path} is a folder, not a {what}.", hint)
        if path.stat().st_size > limit_bytes:
            raise AdvisorError("bad-json", f"{path} is too large for a {what}.", hint)
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError as error:
        raise AdvisorError("not-found", f"There is no {what} at {path}.", "check the path") from error
    except OSError as error:
        raise read_error(error, path) from error
    except (ValueError, RecursionError) as error:
        raise AdvisorError("bad-json", f"{path} is not a valid {what}: {error}.", hint) from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
