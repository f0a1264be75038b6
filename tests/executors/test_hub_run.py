"""Whole runs that begin on a hub: downloaded, made and judged by the real llama.cpp; killed while they download."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from fake_run import MACHINE
from hub_server import Fault, Hub, Repo
from test_download import source_of
from test_tiny_run import tiny_plan
from tiny_gguf import tiny_model

from advisor.plan import AcquireSettings, Plan
from executors.runner import run_plan
from knowledge.store import find_model

pytestmark = [pytest.mark.slow, pytest.mark.skipif(find_spec("llama_cpp") is None, reason="needs the extra llamacpp")]
TINY = "tiny-lab/Tiny-GGUF"


@pytest.fixture
def tiny(hub: Hub, tmp_path: Path) -> Plan:
    body = tiny_model().write(tmp_path / "tiny.gguf").read_bytes()
    hub.repos[TINY] = Repo({"Tiny-F32.gguf": body, "README.md": b"#"}, {"license": "mit"})
    plan = tiny_plan(tmp_path / "tiny.gguf")
    assert plan.plan is not None
    for step in plan.plan.steps:
        if isinstance(step.settings, AcquireSettings):
            step.settings.source = source_of(find_model(TINY))
    return plan


def test_a_run_begins_on_the_hub_and_says_what_it_downloads(hub: Hub, tiny: Plan, tmp_path: Path) -> None:
    said: list[str] = []
    report = run_plan(tiny, tmp_path / "one", machine=MACHINE, on_event=lambda e: said.append(str(e.get("text", ""))))
    assert report["validation"]["smoke"]["status"] == "pass"
    assert any("licence mit" in text and "to download" in text for text in said)
    source = tmp_path / "one/work/source.gguf"
    assert source.read_bytes() == hub.repos[TINY].files["Tiny-F32.gguf"]
    hub.requests.clear()
    again = run_plan(tiny, tmp_path / "two", machine=MACHINE)
    made = [{f["sha256"] for f in r["artifact"]["files"] if f["path"].endswith(".gguf")} for r in (report, again)]
    assert made[0] == made[1]
    assert not hub.requests


@pytest.mark.skipif(os.name != "posix", reason="kills by signal")
def test_a_run_killed_while_it_downloads_goes_on(hub: Hub, tiny: Plan, tmp_path: Path) -> None:
    hub.faults = [Fault("/cdn/", times=1, drip=0.5)]
    folder = tmp_path / "run"
    (tmp_path / "plan.json").write_text(json.dumps(tiny.as_json()))
    script = (
        "import sys; from pathlib import Path; from fake_run import MACHINE; from advisor.plan import load_plan\n"
        "from executors.runner import run_plan\n"
        "run_plan(load_plan(Path(sys.argv[1])), Path(sys.argv[2]), machine=MACHINE)\n"
    )
    paths = os.pathsep.join(
        (str(Path(__file__).parent), str(Path(__file__).parents[1]), str(Path(__file__).parents[2]))
    )
    command = [sys.executable, "-c", script, str(tmp_path / "plan.json"), str(folder)]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths})
    deadline = time.monotonic() + 60
    while not hub.asked("/cdn/") and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.7)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / "work/source.gguf").exists()
    assert run_plan(tiny, folder, machine=MACHINE)["validation"]["integrity"]["status"] == "pass"
    assert not list(folder.rglob("*.partial"))
