"""What the pinned converters refuse: plans say so, run nothing there, and put what can be made and proved first."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from planning import GIB, plan

from executors.conversion import converted_by_older
from knowledge.conversions import load_conversions, needs_older, refusal
from knowledge.matrix import load_frameworks
from knowledge.models import load_models
from knowledge.serving import modalities


def test_rows_name_architectures_modalities_and_frameworks_that_are_known() -> None:
    known = {model.architecture for model in load_models()} | set(modalities())
    known |= {"cohere2", "gemma", "mixtral", "olmo3", "qwen2moe"}  # of folders, not of the catalogue
    for one in load_conversions().values():
        assert one.architecture in known, one
        assert one.framework in {row.name for row in load_frameworks()}
        assert one.how in ("older", "none")
        assert one.text
        assert one.source


def test_what_is_not_listed_is_converted_as_it_comes() -> None:
    assert not refusal("llama", "openvino")
    assert not needs_older("llama", "openvino")
    assert (refusal("gemma3", "openvino"), needs_older("gemma3", "openvino")) == ("", True)


@pytest.mark.parametrize(
    ("model", "framework", "executed"),
    [
        ("SmolLM3-3B", "olive", False),
        ("Qwen3-30B-A3B", "openvino", True),
        ("gemma-3-1b-it", "openvino", True),
        ("gemma-3-4b-it", "openvino", False),
        ("gemma-3-4b-it", "llama.cpp", True),
        ("BitNet-b1.58-2B-4T", "llama.cpp", False),
        ("LFM2-1.2B", "openvino", True),
    ],
)
def test_a_plan_runs_only_what_can_be_converted(model: str, framework: str, executed: bool) -> None:
    document = plan(model, framework=framework, ram_bytes=64 * GIB, os="linux", target="cpu")
    kinds = {step["settings"]["kind"] for step in document["plan"]["steps"]}
    assert ("quantize" in kinds) is executed
    best = document["recommendations"][0]
    assert any("cannot convert" in words for words in best["warnings"]) is not executed
    assert any(reason["rule"] == "prefer.converted" for reason in best["reasons"]) is not executed


def test_mlx_on_a_cpu_evaluates_no_experts_but_those_that_stay_packed() -> None:
    here = {"framework": "mlx", "ram_bytes": 64 * GIB, "os": "linux", "target": "cpu"}
    refused = plan("Qwen3-30B-A3B", **here)
    assert refused["status"] == "infeasible"
    assert any(row["rule"] == "mlx.cpu-experts" for row in refused["rejected"])
    assert plan("gpt-oss-20b", **here)["status"] == "ok"


def test_the_older_transformers_converts_what_the_table_says(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma3_text"}))
    assert converted_by_older(tmp_path, "openvino")
    assert not converted_by_older(tmp_path, "llama.cpp")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": {"model_type": "llama"}}))
    assert not converted_by_older(tmp_path, "openvino")
