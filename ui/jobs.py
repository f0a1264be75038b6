"""Runs that outlive whoever started them: `advisor run` as a detached process, watched through its folder.

A run lies in `runs/NAME` of the user's data folder; NAME is all that a page ever says of it, and it cannot leave that
folder. What a run is doing is read from its files: the lock (who works in it), `progress.json.partial` (which step, how
far), `report.json` (how it ended). So a page that is closed, reloaded or restarted loses nothing.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from advisor.plan import Plan
from executors.folder import RunFolder, existing_folder, open_folder, owner
from knowledge.base import EXIT_STEP_FAILED, AdvisorError, advisor_home, read_json, write_json

PROGRESS = "progress.json.partial"  # a temporary name: the run removes what it finds under one
State = Literal["running", "passed", "failed", "inconclusive", "error", "interrupted", "stopped"]
Event = dict[str, Any]
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,120}")
_EVERY_SECONDS = 0.3
_LOG_BYTES = 20_000


@dataclass(frozen=True, slots=True)
class Run:
    """A run as its files tell it now. `stopped`: nobody works on it, and it has no report."""

    name: str
    folder: Path
    state: State
    plan: dict[str, Any]
    progress: dict[str, Any]
    report: dict[str, Any] | None


def runs_folder() -> Path:
    return advisor_home() / "runs"


def new_name(model: str) -> str:
    """The name of a new run, telling when and what: `20261123-101500-qwen2.5-0.5b-instruct`."""
    slug = re.sub(r"[^a-z0-9.]+", "-", model.lower()).strip("-.")[:60]
    base = f"{time.strftime('%Y%m%d-%H%M%S')}-{slug}"
    names = (base, *(f"{base}-{number}" for number in range(2, 1000)))
    return next(name for name in names if not (runs_folder() / name).exists())


def start(plan: Plan) -> str:
    """Run `plan` in a new folder, climbing its ladder; the run's name. Returns at once."""
    assert plan.plan is not None
    name = new_name(plan.plan.model)
    folder = open_folder(runs_folder() / name)
    write_json(folder.path("plan.json"), plan.as_json())
    _spawn(folder)
    return name


def resume(name: str) -> None:
    """Go on with a run that nobody works on; its finished steps are kept."""
    folder = _folder(name)
    if owner(folder) is None:
        _spawn(folder)


def cancel(name: str) -> None:
    """Ask the process that works on the run to stop; what it finished is kept."""
    pid = owner(_folder(name))
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


def read(name: str) -> Run:
    """The run's state; AdvisorError `not-a-run` where there is none of this name."""
    folder = _folder(name)
    plan, report = _document(folder, "plan.json"), _document(folder, "report.json")
    state: State = "running" if owner(folder) is not None else report["status"] if report else "stopped"
    progress = _document(folder, PROGRESS) or {}
    return Run(name, folder.root, state, plan or {}, progress, None if state == "running" else report)


def list_runs() -> list[Run]:
    """Every run, the newest first."""
    root = runs_folder()
    names = [path.name for path in root.iterdir() if (path / "plan.json").is_file()] if root.is_dir() else []
    named = sorted((name for name in names if _NAME.fullmatch(name)), key=lambda n: -_changed(root / n))
    return [read(name) for name in named]


def log(name: str) -> str:
    """The end of what the run's process said."""
    path = _log_path(_folder(name))
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _LOG_BYTES))
        return file.read().decode("utf-8", "replace")


def paper(name: str, relative: str) -> bytes:
    """A paper of the run, such as `report.html`: only those that a run leaves behind, for downloading."""
    if relative not in ("plan.json", "report.json", "report.md", "report.html", "checklist.json", "checklist.md"):
        raise AdvisorError("bad-path", f"{relative!r} is no paper of a run.", "download one that the page lists")
    path = _folder(name).path(relative)
    return path.read_bytes() if path.is_file() else b""


@contextlib.contextmanager
def recorded(run_dir: Path, listener: Callable[[Event], None]) -> Iterator[Callable[[Event], None]]:
    """`listener`, with each event also kept in the run's folder for those who watch it."""
    path = run_dir / PROGRESS
    now: dict[str, Any] = {"steps": [], "notes": []}
    written = 0.0

    def listen(event: Event) -> None:
        nonlocal written
        listener(event)
        _take(now, event)
        moment = time.monotonic()
        if run_dir.is_dir() and (event["type"] != "progress" or moment - written > _EVERY_SECONDS):
            with contextlib.suppress(AdvisorError):  # a full disk is the run's to tell
                write_json(path, now)
            written = moment

    try:
        yield listen
    finally:
        if written:  # else it is another run's
            with contextlib.suppress(OSError):
                path.unlink()


def _take(now: dict[str, Any], event: Event) -> None:
    """Bring `now` up to `event` (executors.runner.run_plan says which there are)."""
    if event["type"] == "step":
        title = event.get("title") or event["id"]
        if event["state"] == "started":
            now.update(title=title, index=event["index"], total=event["total"], share=None, text="", since=time.time())
            now["estimate_seconds"] = event.get("estimate_seconds")
        else:
            now["steps"].append({"title": title, "state": event["state"], "seconds": event.get("seconds")})
    elif event["type"] == "progress":
        total = event.get("total") or 0
        now.update(share=min(1.0, event.get("done", 0) / total) if total else None, text=event.get("text", ""))
    else:
        now["notes"].append(event.get("text", ""))


def _folder(name: str) -> RunFolder:
    if not _NAME.fullmatch(name) or (runs_folder() / name).is_symlink():
        raise AdvisorError("not-a-run", f"There is no run {name!r}.", "choose one that the page lists")
    return existing_folder(runs_folder() / name)


def _changed(folder: Path) -> float:
    return (folder / "plan.json").stat().st_mtime


def _document(folder: RunFolder, relative: str) -> dict[str, Any] | None:
    """A JSON object of the run; None where it is missing, or being replaced at this moment."""
    try:
        document = read_json(folder.path(relative), "run file")
    except AdvisorError:
        return None
    return document if isinstance(document, dict) else None


def _log_path(folder: RunFolder) -> Path:
    return advisor_home() / "jobs" / f"{folder.root.name}.log"


def _spawn(folder: RunFolder) -> None:
    path = _log_path(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "ui.cli", "run", str(folder.root), "--escalate"]
    environment = {**os.environ, "NO_COLOR": "1", "ADVISOR_HOME": str(advisor_home())}
    try:
        with path.open("ab") as out:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment, start_new_session=True
            )
    except OSError as error:
        message = f"The run could not be started: {error}."
        raise AdvisorError("not-started", message, "see `advisor doctor`", EXIT_STEP_FAILED) from error
    _await_lock(folder, process)


def _await_lock(folder: RunFolder, process: subprocess.Popen[bytes]) -> None:
    """Wait until the process works in the folder or has ended, so that the next look sees it."""
    for _ in range(100):
        if owner(folder) is not None or process.poll() is not None:
            return
        time.sleep(0.1)
