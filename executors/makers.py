"""The worker that makes files for a run's steps, kept from one step to the next where starting it anew is slow.

Olive takes four seconds to import, and as much again to touch its memory for the first time. So the one that built the
reference waits, while that is scored, for the quantization that follows.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from executors.folder import discard, staging
from executors.interpreters import interpreter_for
from executors.process import Watch, Worker, WorkerResult, resident_bytes


class Makers:
    """At most one idle worker, which must not hold more than `most_idle_bytes` of memory (0: none is kept)."""

    def __init__(self, most_idle_bytes: int = 0) -> None:
        self._most_idle_bytes = most_idle_bytes
        self._idle: _Maker | None = None

    def ask(
        self,
        framework: str,
        request: Mapping[str, Any],
        watch: Watch,
        *,
        worker: str = "",
        scratch: Path | None = None,
        keep: bool = False,
    ) -> WorkerResult:
        """The answer of the framework's worker (of `worker`, in its interpreter): of the idle one where there is one.

        `scratch` is where a temporary folder may lie whose path the worker gets as `scratch`; it ends with the worker.
        `keep`: another request for it is to come. Raises as Worker.ask. A framework need not tell how far it is.
        """
        name = worker or framework
        if self._idle is not None and (self._idle.name != name or self._idle.worker.process.poll() is not None):
            self.close()
        maker, self._idle = self._idle or _Maker(framework, name, watch.log_path, scratch), None
        keep = keep and self._most_idle_bytes > 0
        try:
            done = maker.worker.ask({**request, **maker.place}, watch.patient, stay=keep)
            if keep and resident_bytes(maker.worker.process.pid) <= self._most_idle_bytes:
                self._idle = maker
            return done
        finally:
            if self._idle is None:
                maker.close()

    def close(self) -> None:
        """End the idle worker, if there is one."""
        if self._idle is not None:
            self._idle.close()
            self._idle = None


class _Maker:
    """A worker and its temporary folder."""

    def __init__(self, framework: str, name: str, log_path: Path, scratch: Path | None) -> None:
        self.name = name
        self._scratch = staging(scratch) if scratch else None
        if self._scratch is not None:
            self._scratch.mkdir()
        self.place = {"scratch": str(self._scratch.absolute())} if self._scratch else {}
        try:
            self.worker = Worker(interpreter_for(framework), name, log_path)
        except BaseException:
            self._tidy()
            raise

    def close(self) -> None:
        self.worker.__exit__()
        self._tidy()

    def _tidy(self) -> None:
        if self._scratch is not None:
            discard(self._scratch)
