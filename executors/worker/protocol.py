"""The worker's side of the conversation: a JSON request on stdin, JSON lines on a private copy of stdout.

    request   {"op": NAME, "limits": {"address_bytes": N | null}, "stay": false, ...}   one line
              (also "log": a file that it prints to from now on; "blas_threads": of numpy, by the first request)
    answer    {"type": "progress", "done": 3, "total": 10, "text": "..."}          any number
              {"type": "metric", "name": "...", "value": ...}                      any number
              {"type": "result", "result": {..., "peak_rss_bytes": N}}             one of these two, last
              {"type": "error", "code": "kebab-case", "message": "One sentence."}

The worker ends after an answer, unless it was asked to `stay`: then it waits for another request. After an error it
ends in any case. Its peak of memory is that of its life.

Descriptors 1 and 2, where native code prints, go to the log that the parent gave as stderr; descriptor 0 becomes
/dev/null. A thread watches the private stdin: when it closes, the parent is gone, and the worker and what it started
end at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import math
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Request = Mapping[str, Any]
Operation = Callable[[Request], dict[str, Any]]

MAX_REQUEST_BYTES = 16 * 1024**2
PROGRESS_SECONDS = 0.1
_PR_SET_PDEATHSIG = 1  # linux/prctl.h

_channel = -1
_last_progress = -math.inf


class WorkerError(Exception):
    """What the parent shall say: a stable kebab-case `code` and one sentence."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def answer(load_operations: Callable[[], Mapping[str, Operation]]) -> None:
    """Read requests, run their operations, write the answers, and leave without running exit handlers.

    `load_operations` imports the framework; it is called after the limits are set. Never returns.
    """
    global _channel
    pipe, _channel = _take_pipes()
    _die_with_parent()
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(pipe, lines), daemon=True).start()
    operations: Mapping[str, Operation] | None = None
    try:
        while True:
            request = _parsed(lines.get())
            _limit_address_space(request)
            _print_to(request)
            if operations is None:
                # Of numpy's BLAS, before it is imported: few workers use it, and its threads cost 0.1 s.
                os.environ.setdefault("OPENBLAS_NUM_THREADS", str(request.get("blas_threads", 1)))
                operations = _loaded(load_operations)
            operation = operations.get(str(request.get("op")))
            if operation is None:
                raise WorkerError("worker-error", f"There is no operation {request.get('op')!r}.")
            result = operation(request)
            _send({"type": "result", "result": {**result, "peak_rss_bytes": peak_rss_bytes()}})
            if not request.get("stay"):
                break
            del result
        status = 0
    except WorkerError as error:
        _log_traceback()
        status = _fail(error.code, error.message)
    except OSError as error:
        _log_traceback()
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        status = _fail("disk-full" if full else "worker-error", "No space is left to write." if full else str(error))
    except MemoryError:
        _log_traceback()
        status = _fail("worker-memory", "The worker ran out of the memory that it was allowed.")
    except BaseException as error:
        _log_traceback()
        status = _fail("worker-error", f"{type(error).__name__}: {error}")
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    os._exit(status)  # native teardown after a finished answer can only do harm


def _loaded(load_operations: Callable[[], Mapping[str, Operation]]) -> Mapping[str, Operation]:
    try:
        return load_operations()
    except ImportError as error:
        raise WorkerError("toolchain-missing", f"The framework does not import: {error}.") from error


def _log_traceback() -> None:
    """To the log; the disk that it lies on may be what is full."""
    with contextlib.suppress(OSError):
        traceback.print_exc()


def progress(done: float, total: float, text: str) -> None:
    """Tell how far the operation is, at most every PROGRESS_SECONDS and at the end."""
    global _last_progress
    now = time.monotonic()
    if done >= total or now - _last_progress >= PROGRESS_SECONDS:
        _last_progress = now
        _send({"type": "progress", "done": done, "total": total, "text": text})


def metric(name: str, value: Any) -> None:
    _send({"type": "metric", "name": name, "value": value})


def peak_rss_bytes() -> int:
    """The largest resident memory of this process so far, in bytes."""
    with contextlib.suppress(OSError, StopIteration, ValueError):
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return int(next(line for line in status if line.startswith("VmHWM:")).split()[1]) * 1024
    if sys.platform == "win32":
        return 0  # the parent samples
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


def _send(event: Mapping[str, Any]) -> None:
    view = memoryview(json.dumps(event, allow_nan=False).encode() + b"\n")
    while view:
        view = view[os.write(_channel, view) :]


def _fail(code: str, message: str) -> int:
    _send({"type": "error", "code": code, "message": " ".join(message.split())[:600]})
    return 1


def _take_pipes() -> tuple[int, int]:
    requests, channel = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    return requests, channel


def _print_to(request: Request) -> None:
    if log := request.get("log"):
        handle = os.open(str(log), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        for descriptor in (1, 2):
            os.dup2(handle, descriptor)
        os.close(handle)


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        request = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise WorkerError("worker-error", "The request is not JSON.") from error
    if not isinstance(request, dict):
        raise WorkerError("worker-error", "The request is not an object.")
    return request


def _listen(pipe: int, lines: queue.SimpleQueue[bytes]) -> None:
    """Put each request in `lines`; when the pipe ends, the parent is gone, and this process and its group end."""
    with contextlib.suppress(OSError), os.fdopen(pipe, "rb") as stream:
        for line in iter(lambda: stream.readline(MAX_REQUEST_BYTES + 1), b""):
            lines.put(line)
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)


def _die_with_parent() -> None:
    """On Linux also ask the kernel, for native code that holds the interpreter's lock."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _limit_address_space(request: Request) -> None:
    limits = request.get("limits")
    size = limits.get("address_bytes") if isinstance(limits, dict) else None
    if size and sys.platform != "win32":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        with contextlib.suppress(ValueError, OSError):  # macOS refuses; the parent watches resident memory anyway
            resource.setrlimit(resource.RLIMIT_AS, (int(size), hard))
