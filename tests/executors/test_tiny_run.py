"""Whole runs of a 300 KB model through the real llama.cpp: kinds of sources, and kills while the framework works."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from fake_run import MACHINE, fake_plan
from test_kills import check
from tiny_gguf import tiny_model

from advisor.plan import Plan
from executors.runner import run_plan

pytestmark = [pytest.mark.slow, pytest.mark.skipif(find_spec("llama_cpp") is None, reason="needs the extra llamacpp")]
MIX = "Q8_0+ffn_gate=Q5_0"


def tiny_plan(source: Path) -> Plan:
    plan = fake_plan(source, MIX, ("Q8_0",))
    assert plan.plan is not None
    for step in plan.plan.steps:
        settings = step.settings
        if settings.kind == "validate":
            settings.context, settings.blocks, settings.block_tokens = 128, 24, 16
        if settings.kind in ("validate", "quantize"):
            settings.expected_bytes = 0
        if settings.kind == "benchmark":
            settings.pairs, settings.prompt_tokens, settings.decode_tokens, settings.context = 1, 16, 4, 128
    return plan


def run(source: Path, folder: Path, **options: Any) -> dict[str, Any]:
    return run_plan(tiny_plan(source), folder, machine=MACHINE, **options)


def test_a_32_bit_source_gets_a_16_bit_reference_and_a_16_bit_source_is_its_own(tmp_path: Path) -> None:
    report = run(tiny_model().write(tmp_path / "f32.gguf"), tmp_path / "one")
    assert report["validation"]["integrity"]["status"] == report["validation"]["smoke"]["status"] == "pass"
    assert {"Q8_0", "Q5_0"} <= report["validation"]["integrity"]["types"].keys()
    assert report["validation"]["distribution"]["tokens"] == 24 * 16
    assert report["performance"]["artifact"]["decode_tps"]["n"] == 1
    assert not (tmp_path / "one/work/source.gguf").samefile(tmp_path / "one/work/reference.gguf")
    again = run(tmp_path / "one/work/reference.gguf", tmp_path / "two")
    assert (tmp_path / "two/work/source.gguf").samefile(tmp_path / "two/work/reference.gguf")
    hashes = [
        {f["path"]: f["sha256"] for f in r["artifact"]["files"] if f["path"].endswith(".gguf")} for r in (report, again)
    ]
    assert list(hashes[0].values()) == list(hashes[1].values())


@pytest.mark.skipif(os.name != "posix", reason="kills by signal")
def test_kills_while_llama_cpp_works_lose_nothing(tmp_path: Path) -> None:
    draw = random.Random(0)
    source, folder = tiny_model().write(tmp_path / "f32.gguf"), tmp_path / "run"
    done: dict[str, bytes] = {}
    for _ in range(20):
        process = start(source, folder)
        time.sleep(draw.uniform(0.5, 2.5))
        process.send_signal(signal.SIGKILL)
        process.wait()
        if (folder / "plan.json").exists():
            done = check(folder, done)
    assert start(source, folder).wait(120) == 0
    check(folder, done)
    assert not list(folder.rglob("*.partial"))


def start(source: Path, folder: Path) -> subprocess.Popen[bytes]:
    script = (
        "import sys; from pathlib import Path; from test_tiny_run import run; run(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    return subprocess.Popen([sys.executable, "-c", script, str(source), str(folder)], cwd=Path(__file__).parent)
