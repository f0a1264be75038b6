"""Start a framework worker, watch it, end it: the only place where this process meets a framework.

A worker is a folder run by its path (`python -I executors/worker FRAMEWORK`). It gets a request as one JSON line on
stdin and answers with JSON lines on stdout; what native code prints goes to a log. It runs in a session of its own and
is killed with everything that it started on success, failure, breach, cancel and interrupt. It watches its stdin, so it
also ends when this process is killed. Clocks here are monotonic: setting the wall clock changes nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from executors.interpreters import install_hint
from knowledge.base import (
    EXIT_INTERRUPTED,
    EXIT_STEP_FAILED,
    EXIT_TOOLCHAIN_MISSING,
    MIB,
    AdvisorError,
    file_error,
    format_bytes,
    printable,
)
from knowledge.tables import extensions

WORKER = Path(__file__).resolve().parent / "worker"

POLL_SECONDS = 0.05
GRACE_SECONDS = 2.0  # from the worker's last word to its end
MAX_LINE_BYTES = 8 * MIB
MAX_LOG_BYTES = 64 * MIB
_EVENTS = ("progress", "metric", "result", "error")
_CODE = re.compile(r"[a-z][a-z0-9-]{0,47}")

Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class WorkerResult:
    """What a worker answered. `seconds` is its whole life, start included (of one that stayed for the request, the
    request's time); `peak_rss_bytes` the larger of what it says of itself and what was sampled (of one that stayed, the
    latter); `exit_code` negative for a signal after the answer was complete."""

    result: dict[str, Any]
    seconds: float
    peak_rss_bytes: int
    exit_code: int


@dataclass(frozen=True, slots=True)
class Watch:
    """Who listens to a worker, and what one request may take.

    `log_path` is appended to; `on_event` gets each `progress` ({"done", "total", "text"}) and `metric` event as it
    comes. `silence_limit_seconds` is the longest time without one. `rss_limit_bytes` bounds resident memory, which is
    looked at now and then, `address_limit_bytes` what the worker can map (both None: unbounded). Setting `cancel` ends
    the worker.
    """

    log_path: Path
    on_event: Callable[[Event], None]
    time_limit_seconds: float
    silence_limit_seconds: float
    rss_limit_bytes: int | None
    cancel: threading.Event | None
    address_limit_bytes: int | None = None

    @property
    def patient(self) -> Watch:
        """The same for work that cannot tell how far it is: silence is bounded by time alone."""
        return replace(self, silence_limit_seconds=self.time_limit_seconds)


def run_worker(
    python: Path, framework: str, request: Mapping[str, Any], watch: Watch, *, worker: Path = WORKER
) -> WorkerResult:
    """Run one `request` ({"op": ..., ...}) in a fresh worker and return its answer: Worker.ask, then the end."""
    with Worker(python, framework, watch.log_path, worker=worker) as fresh:
        return fresh.ask(request, watch)


class Worker:
    """A worker process, for one or several requests, one after the other. Never leaves a process.

    A context manager. `log_path` is appended to. Raises `toolchain-missing` where it cannot be started.
    """

    def __init__(self, python: Path, framework: str, log_path: Path, *, worker: Path = WORKER) -> None:
        self.framework, self.log_path = framework, log_path
        self._born = time.perf_counter()
        self._fresh = True
        self._lines: queue.Queue[bytes | None] = queue.Queue(maxsize=256)
        self._log = _open_log(log_path)
        self.process = _spawn(python, worker, framework, self._log)
        self._threads = [_started(_read, self.process, self._lines)]

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        _end(self.process, self._threads, self._lines)
        self._log.close()

    def ask(self, request: Mapping[str, Any], watch: Watch, *, stay: bool = False) -> WorkerResult:
        """The answer to `request` ({"op": ..., ...}). Blocks. The worker ends after it, unless it shall `stay` for
        another one; after an error it is of no more use.

        Raises AdvisorError with EXIT_STEP_FAILED: `worker-died` (names the signal), `worker-hung` (time or silence),
        `worker-memory` (resident memory), `worker-protocol` (not JSON, too long, no answer), `worker-error` or the
        worker's own code with the worker's own sentence; `toolchain-missing` with EXIT_TOOLCHAIN_MISSING when the
        framework does not import there; `cancelled` with EXIT_INTERRUPTED. KeyboardInterrupt passes through.
        """
        asked = time.perf_counter()
        fresh, self._fresh = self._fresh, False
        asking = {**request, "limits": {"address_bytes": watch.address_limit_bytes}, "stay": stay}
        if watch.log_path != self.log_path:
            self._log.close()
            self._log, self.log_path = _open_log(watch.log_path), watch.log_path
            asking["log"] = str(self.log_path.absolute())
        document = json.dumps(asking).encode() + b"\n"
        self._threads.append(_started(_write, self.process, document))
        log_start = os.fstat(self._log.fileno()).st_size
        peak, answer, heard, ended_at = 0, None, asked, None
        while answer is None:
            now = time.perf_counter()
            peak = max(peak, resident_bytes(self.process.pid))
            if watch.cancel is not None and watch.cancel.is_set():
                raise AdvisorError("cancelled", "Cancelled.", "run again to go on", EXIT_INTERRUPTED)
            if watch.rss_limit_bytes is not None and peak > watch.rss_limit_bytes:
                raise _memory_error(peak, watch.rss_limit_bytes)
            if now - asked > watch.time_limit_seconds:
                raise _hung(f"was not done after {watch.time_limit_seconds:.0f} s")
            if now - heard > watch.silence_limit_seconds:
                raise _hung(f"said nothing for {watch.silence_limit_seconds:.0f} s")
            if os.fstat(self._log.fileno()).st_size - log_start > MAX_LOG_BYTES:
                raise _protocol(f"printed more than {format_bytes(MAX_LOG_BYTES)}")
            try:
                line = self._lines.get(timeout=POLL_SECONDS)
            except queue.Empty:
                # A process that the worker left behind may hold the pipe open: the worker's end is enough.
                if self.process.poll() is None:
                    continue
                ended_at = ended_at or now
                if now - ended_at < 4 * POLL_SECONDS:
                    continue
                line = None
            if line is None:
                break
            heard = time.perf_counter()
            answer = _handle(line, self.framework, watch.on_event)
        if answer is None or not stay:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(GRACE_SECONDS)
        if answer is None:
            raise _ended_early(self.process, self.log_path, log_start)
        whole_life = answer.pop("peak_rss_bytes", 0)
        peak = max(peak, whole_life if fresh else 0)
        if watch.rss_limit_bytes is not None and peak > watch.rss_limit_bytes:
            raise _memory_error(peak, watch.rss_limit_bytes)
        if self.process.returncode is None and not stay:
            _kill(self.process)
        return WorkerResult(
            answer, time.perf_counter() - (self._born if fresh else asked), peak, self.process.returncode or 0
        )


def _open_log(path: Path) -> IO[bytes]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return open(path, "ab", opener=_not_a_link)
    except OSError as error:
        raise file_error(error, path) from error


def _not_a_link(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def _spawn(python: Path, worker: Path, framework: str, log: IO[bytes]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            [str(python), "-I", str(worker), framework, *_own_worker(framework)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            bufsize=0,
            cwd=worker.parent,
            start_new_session=True,
        )
    except OSError as error:
        log.close()
        message, hint = f"Cannot start {python}: {error.strerror}.", "install the toolchain again"
        raise AdvisorError("toolchain-missing", message, hint, EXIT_TOOLCHAIN_MISSING) from error


def _own_worker(framework: str) -> list[str]:
    """The worker file of a framework of the user's own (docs/adding-a-framework.md)."""
    folder = extensions().get(framework)
    return [str(folder / "worker.py")] if folder else []


