"""Run a plan: lock its folder, do what is not done yet, climb the ladder, report.

`plan.json` is written first and is final. A step that finished is verified (its key, and the content of what it wrote)
and never repeated; one that did not leaves nothing under a final name. So a run that was killed at any moment goes on
where it was, and running a finished folder again only checks it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from advisor.plan import Plan, Work, load_plan
from executors import closing, packaging, report
from executors.executor import Executor, executor_for
from executors.folder import (
    RunFolder,
    locked,
    open_folder,
    read_status,
    remove_partials,
    require_disk,
    resuming,
)
from executors.gates import evaluate, merit, status_of
from executors.process import Event
from executors.report import Identity, Outcome, Rung
from executors.schedule import Job, Schedule, resolved, rung_precision, schedule
from executors.steps import StepRunner
from knowledge.base import EXIT_INTERRUPTED, EXIT_STEP_FAILED, AdvisorError, file_error, format_bytes, write_json
from probes.profile import HardwareProfile

MEMORY_SHARE = 0.95  # of this machine's memory that a worker may hold: it ends before the system has to end something


def run_plan(
    plan: Plan,
    run_dir: Path,
    *,
    machine: HardwareProfile,
    escalate: bool = False,
    on_event: Callable[[Event], None] = lambda _: None,
    cancel: threading.Event | None = None,
    executor: Executor | None = None,
) -> dict[str, Any]:
    """Run `plan` in `run_dir`, or go on with it there; the report (DESIGN section 6).

    `machine` is the one this runs on, as probed. `escalate` climbs the ladder while a required gate does not pass.
    `on_event` gets `{"type": "step", "state": "started|done|cached|failed|skipped", "id", "title", "rung", "index",
    "total", "seconds", "estimate_seconds"}` (the plan's, or None), `{"type": "progress", "id", "done", "total",
    "text"}`, `{"type": "rung", "rung", "precision", "text"}` and `{"type": "note", "text"}`.

    A gate that does not pass is in the report, no error. Raises AdvisorError: what a step failed with (exit 6 or 7),
    `interrupted` (exit 130, after Ctrl-C or `cancel`), `run-in-progress`, `other-plan`, `bad-plan`, `disk-full`.
    """
    jobs = schedule(plan)
    assert plan.plan is not None
    executor = executor or executor_for(plan.plan.framework, plan.plan.kind)
    folder = open_folder(run_dir)

    def emit(event: Event) -> None:
        with contextlib.suppress(BrokenPipeError):  # whoever listened has left, and the run goes on
            on_event(event)

    with locked(folder):
        run = _begin(folder, plan, plan.plan, jobs, executor, machine, escalate, emit, cancel)
        try:
            return run.complete(machine)
        except KeyboardInterrupt:
            raise run.stopped("interrupted", _interrupted(folder)) from None
        except OSError as error:
            raise run.stopped("error", file_error(error, Path(error.filename or folder.root))) from error
        except AdvisorError as error:
            if error.code == "cancelled":
                raise run.stopped("interrupted", _interrupted(folder)) from error
            raise run.stopped("error", error) from None
        finally:
            run.steps.close()


def _begin(
    folder: RunFolder,
    plan: Plan,
    work: Work,
    jobs: Schedule,
    executor: Executor,
    machine: HardwareProfile,
    escalate: bool,
    emit: Callable[[Event], None],
    cancel: threading.Event | None,
) -> _Run:
    """Clear what a killed run left, make sure of the plan and the run's identity."""
    try:
        remove_partials(folder)
    except OSError as error:
        raise file_error(error, Path(error.filename or folder.root)) from error
    _write_plan(folder, plan)
    previous = report.stored(folder)
    finished = previous is not None and (previous["status"] == "passed" or not escalate)
    identity = report.identify(folder, plan, machine, lambda: executor.version, finished=finished)
    memory = machine.main_memory
    steps = StepRunner(
        folder,
        executor,
        version=identity.framework_version,
        threads=max(1, min(work.threads, os.cpu_count() or 1)),
        rss_limit_bytes=int(MEMORY_SHARE * (memory.limit_bytes or memory.total_bytes)) if memory else None,
        emit=emit,
        cancel=cancel,
        total=len(jobs.shared) + len(jobs.rungs[0]) + 1,
    )
    return _Run(folder, plan, work, jobs, identity, escalate, steps, previous)


def _write_plan(folder: RunFolder, plan: Plan) -> None:
    """Write plan.json, or make sure that the one in the folder is this plan."""
    path = folder.path("plan.json")
    if not path.exists():
        write_json(path, plan.as_json())
    elif load_plan(path).as_json() != plan.as_json():
        raise AdvisorError(
            "other-plan",
            f"{folder.root} is the folder of a run with another plan.",
            f"go on with that one by: {resuming(folder.root)}, or name another folder",
        )


def _interrupted(folder: RunFolder) -> AdvisorError:
    message = "Interrupted; every finished step is kept."
    return AdvisorError("interrupted", message, f"go on with: {resuming(folder.root)}", EXIT_INTERRUPTED)


@dataclass
class _Run:
    """One pass over the jobs of a run; `rungs` are those tried in it, `measured` what a rung was made of, `previous` a
    finished report found there."""

    folder: RunFolder
    plan: Plan
    work: Work
    jobs: Schedule
    identity: Identity
    escalate: bool
    steps: StepRunner
    previous: dict[str, Any] | None
    rungs: list[Rung] = field(default_factory=list)
    measured: dict[str, Any] = field(default_factory=dict)

    def complete(self, machine: HardwareProfile) -> dict[str, Any]:
        """Everything from the first job to the report; the previous report where nothing was left to do."""
        self._require_disk()
        self._require_memory()
        for job in self.jobs.shared:
            self.steps.perform(job)
        chosen = self._climb()
        document = self._package(chosen)
        if self.previous is not None and self._all_cached() and closing.is_closed(self.folder):
            return {**self.previous, "steps": [asdict(record) for record in self.steps.records]}
        for note in closing.close(self.folder, document, self.steps.outputs, machine):
            self.steps.note(note)
        return document

    def stopped(self, status: str, error: AdvisorError) -> AdvisorError:
        """`error`, after the report says how far the run got: unless a finished one is there that still holds.

        A report that cannot be written hides no error.
        """
        if self.previous is not None and self._still_holds(self.previous):
            return error
        with contextlib.suppress(AdvisorError):
            closing.write_reports(self.folder, report.build(self._outcome(status, error=error)))
        return error

    def _still_holds(self, document: dict[str, Any]) -> bool:
        """Whether nothing that the report rests on was done again, whatever further rungs were begun."""
        rests_on = {None, *(rung["rung"] for rung in document["rungs"])}
        return all(r.status in ("cached", "skipped") or r.rung not in rests_on for r in self.steps.records)

    def _all_cached(self) -> bool:
        return all(record.status in ("cached", "skipped") for record in self.steps.records)

    def _require_disk(self) -> None:
        """Before anything runs: the space that the unfinished steps of the first choice need, as estimated."""
        jobs = (*self.jobs.shared, *self.jobs.rungs[0], self.jobs.package)
        unfinished = [job.step.estimate.disk_bytes or 0 for job in jobs if not self._is_done(job)]
        require_disk(self.folder, sum(unfinished), "This run")

    def _require_memory(self) -> None:
        """Before anything runs: the memory that making the first choice needs, as estimated."""
        limit = self.steps.rss_limit_bytes
        for job in (*self.jobs.shared, *self.jobs.rungs[0]):
            need = job.step.estimate.peak_ram_bytes or 0
            making = job.step.kind in ("convert", "quantize") and not self._is_done(job)
            if limit is not None and making and need > limit:
                raise AdvisorError(
                    "memory-short",
                    f"Step {job.step.id} needs about {format_bytes(need)} of memory, and a worker may have "
                    f"{format_bytes(limit)} here.",
                    "run this plan on a machine with more memory: the artifact will be the same",
                    EXIT_STEP_FAILED,
                )

    def _is_done(self, job: Job) -> bool:
        status = read_status(self.folder.step(job.name))
        return status is not None and status.status == "done"

    def _climb(self) -> int:
        """Try rungs until the required gates pass; the rung to keep. A rung that an earlier pass began is tried."""
        begun = [k for k, jobs in enumerate(self.jobs.rungs) if any(map(self._is_done, jobs))]
        last = len(self.jobs.rungs) - 1 if self.escalate else max(begun, default=0)
        for k in range(last + 1):
            if k:
                if k in self.jobs.searches and not self._search(k):
                    break
                rung = self.work.ladder[k - 1]
                text = f"{rung_precision(self.work, k - 1)} did not pass. {rung.why}"
                self.steps.emit({"type": "rung", "rung": k, "precision": rung.precision, "text": text})
                self.steps.total += len(self.jobs.rungs[k])
                require_disk(self.folder, rung.expected_bytes, rung.precision)
            self.rungs.append(self._try(k))
            if status_of(self.rungs[k].gates) == "passed":
                return k
        best = max(range(len(self.rungs)), key=lambda k: (merit(self.rungs[k].gates), -k))
        if not self.rungs[best].performance:
            self.rungs[best] = self._time(best)
        return best

    def _search(self, k: int) -> bool:
        """Measure what rung `k` shall be, and take it into the ladder; False, and the ladder ends there, where nothing
        was found that was not tried."""
        job = self.jobs.searches[k]
        self.steps.total += 1
        self.steps.perform(job)
        self.measured = self.steps.metrics[job.name]
        mix = self.measured["mix"]
        tried = {rung_precision(self.work, number).lower() for number in range(k)}
        if mix is None:
            self.steps.note("No mix of these types is small enough.")
        elif mix["precision"].lower() in tried:
            self.steps.note(f"The measured mix is {mix['precision']}, which was tried.")
            mix = None
        self.plan = resolved(self.plan, k, mix)
        assert self.plan.plan is not None
        self.work, self.jobs = self.plan.plan, schedule(self.plan)
        return mix is not None

    def _try(self, k: int) -> Rung:
        """Make and validate rung `k`; time it too, which takes longest, unless something required has failed."""
        for job in self.jobs.rungs[k]:
            if not job.is_benchmark:
                self.steps.perform(job)
        rung = self._judge(k)
        return self._time(k) if status_of(rung.gates) != "failed" else rung

    def _time(self, k: int) -> Rung:
        for job in self.jobs.rungs[k]:
            if job.is_benchmark:
                self.steps.perform(job)
        return self._judge(k)

    def _judge(self, k: int) -> Rung:
        validation, performance = report.measured(self.jobs.rungs[k], self.steps.metrics)
        size = sum(self.folder.path(path).stat().st_size for path in self._made(k))
        return Rung(k, size, validation, performance, tuple(evaluate(self.work.gates, validation, performance)))

    def _made(self, k: int) -> dict[str, str]:
        """The model files of rung `k` and their hashes."""
        return self.steps.outputs[self.jobs.artifacts[k]]

    def _package(self, chosen: int) -> dict[str, Any]:
        """Put the chosen rung's files under artifact/, with a card of what was measured; the report's document."""
        status = status_of(self.rungs[chosen].gates)
        card = packaging.model_card(report.build(self._outcome(status, chosen)))
        made = self.folder.path(self.jobs.artifacts[chosen])
        sources = {self.folder.path(path): sha256 for path, sha256 in self._made(chosen).items()}
        parameters = self.rungs[chosen].validation["integrity"].get("parameters", 0)
        source_name = self._source().get("name", "")
        name = packaging.artifact_name(self.work, source_name, parameters, rung_precision(self.work, chosen))
        self.steps.perform(
            self.jobs.package,
            make=lambda out: packaging.package(sources, name, card, out, made),
            depends={**self._made(chosen), "name": name, "card": hashlib.sha256(card.encode()).hexdigest()},
        )
        return report.build(self._outcome(status, chosen))

    def _source(self) -> dict[str, Any]:
        """What the acquire step found."""
        return next((self.steps.metrics.get(j.name, {}) for j in self.jobs.shared if j.step.kind == "acquire"), {})

    def _outcome(self, status: str, chosen: int | None = None, error: AdvisorError | None = None) -> Outcome:
        files = self.steps.outputs.get(self.jobs.package.output, {})
        artifact = [
            {"path": path, "bytes": self.folder.path(path).stat().st_size, "sha256": sha256}
            for path, sha256 in files.items()
        ]
        return Outcome(
            plan=self.plan,
            work=self.work,
            status=status,
            identity=self.identity,
            steps=tuple(self.steps.records),
            rungs=tuple(self.rungs),
            chosen=chosen,
            artifact=artifact,
            error=error,
            sensitivity=self.measured,
            source=self._source(),
        )
