"""Do one job, or find that it is done: keys, verification, temporary names, status, what is told to the caller."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from advisor.plan import AcquireSettings, GuideSettings, PackageSettings
from executors.acquire import acquire, source_bytes
from executors.download import download
from executors.executor import Executor, Task
from executors.folder import (
    RunFolder,
    StepStatus,
    damaged_outputs,
    discard,
    publish,
    read_status,
    require_disk,
    sha256_tree,
    staging,
    step_key,
    write_status,
)
from executors.makers import Makers
from executors.process import Event, Watch
from executors.schedule import Job
from knowledge.base import EXIT_STEP_FAILED, AdvisorError, file_error

TIME_LIMIT_SECONDS = (1800.0, 86400.0)  # the least and the most that a step gets; in between, 20 times its estimate
SILENCE_LIMIT_SECONDS = 600.0
IDLE_SHARE = 0.1  # of the memory that a worker may hold: more than this is not left to one that waits for its next step

Make = Callable[[Path], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class StepRecord:
    """A line of the report's `steps`. A rung's steps carry its number; `id` is the plan's."""

    id: str
    kind: str
    status: Literal["done", "failed", "skipped", "cached"]
    seconds: float
    peak_rss_bytes: int
    attempts: int
    rung: int | None = None


@dataclass
class StepRunner:
    """Performs jobs in one run folder, in order. `outputs` maps the path of each thing made to its files' hashes,
    `metrics` each finished job's name to what it measured; `total` is how many jobs are expected, for progress."""

    folder: RunFolder
    executor: Executor
    version: str
    threads: int
    rss_limit_bytes: int | None
    emit: Callable[[Event], None]
    cancel: threading.Event | None
    total: int
    outputs: dict[str, dict[str, str]] = field(default_factory=dict)
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    records: list[StepRecord] = field(default_factory=list)
    makers: Makers = field(init=False)

    def __post_init__(self) -> None:
        self.makers = Makers(round(IDLE_SHARE * (self.rss_limit_bytes or 0)))

    def close(self) -> None:
        """End what waits for a step that does not come."""
        self.makers.close()

    def perform(self, job: Job, *, make: Make | None = None, depends: Mapping[str, str] | None = None) -> None:
        """Do `job` unless a finished status with the same key and intact files says that it is done.

        `make` makes the output of a package job; `depends` are hashes that its key needs beyond the job's inputs.
        """
        if isinstance(job.settings, GuideSettings):
            self.skip(job)
            return
        step = self.folder.step(job.name)
        hashes = {
            f"{role}:{path}": digest for role, top in job.inputs.items() for path, digest in self.outputs[top].items()
        }
        made = job.made.model_dump(mode="json") if job.made else None
        settings = {**job.settings.model_dump(mode="json"), "made": made}
        key = step_key(settings, {**hashes, **(depends or {})}, self.version)
        before = read_status(step)
        if before is None and (step / "status.json").exists():
            self.note(f"{job.step.id}: its status is damaged; it is done again.")
        elif before is not None and before.status == "done":
            reason = self._why_again(before, key)
            if reason is None:
                self._keep(job, before, "cached")
                return
            self.note(f"{job.step.id}: {reason}; it is done again.")
        running = StepStatus("running", key, attempts=before.attempts + 1 if before is not None else 1)
        write_status(step, running)
        self._tell(job, "started")
        started = time.perf_counter()
        try:
            metrics = self._do(job, step, make)
            files = sha256_tree(self.folder, job.output) if job.output else {}
        except AdvisorError as error:
            failed = replace(running, status="failed", seconds=time.perf_counter() - started, message=error.message)
            if error.code != "cancelled":
                write_status(step, failed)
                self._record(job, failed, "failed")
            raise
        peak = int(metrics.get("peak_rss_bytes", 0))
        done = StepStatus("done", key, files, time.perf_counter() - started, peak, running.attempts, metrics)
        write_status(step, done)
        self._keep(job, done, "done")

    def skip(self, job: Job) -> None:
        self._record(job, StepStatus("done", "", attempts=0), "skipped")

    def note(self, text: str) -> None:
        self.emit({"type": "note", "text": text})

    def _why_again(self, status: StepStatus, key: str) -> str | None:
        """Why a finished step cannot be relied on; None when it can."""
        if status.key != key:
            return "its inputs or its framework are not those it ran with"
        damaged = damaged_outputs(self.folder, status)
        return f"{damaged[0]} is missing or not what the step wrote" if damaged else None

    def _do(self, job: Job, step: Path, make: Make | None) -> dict[str, Any]:
        """Run the job into temporary names and publish what it made; what it measured."""
        final = self.folder.path(job.output) if job.output else None
        temporary = staging(final) if final else None
        try:
            metrics = self._execute(job, step, temporary, make)
            if final is not None and temporary is not None:
                if not temporary.exists():
                    message = f"Step {job.step.id} ended well and made nothing."
                    raise AdvisorError("step-failed", message, "the step's log has the details", EXIT_STEP_FAILED)
                publish(temporary, final)
        finally:
            if temporary is not None:
                discard(temporary)
        return metrics

    def _execute(self, job: Job, step: Path, temporary: Path | None, make: Make | None) -> dict[str, Any]:
        if isinstance(job.settings, PackageSettings):
            assert temporary is not None
            assert make is not None
            return make(temporary)
        if isinstance(job.settings, AcquireSettings):
            assert temporary is not None
            return self._acquire(job, job.settings, temporary)
        assert not isinstance(job.settings, GuideSettings)
        paths = {role: self.folder.path(path) for role, path in job.inputs.items()}
        if temporary is not None:
            paths["output"] = temporary
        least, most = TIME_LIMIT_SECONDS
        watch = Watch(
            log_path=step / "log.txt",
            on_event=lambda event: self._hear(job, step, event),
            time_limit_seconds=min(most, max(least, 20 * (job.step.estimate.seconds or 0))),
            silence_limit_seconds=SILENCE_LIMIT_SECONDS,
            rss_limit_bytes=self.rss_limit_bytes,
            cancel=self.cancel,
        )
        return self.executor.run(Task(job.settings, paths, self.threads, watch, job.made, self.makers))

    def _acquire(self, job: Job, settings: AcquireSettings, temporary: Path) -> dict[str, Any]:
        source, tell = settings.source, partial(self._progress, job)
        if source.kind == "hub":
            return download(source, temporary, tell, self.note, self.cancel, offline=settings.offline)
        require_disk(self.folder, source_bytes(source), "A copy of the model")
        return acquire(source, temporary, lambda share: self._progress(job, share, 1.0, "copying"))

    def _hear(self, job: Job, step: Path, event: Event) -> None:
        """Pass a worker's progress on; keep its metrics in metrics.jsonl."""
        if event.get("type") == "progress":
            self._progress(job, event.get("done", 0), event.get("total", 1), str(event.get("text", "")))
        elif event.get("type") == "metric":
            try:
                with (step / "metrics.jsonl").open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"name": event.get("name"), "value": event.get("value")}) + "\n")
            except OSError as error:
                raise file_error(error, step / "metrics.jsonl") from error

    def _progress(self, job: Job, done: float, total: float, text: str) -> None:
        self.emit({"type": "progress", "id": job.step.id, "done": done, "total": total, "text": text})

    def _keep(self, job: Job, status: StepStatus, state: Literal["done", "cached"]) -> None:
        if job.output:
            self.outputs[job.output] = status.outputs
        self.metrics[job.name] = status.metrics
        self._record(job, status, state)

    def _record(self, job: Job, status: StepStatus, state: Literal["done", "failed", "skipped", "cached"]) -> None:
        seconds = round(status.seconds, 3)
        record = StepRecord(
            job.step.id, job.step.kind, state, seconds, status.peak_rss_bytes, status.attempts, job.rung
        )
        self.records.append(record)
        self._tell(job, state, seconds)

    def _tell(self, job: Job, state: str, seconds: float = 0.0) -> None:
        self.emit(
            {
                "type": "step",
                "state": state,
                "id": job.step.id,
                "title": job.step.title or job.step.id,
                "rung": job.rung or 0,
                "index": len(self.records) + (state == "started"),
                "total": max(self.total, len(self.records)),
                "seconds": seconds,
                "estimate_seconds": job.step.estimate.seconds,
            }
        )