def _started(work: Callable[..., None], *arguments: Any) -> threading.Thread:
    thread = threading.Thread(target=work, args=arguments, daemon=True)
    thread.start()
    return thread


def _write(process: subprocess.Popen[bytes], document: bytes) -> None:
    """Write a request, which a worker that does not read must not be able to stop.

    stdin stays open: its end is how the worker learns that this process is gone.
    """
    assert process.stdin is not None
    view = memoryview(document)
    with contextlib.suppress(OSError, ValueError):
        while view:
            view = view[os.write(process.stdin.fileno(), view) :]


def _read(process: subprocess.Popen[bytes], lines: queue.Queue[bytes | None]) -> None:
    """Put each line of the answers in `lines`, and None at the end. Ends with the pipe.

    A line over MAX_LINE_BYTES is put as it is, cut, so that it is refused.
    """
    assert process.stdout is not None
    pending = b""
    with contextlib.suppress(OSError, ValueError):
        while chunk := os.read(process.stdout.fileno(), 1 << 16):
            *whole, pending = (pending + chunk).split(b"\n")
            for line in whole:
                lines.put(line)
            if len(pending) > MAX_LINE_BYTES:
                break
    if pending:
        lines.put(pending)
    lines.put(None)


def _handle(line: bytes, framework: str, on_event: Callable[[Event], None]) -> dict[str, Any] | None:
    """The result if `line` is one; None for events that are passed on. AdvisorError for errors and for garbage."""
    try:
        event = json.loads(line) if len(line) <= MAX_LINE_BYTES else None
    except (ValueError, RecursionError):
        event = None
    if not isinstance(event, dict) or event.get("type") not in _EVENTS:
        raise _protocol(f"wrote what is not a message: {line[:80].decode('utf-8', 'replace')!r}")
    if event["type"] == "error":
        raise _worker_error(event, framework)
    if event["type"] == "result":
        result = event.get("result")
        if not isinstance(result, dict):
            raise _protocol("answered without a result")
        return result
    on_event({key: printable(value, 200) if isinstance(value, str) else value for key, value in event.items()})
    return None


