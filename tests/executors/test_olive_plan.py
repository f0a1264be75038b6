"""Olive's executor without Olive: recipes, workflows for other hosts, refusals, what integrity says of a scan."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from pydantic import ValidationError

from advisor.constraints import Constraints
from advisor.decide import make_plan
from advisor.olive_workflow import Workflow, config_of, hosts, problems_of, workflow_for
from advisor.onnx_recipe import OnnxPass, OnnxRecipe, onnx_recipe
from advisor.plan import Plan
from executors.executor import executor_for
from executors.olive import parts_of
from executors.olive_target import instructions
from executors.onnx_integrity import _other_output, _other_tensors, _other_types, parameters
from executors.schedule import schedule
from knowledge.base import EXIT_TOOLCHAIN_MISSING, AdvisorError
from knowledge.models import embedded_model, find_model
from knowledge.precisions import resolve_precision
from probes.declared import declared_profile

RECIPES = [
    (backend, precision)
    for backend, host in hosts().items()
    for recipe in host["recipe"]
    for precision in recipe["precisions"]
]


def olive_plan(precision: str = "int8", **machine: Any) -> Plan:
    asked = Constraints(model="embedded", framework="olive", precision=precision)
    profile = declared_profile(**{"ram_bytes": 2**34, "vendor": "intel", "os": "linux", "target": "cpu"} | machine)
    return Plan.model_validate(make_plan(asked, profile, embedded_model()))


def recipe(precision: str, model: str = "SmolLM2-135M-Instruct") -> dict[str, Any]:
    return onnx_recipe(resolve_precision(precision, "olive")[0], find_model(model))


# ---- the CPU: passes over the ONNX model


def test_a_rung_is_made_by_its_own_passes_in_its_own_place() -> None:
    jobs = schedule(olive_plan())
    first, second = (next(job for job in rung if job.step.kind == "quantize") for rung in jobs.rungs[:2])
    assert (first.output, second.output) == ("work/rungs/0/model", "work/rungs/1/model")
    passes = [
        [(step.bits, step.block_size, step.roles) for step in job.made.onnx.passes]
        for job in (first, second)
        if job.made is not None and job.made.onnx is not None
    ]
    assert passes[0] == [(8, 32, ["output"]), (8, 32, [])]
    assert passes[1] == [(8, 32, ["output"]), (4, 64, ["ffn_gate"]), (8, 128, ["ffn_down"]), (8, 64, [])]


def test_a_tied_embedding_is_one_table_and_an_untied_one_is_not() -> None:
    assert recipe("int4-kquant-b32")["embedding"] == "int8-shared"
    assert recipe("int4-kquant-b32", "Llama-3.1-8B-Instruct")["embedding"] == "int8"


def test_the_reference_precision_has_no_passes() -> None:
    assert recipe("f32") == {"passes": [], "embedding": "float32"}


@pytest.mark.parametrize("precision", ["int4-kquant-mixed-b32", "int4-rtn-asym-b32", "int4-awq-g128", "f16"])
def test_what_the_passes_do_not_make_has_no_recipe(precision: str) -> None:
    assert recipe(precision) == {}


def test_a_recipe_that_contradicts_itself_is_refused() -> None:
    everything = {"algorithm": "rtn", "bits": 8}
    with pytest.raises(ValidationError, match="leaves nothing"):
        OnnxRecipe.model_validate({"passes": [everything, everything], "embedding": "int8"})
    with pytest.raises(ValidationError, match="has to be quantized"):
        OnnxRecipe.model_validate({"passes": [], "embedding": "int8-shared"})


def test_roles_are_found_in_a_graph_by_the_builder_s_names() -> None:
    assert parts_of(["ffn_gate"]) == ["mlp/gate_proj"]
    assert parts_of(["attn_output"]) == ["attn/o_proj"]
    assert parts_of(["output"]) == ["lm_head"]
    with pytest.raises(AdvisorError, match="No weights are called nonsense"):
        parts_of(["nonsense"])


def test_without_olive_its_plan_is_refused_with_how_to_install_it() -> None:
    with pytest.raises(AdvisorError) as caught:
        _ = executor_for("olive").version
    assert (caught.value.code, caught.value.exit_code) == ("toolchain-missing", EXIT_TOOLCHAIN_MISSING)


# ---- other providers: workflows


@pytest.mark.parametrize(("backend", "precision"), RECIPES)
def test_a_workflow_is_legal_and_names_nothing_outside_its_folder(backend: str, precision: str) -> None:
    workflow = Workflow.model_validate(workflow_for(backend, precision))
    config = config_of(workflow)
    paths = [config["input_model"]["model_path"], config["output_dir"], config["cache_dir"]]
    paths += [data["load_dataset_config"]["data_files"] for data in config.get("data_configs", [])]
    assert all(not PurePosixPath(path).is_absolute() and ".." not in path for path in paths)
    assert all(data["load_dataset_config"]["data_name"] == "json" for data in config.get("data_configs", []))
    words = instructions(workflow)
    assert hosts()[backend]["provider"] in words
    assert "not run" in words


BUILD = ("ModelBuilder", {"precision": "int4"})


@pytest.mark.parametrize(
    ("backend", "passes", "words"),
    [
        # what olive optimize --dry_run of 0.13.0 proposes and never checks
        ("openvino-npu", [("OpenVINOEncapsulation", {"keep_ov_dynamic_shapes": True})], "no option keep_ov_dynamic_sh"),
        ("openvino-gpu", [("OpenVINOEncapsulation", {"op_version": "2025.1"})], "no option op_version"),
        ("qnn", [("OnnxStaticQuantization", {"calibration_providers": ["CUDAExecutionProvider"]})], "does not take"),
        ("qnn", [("OnnxStaticQuantization", {"data_config": "wikitext2_train"})], "does not take 'wikitext2_train'"),
        ("cuda", [("Gptq", {"bits": 4}), BUILD], "Gptq needs the option data_config"),
        ("qnn", [("ModelBuilder", {"precision": "int8"})], "does not take 'int8' as precision"),
        # what else can be wrong
        ("cuda", [("RunAnything", {})], "no pass RunAnything"),
        ("cuda", [("ModelBuilder", {})], "ModelBuilder needs the option precision"),
        ("cuda", [BUILD, BUILD], "takes a model in the form hf, and gets one in the form onnx"),
        ("cuda", [("QuaRot", {})], "leaves no ONNX model"),
        ("directml", [("ModelBuilder", {"precision": "bf16"})], "does not make bf16 for DmlExecutionProvider"),
        ("cuda", [BUILD, ("EPContextBinaryGenerator", {})], "EPContextBinaryGenerator does not serve CUDA"),
        ("cuda", [BUILD, ("StaticLLM", {})], "StaticLLM does not serve the gpu"),
        ("cuda", [("ModelBuilder", {"precision": "int4", "int4_block_size": 33})], "does not take 33"),
        ("cuda", [("ModelBuilder", {"precision": "int4", "output_dir": "/etc"})], "no option output_dir"),
        ("ascend", [BUILD], "no recipes here for ascend"),
    ],
)  # fmt: skip
def test_a_workflow_that_olive_would_accept_or_fail_on_is_named(
    backend: str, passes: list[tuple[str, dict[str, Any]]], words: str
) -> None:
    assert any(words in problem for problem in problems_of(backend, passes))


def test_a_plan_from_elsewhere_with_an_illegal_pass_is_refused() -> None:
    document = olive_plan("f16", vram_bytes=2**33, vendor="nvidia", target="gpu").as_json()
    step = next(step for step in document["plan"]["steps"] if step["kind"] == "quantize")
    step["settings"]["workflow"]["passes"][0]["options"]["extra_options"] = {"trust": "me"}
    with pytest.raises(ValidationError, match="no option extra_options"):
        Plan.model_validate(document)


def test_a_gpu_plan_prepares_here_and_makes_there() -> None:
    plan = olive_plan("int4-kquant-b32", vram_bytes=2**33, vendor="nvidia", target="gpu")
    work = plan.plan
    assert work is not None
    assert work.backend == "cuda"
    hosts_of = {step.id: step.host for step in work.steps}
    assert (hosts_of["prepare"], hosts_of["quantize"]) == ("any", "target")
    jobs = schedule(plan)
    assert [job.step.id for job in jobs.shared][:3] == ["acquire", "reference", "prepare"]
    made = next(job for job in jobs.rungs[0] if job.step.kind == "quantize")
    assert made.inputs == {"input": "work/olive"}


# ---- integrity, on what a scan found


def row(name: str, bits: int, block: int, **more: Any) -> dict[str, Any]:
    plain = {"rows": 8, "columns": 64, "symmetric": True, "shared": False, "zero_share": 0.0, "not_finite": 0}
    return {"name": name, "bits": bits, "block_size": block, **plain, **more}


PLANNED = [
    (OnnxPass(algorithm="rtn", bits=8, roles=["output"]), ["lm_head"]),
    (OnnxPass(algorithm="k_quant", bits=4), []),
]
MADE = [
    row("/model/embed_tokens/Gather", 8, 32),
    row("/model/layers.0/mlp/gate_proj/MatMul", 4, 32),
    row("/lm_head/MatMul", 8, 32, shared=True),
]


def test_matrices_packed_as_planned_pass() -> None:
    assert _other_types(MADE, PLANNED) == ""


@pytest.mark.parametrize(("index", "bits", "block"), [(0, 32, 0), (1, 8, 32), (1, 4, 64), (2, 4, 32)])
def test_a_matrix_packed_otherwise_is_named(index: int, bits: int, block: int) -> None:
    wrong = [*MADE[:index], row(MADE[index]["name"], bits, block), *MADE[index + 1 :]]
    assert MADE[index]["name"] in _other_types(wrong, PLANNED)


def test_a_model_that_was_to_stay_in_32_bits_and_did_not_is_named() -> None:
    assert "was to stay in 32 bits" in _other_types(MADE, [])


def test_a_missing_matrix_is_named() -> None:
    assert "lm_head/MatMul is missing" in _other_tensors(MADE[:2], MADE)


def test_a_shared_head_counts_once() -> None:
    assert parameters(MADE) == 2 * 8 * 64


def test_an_output_that_the_configuration_does_not_name_is_found() -> None:
    assert "logits_Q4" in _other_output({"wanted_output": "logits_Q4", "outputs": ["logits"]})
    assert _other_output({"wanted_output": "logits", "outputs": ["present.0.key", "logits"]}) == ""


def test_the_prepared_configuration_is_plain_json(tmp_path: Path) -> None:
    config = config_of(Workflow.model_validate(workflow_for("qnn", "w4a16-cw")))
    (tmp_path / "olive.json").write_text(json.dumps(config))
    assert json.loads((tmp_path / "olive.json").read_text()) == config
