"""Runs of a plan: what is done, kept, done again, climbed and refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from fake_run import MACHINE, FakeExecutor, fake_model, fake_plan

from advisor.plan import load_plan
from executors import history
from executors.folder import RunFolder, locked
from executors.runner import run_plan
from knowledge.base import AdvisorError

MIX = "Q8_0+ffn_gate=Q5_0"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return fake_model(tmp_path / "model.gguf")


@pytest.fixture
def executor(tmp_path: Path) -> FakeExecutor:
    return FakeExecutor(tmp_path / "pids")


def run(
    model: Path,
    folder: Path,
    executor: FakeExecutor,
    precision: str = MIX,
    ladder: tuple[str, ...] = (),
    **options: Any,
) -> Any:
    return run_plan(fake_plan(model, precision, ladder), folder, machine=MACHINE, executor=executor, **options)


def statuses(report: dict[str, Any]) -> dict[str, str]:
    return {step["id"] + (f".r{step['rung']}" if step["rung"] else ""): step["status"] for step in report["steps"]}


def events_of(model: Path, folder: Path, executor: FakeExecutor, **options: Any) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    run(model, folder, executor, on_event=events.append, **options)
    return events


def test_a_run_leaves_everything_that_the_contract_names(model: Path, tmp_path: Path, executor: FakeExecutor) -> None:
    report = run(model, tmp_path / "run", executor)
    assert report["status"] == "passed"
    for name in (
        "plan.json",
        "report.json",
        "report.md",
        "report.html",
        "checklist.json",
        "checklist.md",
        "manifest.json",
    ):
        assert (tmp_path / "run" / name).is_file(), name
    assert report == json.loads((tmp_path / "run/report.json").read_text())
    assert {"status", "outputs"} <= json.loads((tmp_path / "run/steps/03-quantize/status.json").read_text()).keys()


def test_a_second_run_of_a_finished_folder_does_nothing(model: Path, tmp_path: Path, executor: FakeExecutor) -> None:
    first = run(model, tmp_path / "run", executor)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*") if path.name != ".lock"}
    executor.ran.clear()
    second = run(model, tmp_path / "run", executor)
    assert executor.ran == []
    assert set(statuses(second).values()) == {"cached"}
    assert {**second, "steps": first["steps"]} == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*") if path.name != ".lock"} == before


def test_a_failed_step_is_reported_and_the_run_goes_on_after_it(
    model: Path, tmp_path: Path, executor: FakeExecutor
) -> None:
    executor.fail = {"smoke": "It broke."}
    with pytest.raises(AdvisorError) as failure:
        run(model, tmp_path / "run", executor)
    assert failure.value.exit_code == 7
    report = json.loads((tmp_path / "run/report.json").read_text())
    assert report["status"] == "error"
    assert report["error"]["message"] == "It broke."
    assert statuses(report)["smoke"] == "failed"
    executor.fail, executor.ran = {}, []
    report = run_plan(load_plan(tmp_path / "run" / "plan.json"), tmp_path / "run", machine=MACHINE, executor=executor)
    assert report["status"] == "passed"
    assert "quantize" not in executor.ran
    assert {step["id"]: step["attempts"] for step in report["steps"]}["smoke"] == 2


@pytest.mark.parametrize("path", ["work/reference.gguf", "work/rungs/0/model.gguf", "steps/02-convert/status.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_finished_step_is_noticed_and_done_again(
    path: str, damage: str, model: Path, tmp_path: Path, executor: FakeExecutor
) -> None:
    executor.fail = {"benchmark": "stop here"}
    with pytest.raises(AdvisorError):
        run(model, tmp_path / "run", executor)
    target = tmp_path / "run" / path
    content = target.read_bytes()
    middle = len(content) // 2
    if damage == "remove":
        target.unlink()
    elif damage == "truncate":
        target.write_bytes(content[:middle])
    else:
        target.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    executor.fail, executor.ran = {}, []
    events = events_of(model, tmp_path / "run", executor)
    assert ("quantize" if "model" in path else "convert") in executor.ran
    told = any("done again" in event["text"] for event in events if event["type"] == "note")
    assert told or (damage == "remove" and "status" in path)
    if "status" not in path:
        assert target.read_bytes() == content


def test_a_damaged_artifact_of_a_finished_run_is_made_good(model: Path, tmp_path: Path, executor: FakeExecutor) -> None:
    report = run(model, tmp_path / "run", executor)
    artifact = next(tmp_path.glob("run/artifact/*.gguf"))
    content = artifact.read_bytes()
    artifact.write_bytes(b"X" + content[1:])
    again = run(model, tmp_path / "run", executor)
    assert again["status"] == "passed"
    assert artifact.read_bytes() == content
    assert again["artifact"]["files"][-1] == report["artifact"]["files"][-1]


def test_a_required_gate_that_fails_fails_the_run_and_names_the_next_rung(
    model: Path, tmp_path: Path, executor: FakeExecutor
) -> None:
    report = run(model, tmp_path / "run", executor, "Q8_0", (MIX,))
    assert report["status"] == "failed"
    assert {gate["id"]: gate["result"] for gate in report["gates"]}["memory"] == "fail"
    assert any("--escalate" in step["command"] and MIX in step["text"] for step in report["next"])


def test_escalation_climbs_to_the_first_rung_that_passes(model: Path, tmp_path: Path, executor: FakeExecutor) -> None:
    report = run(model, tmp_path / "run", executor, "Q8_0", ("Q6_K", MIX, "Q5_0"), escalate=True)
    assert report["status"] == "passed"
    assert report["precision"] == MIX
    assert [(rung["precision"], rung["result"], rung["chosen"]) for rung in report["rungs"]] == [
        ("Q8_0", "failed", False),
        ("Q6_K", "failed", False),
        (MIX, "passed", True),
    ]
    assert [rung["missed"] for rung in report["rungs"]] == [["memory"], ["memory"], []]
    assert executor.ran.count("benchmark") == 1
    assert executor.ran.count("reference") == 1


def test_escalation_goes_on_where_a_failed_run_ended(model: Path, tmp_path: Path, executor: FakeExecutor) -> None:
    run(model, tmp_path / "run", executor, "Q8_0", (MIX,))
    executor.ran.clear()
    report = run(model, tmp_path / "run", executor, "Q8_0", (MIX,), escalate=True)
    assert report["status"] == "passed"
    assert executor.ran == ["quantize", "integrity", "smoke", "distribution", "benchmark"]
    executor.ran.clear()
    assert run(model, tmp_path / "run", executor, "Q8_0", (MIX,))["precision"] == MIX
    assert executor.ran == []


def test_a_ladder_that_ends_reports_the_best_rung_as_failed(
    model: Path, tmp_path: Path, executor: FakeExecutor
) -> None:
    report = run(model, tmp_path / "run", executor, "Q5_0", ("Q8_0", "Q6_K"), escalate=True)
    assert report["status"] == "failed"
    assert report["precision"] == "Q8_0"
    assert len(report["rungs"]) == 3
    assert report["performance"]["artifact"]["decode_tps"]["n"] == 5
    assert "--escalate" not in json.dumps(report["next"])


def test_another_plan_for_a_folder_in_use_is_refused(model: Path, tmp_path: Path, executor: FakeExecutor) -> None:
    run(model, tmp_path / "run", executor)
    with pytest.raises(AdvisorError, match="another plan") as refused:
        run(model, tmp_path / "run", executor, "Q8_0")
    assert refused.value.exit_code == 2


def test_two_runs_in_one_folder_are_refused_in_one_sentence(
    model: Path, tmp_path: Path, executor: FakeExecutor
) -> None:
    (tmp_path / "run").mkdir()
    with locked(RunFolder(tmp_path / "run")), pytest.raises(AdvisorError, match=f"process {os.getpid()}") as refused:
        run(model, tmp_path / "run", executor)
    assert refused.value.code == "run-in-progress"
    assert run(model, tmp_path / "run", executor)["status"] == "passed"


def test_cancelling_leaves_a_resumable_run(model: Path, tmp_path: Path, executor: FakeExecutor) -> None:
    cancel = threading.Event()

    def listen(event: dict[str, Any]) -> None:
        if event["type"] == "step" and (event["id"], event["state"]) == ("quantize", "started"):
            cancel.set()

    executor.seconds = 5.0 / 100
    with pytest.raises(AdvisorError) as stopped:
        run(model, tmp_path / "run", executor, on_event=listen, cancel=cancel)
    assert stopped.value.exit_code == 130
    report = json.loads((tmp_path / "run/report.json").read_text())
    assert report["status"] == "interrupted"
    assert "quantize" not in statuses(report)
    assert not list((tmp_path / "run").rglob("*.partial"))
    executor.ran.clear()
    assert run(model, tmp_path / "run", executor)["status"] == "passed"
    assert "convert" not in executor.ran


def test_cancelling_the_check_of_a_finished_run_keeps_its_report(
    model: Path, tmp_path: Path, executor: FakeExecutor
) -> None:
    report = run(model, tmp_path / "run", executor)

    def interrupt(event: dict[str, Any]) -> None:
        if event["type"] == "step" and event["id"] == "quantize":
            raise KeyboardInterrupt

    with pytest.raises(AdvisorError) as stopped:
        run(model, tmp_path / "run", executor, on_event=interrupt)
    assert stopped.value.exit_code == 130
    assert json.loads((tmp_path / "run/report.json").read_text()) == report


def test_ctrl_c_ends_with_130_and_one_sentence(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = start(folder, model, 0.5)
    wait_for(folder / "steps/02-convert/status.json")
    process.send_signal(signal.SIGINT)
    _, words = process.communicate(timeout=20)
    assert process.returncode == 130
    assert words.strip() == "interrupted: Interrupted; every finished step is kept."
    assert json.loads((folder / "report.json").read_text())["status"] == "interrupted"


def start(folder: Path, model: Path, seconds: float) -> subprocess.Popen[str]:
    script = Path(__file__).with_name("fake_run.py")
    return subprocess.Popen(
        [sys.executable, str(script), str(folder), str(model), str(seconds)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(path: Path, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, path
        time.sleep(0.01)


def test_a_full_disk_is_one_sentence_before_anything_runs(
    model: Path, tmp_path: Path, executor: FakeExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100))
    with pytest.raises(AdvisorError, match=r"needs .* of disk") as refused:
        run(model, tmp_path / "run", executor)
    assert refused.value.code == "disk-full"
    assert executor.ran == []


def test_too_little_memory_is_one_sentence_before_anything_runs(
    model: Path, tmp_path: Path, executor: FakeExecutor
) -> None:
    plan = fake_plan(model)
    assert plan.plan is not None
    convert = next(step for step in plan.plan.steps if step.kind == "convert")
    convert.estimate = convert.estimate.model_copy(update={"peak_ram_bytes": 2**50})
    with pytest.raises(AdvisorError, match=r"needs about .* of memory") as refused:
        run_plan(plan, tmp_path / "run", machine=MACHINE, executor=executor)
    assert (refused.value.code, refused.value.exit_code) == ("memory-short", 7)
    assert executor.ran == []


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs root to mount a small tmpfs")
def test_a_disk_that_fills_up_leaves_nothing_half_written(model: Path, tmp_path: Path, executor: FakeExecutor) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(disk)], capture_output=True, check=False
    ).returncode:
        pytest.skip("mounting a tmpfs is not allowed here")
    try:
        with pytest.raises(AdvisorError) as failure:
            run(model, disk / "run", executor)
        assert failure.value.exit_code == 7
        for status in (disk / "run/steps").glob("*/status.json"):
            json.loads(status.read_text())
        assert not list((disk / "run").rglob("*.partial"))
        subprocess.run(["mount", "-o", "remount,size=2m", str(disk)], check=True)
        assert run(model, disk / "run", executor)["status"] == "passed"
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize("place", ["a-file", "a-file/below", "full"])
def test_a_folder_that_cannot_hold_a_run_is_refused(
    place: str, model: Path, tmp_path: Path, executor: FakeExecutor
) -> None:
    (tmp_path / "a-file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("mine")
    with pytest.raises(AdvisorError) as refused:
        run(model, tmp_path / place, executor)
    assert refused.value.exit_code == 2
    assert (tmp_path / "a-file").read_text() == "mine"
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["notes.txt"]


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs root to mount a read-only folder")
def test_a_read_only_folder_is_one_sentence(model: Path, tmp_path: Path, executor: FakeExecutor) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,ro", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs is not allowed here")
    try:
        with pytest.raises(AdvisorError, match="No permission to write") as refused:
            run(model, disk / "run", executor)
        assert (refused.value.code, refused.value.exit_code) == ("unwritable", 2)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.skipif(os.name != "posix", reason="a clock jump is simulated with POSIX file times")
def test_file_times_and_the_wall_clock_decide_nothing(model: Path, tmp_path: Path, executor: FakeExecutor) -> None:
    run(model, tmp_path / "run", executor)
    for number, path in enumerate((tmp_path / "run").rglob("*")):
        os.utime(path, (10**9 * (number % 3), 10**9 * (number % 3)))
    executor.ran.clear()
    assert set(statuses(run(model, tmp_path / "run", executor)).values()) == {"cached"}
    assert executor.ran == []


def test_a_new_framework_version_redoes_an_unfinished_run_and_leaves_a_finished_one(
    model: Path, tmp_path: Path, executor: FakeExecutor
) -> None:
    executor.fail = {"benchmark": "stop"}
    with pytest.raises(AdvisorError):
        run(model, tmp_path / "run", executor)
    executor.fail, executor.version, executor.ran = {}, "fake 2", []
    report = run(model, tmp_path / "run", executor)
    assert "convert" in executor.ran
    assert report["framework_version"] == "fake 2"
    executor.version, executor.ran = "fake 3", []
    assert run(model, tmp_path / "run", executor)["framework_version"] == "fake 2"
    assert executor.ran == []


def test_a_run_is_recorded_once_for_the_machine_that_it_ran_on(
    model: Path, tmp_path: Path, executor: FakeExecutor
) -> None:
    run(model, tmp_path / "run", executor)
    run(model, tmp_path / "run", executor)
    rows = {row.metric: row for row in history.list_history("machine-1")}
    assert rows["decode_tps"].measured == pytest.approx(76.5)
    assert rows["decode_tps"].mid == 60
    assert history.calibration_rows("machine-2") == []


def test_a_plan_for_another_machine_calibrates_nothing(model: Path, tmp_path: Path, executor: FakeExecutor) -> None:
    plan = fake_plan(model, MIX)
    plan = plan.model_copy(update={"hardware": MACHINE.model_copy(update={"fingerprint": "elsewhere"})})
    run_plan(plan, tmp_path / "run", machine=MACHINE, executor=executor)
    assert history.list_history("machine-1")
    assert history.calibration_rows("machine-1") == []


def test_a_broken_history_does_not_fail_the_run(
    model: Path, tmp_path: Path, executor: FakeExecutor, advisor_home: Path
) -> None:
    advisor_home.mkdir()
    (advisor_home / "history.sqlite3").write_bytes(b"this is no database" * 100)
    notes = [event["text"] for event in events_of(model, tmp_path / "run", executor) if event["type"] == "note"]
    assert len(notes) == 1
    assert notes[0].startswith("This run was not added to the history.")


def test_the_users_model_is_never_changed(model: Path, tmp_path: Path, executor: FakeExecutor) -> None:
    before = (model.read_bytes(), model.stat().st_mtime_ns, model.stat().st_nlink)
    run(model, tmp_path / "run", executor)
    assert (model.read_bytes(), model.stat().st_mtime_ns, model.stat().st_nlink) == before