def resident_bytes(pid: int) -> int:
    """Resident memory of `pid` in bytes; 0 when it is gone."""
    if sys.platform == "linux":
        try:
            return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError):
            return 0
    import psutil  # only where there is no /proc: 20 ms

    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the worker and its whole group, and collect it."""
    if sys.platform == "win32":
        process.kill()
    else:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _end(
    process: subprocess.Popen[bytes], threads: Sequence[threading.Thread], lines: queue.Queue[bytes | None]
) -> None:
    """Kill the worker and what it started, close the pipes."""
    _kill(process)
    for _ in range(20):
        for thread in threads:
            thread.join(POLL_SECONDS)
        if not any(thread.is_alive() for thread in threads):
            break
        with contextlib.suppress(queue.Empty):
            while True:
                lines.get_nowait()
    # A stranger that escaped the group may still hold a pipe: closing a descriptor under a thread could let it touch
    # another file, so then it is left to the thread.
    if not any(thread.is_alive() for thread in threads):
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def _worker_error(event: Event, framework: str) -> AdvisorError:
    code = event.get("code")
    code = code if isinstance(code, str) and _CODE.fullmatch(code) else "worker-error"
    message = str(event.get("message") or "The worker failed without a reason.")
    if code == "toolchain-missing":
        return AdvisorError(code, message, install_hint(framework), EXIT_TOOLCHAIN_MISSING)
    return AdvisorError(code, message, "the step's log has the details", EXIT_STEP_FAILED)


def _ended_early(process: subprocess.Popen[bytes], log_path: Path, log_start: int) -> AdvisorError:
    """The error for a worker that closed its stdout without an answer."""
    code = process.returncode
    if code is None:
        return _protocol("closed its output and went on")
    if code == 0:
        return _protocol("ended without an answer")
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        cause = "probably out of memory" if name == "SIGKILL" else _last_words(log_path, log_start)
        message = f"The worker was killed ({name})" + (f": {cause}." if cause else ".")
    else:
        words = _last_words(log_path, log_start)
        message = f"The worker ended with status {code}" + (f": {words}." if words else ".")
    return AdvisorError("worker-died", message, "the step's log has the details", EXIT_STEP_FAILED)


def _last_words(log_path: Path, log_start: int) -> str:
    """The last failed assertion in the new part of the log, else its last line; at most 200 characters.

    The folder where the framework was built is left out.
    """
    with log_path.open("rb") as log:
        size = log.seek(0, os.SEEK_END)
        log.seek(max(log_start, size - 8192))
        lines = [line.strip() for line in log.read().decode("utf-8", "replace").splitlines() if line.strip()]
    asserted = [line for line in lines if "ASSERT" in line]
    words = re.sub(r"\S*/(?=[\w.-]+:\d+: )", "", (asserted or lines or [""])[-1])
    return printable(words, 200).rstrip(".")


def _hung(what: str) -> AdvisorError:
    return AdvisorError(
        "worker-hung", f"The worker {what} and was ended.", "the step's log has the details", EXIT_STEP_FAILED
    )


def _protocol(what: str) -> AdvisorError:
    hint = "this is a defect of the worker or its framework: the step's log has the details"
    return AdvisorError("worker-protocol", f"The worker {what}.", hint, EXIT_STEP_FAILED)


def _memory_error(used: int, limit: int) -> AdvisorError:
    message = f"The worker used {format_bytes(used)} of memory, over its limit of {format_bytes(limit)}."
    return AdvisorError("worker-memory", message, "plan for a smaller precision or context", EXIT_STEP_FAILED)
