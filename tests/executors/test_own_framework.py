"""The seam: a framework of one worker file and some rows of data passes from the plan to the checklist, and no file of
the packages knows of it. tests/executors/fake_framework is the example of docs/adding-a-framework.md."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_gguf import tiny_model

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = Path(__file__).with_name("fake_framework")


def call(home: Path, *arguments: str | Path) -> tuple[int, Any]:
    """The command in a process of its own, with the user's data folder `home`: exit code and document."""
    done = subprocess.run(
        [sys.executable, "-m", "ui.cli", *map(str, arguments), "--json"],
        cwd=home,
        env={**os.environ, "PYTHONPATH": str(ROOT), "ADVISOR_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's data folder with the framework, the plan `plan.json`, and the run of it, `run`."""
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(EXAMPLE, home / "frameworks" / "fake")
    source = tiny_model().write(home / "tiny.gguf")
    code, plan = call(home, "plan", source, "--framework", "fake", "--tasks", "--out", home / "plan.json")
    assert (code, plan["recommendations"][0]["framework"]) == (0, "fake")
    code, report = call(home, "run", home / "plan.json", "--workdir", home / "run")
    assert (code, report["status"]) == (0, "passed")
    return home


def test_no_file_of_the_packages_names_it() -> None:
    written = [
        path for floor in ("knowledge", "probes", "advisor", "executors", "ui") for path in (ROOT / floor).rglob("*")
    ]
    named = [p.name for p in written if p.suffix in (".py", ".toml", ".csv") and '"fake"' in p.read_text("utf-8")]
    assert named == []


def test_its_run_leaves_what_every_run_leaves(home: Path) -> None:
    report = json.loads((home / "run/report.json").read_text())
    assert report["framework_version"] == "fake-runtime 1.0"
    assert [step["status"] for step in report["steps"]] == ["done"] * 11
    tiers = ("integrity", "smoke", "distribution", "runtime", "tasks")
    assert all(report["validation"][tier]["status"] == "pass" for tier in tiers)
    assert report["validation"]["distribution"]["tokens"] == 3200 - 3200 % 64
    assert report["validation"]["tasks"]["questions"] == 60
    assert "Of 60 questions it answers" in (home / "run/report.md").read_text()
    assert report["performance"]["artifact"]["decode_tps"]["n"] == 5
    assert {gate["id"]: gate["result"] for gate in report["gates"]}["tasks"] == "inconclusive"
    sizes = next(row for row in report["predicted_vs_measured"] if row["metric"] == "artifact_bytes")
    assert sizes["within"]
    for name in (
        "report.md",
        "report.html",
        "checklist.md",
        "manifest.json",
        "artifact/model.json",
        "artifact/README.md",
    ):
        assert (home / "run" / name).is_file(), name


def test_its_run_is_checked_and_not_done_twice(home: Path) -> None:
    code, checklist = call(home, "check", home / "run")
    assert code == 0
    assert all(item["status"] != "fail" for item in checklist["items"])
    code, again = call(home, "run", home / "run")
    assert code == 0
    assert {step["status"] for step in again["steps"]} == {"cached"}


def test_a_run_whose_listener_leaves_goes_on(home: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ui.cli", "run", home / "plan.json", "--workdir", tmp_path / "run", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ADVISOR_HOME": str(home)}
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed:
        done = subprocess.run(command, cwd=tmp_path, env=environment, stdout=closed, stderr=closed, timeout=120)
    assert json.loads((tmp_path / "run/report.json").read_text())["status"] == "passed"
    assert done.returncode == 0


def test_its_artifact_is_validated_alone_and_its_runs_are_compared(home: Path) -> None:
    reference = home / "run/work/reference"
    code, document = call(home, "validate", home / "run", "--reference", reference, "--workdir", home / "out")
    assert (code, document["framework"], document["status"]) == (0, "fake", "passed")
    code, compared = call(home, "report", "compare", home / "run")
    assert compared["references"][0]["framework"] == "fake"


def test_a_defect_of_the_runtime_is_told_from_what_quantization_lost(home: Path, tmp_path: Path) -> None:
    """The same weights as `exact`, and a kernel that is off: the artifact passes, the runtime does not."""
    sound = json.loads((home / "run/report.json").read_text())
    assert sound["validation"]["runtime"]["kl_divergence"]["mean"] < 1e-3
    assert "what it computes is what the weights say" in (home / "run/report.md").read_text()
    shutil.copytree(home / "frameworks", tmp_path / "frameworks")
    worker = tmp_path / "frameworks/fake/worker.py"
    row = "self.table[tokens if every else tokens[-1:]]"
    assert row in worker.read_text()
    off = f"{row} + np.linspace(0, 0 if self.exact else 2, VOCABULARY, dtype=np.float32)"
    worker.write_text(worker.read_text().replace(row, off))
    reference = home / "run/work/reference"
    code, document = call(tmp_path, "validate", home / "run", "--reference", reference, "--workdir", tmp_path / "out")
    gates = {gate["id"]: gate["result"] for gate in document["gates"]}
    assert (code, gates["quality"], gates["kl-divergence"], gates["runtime"]) == (0, "pass", "pass", "fail")
    same = document["validation"]["distribution"]["kl_divergence"]["mean"]
    assert same == pytest.approx(sound["validation"]["distribution"]["kl_divergence"]["mean"])


def test_garbage_is_refused_with_its_reason(home: Path) -> None:
    reference, broken = home / "run/work/reference", home / "broken"

    def refused(change: Any) -> dict[str, Any]:
        shutil.rmtree(broken, ignore_errors=True)
        shutil.copytree(home / "run/artifact", broken)
        path = broken / "weights.q4"
        blocks = np.fromfile(path, np.uint8).reshape(-1, 18)
        change(blocks).tofile(path)
        code, document = call(home, "validate", broken, "--reference", reference, "--workdir", home / "out")
        assert (code, document["status"]) == (5, "failed")
        return next(gate for gate in document["gates"] if gate["result"] == "fail")

    def zeroed(blocks: Any) -> Any:
        blocks[:, :2] = 0
        return blocks

    assert "scales" in refused(zeroed)["text"]
    assert refused(lambda blocks: blocks[:-1])["id"] == "integrity"


def test_its_plan_runs_nowhere_else(home: Path, tmp_path: Path) -> None:
    """The name of a framework in somebody's plan reaches no file that the user has not put there."""
    code, refused = call(tmp_path, "run", home / "plan.json", "--workdir", tmp_path / "run")
    assert (code, refused["error"]["code"]) == (2, "bad-plan")


@pytest.mark.parametrize("module", ["nowhere_to_be_found", "nowhere_to_be_found.inside", ".", "json.nothing"])
def test_its_missing_package_is_told_with_the_command_that_brings_it(home: Path, module: str, tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE, tmp_path / "frameworks" / "fake")
    row = tmp_path / "frameworks/fake/frameworks.toml"
    row.write_text(row.read_text().replace('imports = "numpy"', f'imports = "{module}"'))
    hint = f"{sys.executable} -m pip install fake-runtime"
    _, document = call(tmp_path, "doctor")
    check = next(check for check in document["checks"] if check["id"] == "fake")
    assert (check["status"], check["hint"]) == ("warn", hint)
    code, refused = call(tmp_path, "run", home / "plan.json", "--workdir", tmp_path / "run")
    assert (code, refused["error"]["code"], refused["error"]["hint"]) == (6, "toolchain-missing", hint)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("backends.csv", "framework,backend\nfake,cpu\n"),
        ("precisions.csv", "not a table at all"),
        ("frameworks.toml", "[[["),
        ("frameworks.toml", (ROOT / "knowledge/data/frameworks.toml").read_text("utf-8")),
        ("recipes.toml", "\0"),
    ],
)
def test_damaged_knowledge_of_the_user_is_one_sentence(name: str, text: str, tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE, tmp_path / "frameworks" / "fake")
    (tmp_path / "frameworks" / "fake" / name).write_text(text)
    code, refused = call(tmp_path, "plan", "embedded", "--ram", "8GB")
    assert (code, refused["error"]["code"]) == (2, "bad-knowledge")
    assert name in refused["error"]["message"]
