"""SIGKILL of a run at any moment: no finished step is lost, nothing half-written has a final name, no process stays."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from fake_run import MACHINE, MOMENTS, PLANNED, FakeExecutor, fake_model, fake_plan

from executors.folder import RunFolder, damaged_outputs, locked, open_folder, read_status
from executors.runner import run_plan
from knowledge.base import AdvisorError
from ui.jobs import PROGRESS, recorded

pytestmark = pytest.mark.skipif(os.name != "posix", reason="kills by signal")


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    assert kill_until(5, tmp_path, seed=0) == 5


def test_a_kill_when_a_step_starts_or_ends_loses_nothing(tmp_path: Path) -> None:
    kill_at(["acquire.0:started", "reference.0:done", "quantize.1:started", "package.0:done"], tmp_path)


@pytest.mark.parametrize("state", ["started", "done"])
def test_an_interrupted_climb_keeps_the_report_as_a_killed_one_does(state: str, tmp_path: Path) -> None:
    plan, executor = fake_plan(fake_model(tmp_path / "model.gguf"), *PLANNED), FakeExecutor(tmp_path / "pids")
    first = run_plan(plan, tmp_path / "run", machine=MACHINE, executor=executor)
    before = {name: (tmp_path / "run" / name).read_bytes() for name in ("report.json", "report.md", "report.html")}

    def interrupt(event: dict[str, Any]) -> None:
        if (event["type"], event.get("rung"), event.get("state")) == ("step", 1, state):
            raise KeyboardInterrupt

    with pytest.raises(AdvisorError) as stopped:
        run_plan(plan, tmp_path / "run", machine=MACHINE, executor=executor, escalate=True, on_event=interrupt)
    assert (first["status"], stopped.value.code) == ("failed", "interrupted")
    assert {name: (tmp_path / "run" / name).read_bytes() for name in before} == before


def test_a_climb_that_did_the_first_rung_again_does_not_keep_its_report(tmp_path: Path) -> None:
    plan, executor = fake_plan(fake_model(tmp_path / "model.gguf"), *PLANNED), FakeExecutor(tmp_path / "pids")
    run_plan(plan, tmp_path / "run", machine=MACHINE, executor=executor)
    (tmp_path / "run/work/rungs/0/model.gguf").unlink()
    executor.fail = {"smoke": "It broke."}
    (tmp_path / "run/steps/05-smoke/status.json").unlink()
    with pytest.raises(AdvisorError):
        run_plan(plan, tmp_path / "run", machine=MACHINE, executor=executor, escalate=True)
    assert json.loads((tmp_path / "run/report.json").read_text())["status"] == "error"


def test_a_refused_second_run_leaves_the_progress_of_the_first(tmp_path: Path) -> None:
    plan, folder = fake_plan(fake_model(tmp_path / "model.gguf")), open_folder(tmp_path / "run")

    def run() -> None:
        with recorded(folder.root, lambda event: None) as listen:
            run_plan(plan, folder.root, machine=MACHINE, executor=FakeExecutor(tmp_path / "pids"), on_event=listen)

    progress = folder.root / PROGRESS
    progress.write_text("{}")
    with locked(folder), pytest.raises(AdvisorError, match="Another advisor"):
        run()
    assert progress.exists()
    run()
    assert not progress.exists()


@pytest.mark.slow
def test_two_hundred_kills_lose_nothing(tmp_path: Path) -> None:
    kills = len(MOMENTS)
    kill_at(MOMENTS, tmp_path)
    for seed in range(1000, 1100):
        if kills >= 200:
            break
        folder = tmp_path / str(seed)
        folder.mkdir()
        kills += kill_until(25, folder, seed)
    assert kills >= 200


def kill_until(most: int, folder: Path, seed: int) -> int:
    """Start a run again and again, killing it at random moments, then let it end; how often it was killed."""
    draw = random.Random(seed)
    model, run = fake_model(folder / "model.gguf"), folder / "run"
    done: dict[str, bytes] = {}
    kills = 0
    while kills < most:
        process = start(run, model)
        time.sleep(draw.uniform(0.15, 0.75))
        ended = process.poll() is not None
        process.send_signal(signal.SIGKILL)
        process.wait()
        done = check(run, done)
        if ended:
            break
        kills += 1
    end(run, model, done)
    return kills


def kill_at(moments: list[str], folder: Path) -> None:
    """Let a run kill itself at each moment in turn, then let it end."""
    model, run = fake_model(folder / "model.gguf"), folder / "run"
    done: dict[str, bytes] = {}
    for moment in moments:
        assert start(run, model, moment).wait(60) == -signal.SIGKILL, moment
        done = check(run, done)
    end(run, model, done)


def end(run: Path, model: Path, done: dict[str, bytes]) -> None:
    assert start(run, model).wait(120) == 0
    check(run, done)
    wait_for_no_orphans(run.with_suffix(".pids"))
    assert json.loads((run / "report.json").read_text())["status"] == "passed"
    assert not list(run.rglob("*.partial"))
    checklist = json.loads((run / "checklist.json").read_text())
    assert {item["status"] for item in checklist["items"] if item["kind"] == "automatic"} == {"pass"}


def start(run: Path, model: Path, *moment: str) -> subprocess.Popen[bytes]:
    script = Path(__file__).with_name("fake_run.py")
    command = [sys.executable, str(script), str(run), str(model), "0.06", *moment]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def check(run: Path, before: dict[str, bytes]) -> dict[str, bytes]:
    """The statuses of finished steps; those of `before` are among them unchanged, and what they wrote is whole."""
    done = {}
    for path in run.glob("steps/*/status.json"):
        status = read_status(path.parent)
        assert status is not None, path
        if status.status == "done":
            assert damaged_outputs(RunFolder(run), status) == []
            done[path.parent.name] = path.read_bytes()
    assert {name: done.get(name) for name in before} == before
    for path in (*run.glob("*.json"), *run.glob("artifact/SHA256SUMS")):
        assert path.read_text().endswith("\n"), path
    return done


def wait_for_no_orphans(pids: Path) -> None:
    """Every worker that was ever started ends with its parent, within moments."""
    workers = [int(line) for line in pids.read_text().split()]
    end = time.monotonic() + 10
    while alive := [pid for pid in workers if is_worker(pid)]:
        assert time.monotonic() < end, alive
        time.sleep(0.05)


def is_worker(pid: int) -> bool:
    try:
        return b"fake_worker.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
