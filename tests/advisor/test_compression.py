"""Compression recipes: what may be asked of NNCF, what an NPU takes, and how a plan says it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from advisor.compression import Compression, compression_of
from advisor.constraints import Constraints
from advisor.decide import make_plan
from advisor.plan import Plan, QuantizeSettings
from knowledge.models import embedded_model, find_model
from knowledge.precisions import resolve_precision
from knowledge.records import ModelSpec
from probes.declared import declared_profile

GIB = 2**30
MIX = "int8+ffn_gate=int4-asym-g32"
FOUR_BIT = {"mode": "int4_sym", "group_size": 128}


def openvino_plan(model: ModelSpec, **request: Any) -> dict[str, Any]:
    asked = Constraints(model=model.name, framework="openvino", **request)
    profile = declared_profile(ram_bytes=16 * GIB, vendor="intel", os="linux", target=asked.target)
    return make_plan(asked, profile, model)


def here(**request: Any) -> dict[str, Any]:
    """The embedded model on an Intel CPU, as if its file were there."""
    return openvino_plan(embedded_model(), target="cpu", **request)


def settings_of(document: dict[str, Any], step: str) -> dict[str, Any]:
    return next(s["settings"] for s in document["plan"]["steps"] if s["id"] == step)


@pytest.mark.parametrize(
    "step",
    [
        {"mode": "int4_sym", "group_size": 100},
        {"mode": "int4_sym", "ratio": 0},
        {"mode": "int4_sym", "ratio": float("nan")},
        {"mode": "int8_asym", "group_size": 64},
        {"mode": "int8_asym", "awq": True},
        {"mode": "int2_sym"},
        {"mode": "int4_sym", "roles": ["ffn_gate.*|x"]},
        {"mode": "int4_sym", "surprise": 1},
    ],
)
def test_a_pass_outside_its_bounds_is_refused(step: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Compression.model_validate({"passes": [step]})


def test_only_the_last_pass_may_be_over_all_weights() -> None:
    with pytest.raises(ValidationError, match="leaves nothing"):
        Compression.model_validate({"passes": [{"mode": "int8_asym"}, FOUR_BIT | {"roles": ["ffn_gate"]}]})


@pytest.mark.parametrize("change", [{"mode": "int4_asym"}, {"group_size": 64}, {"ratio": 0.8}, {"mode": "int8_sym"}])
def test_the_npu_takes_only_symmetric_four_bits_in_its_groups(change: dict[str, Any]) -> None:
    assert Compression.model_validate({"target": "npu", "passes": [FOUR_BIT]}).passes
    step = change if change.get("mode") == "int8_sym" else FOUR_BIT | change
    with pytest.raises(ValidationError, match="NPU"):
        Compression.model_validate({"target": "npu", "passes": [step]})


@pytest.mark.parametrize("recipe", [{}, {"type": "Q8_0", "compression": {"passes": [{"mode": "int8_asym"}]}}])
def test_a_quantize_step_says_in_exactly_one_way_how(recipe: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="one of a GGUF type, a compression"):
        QuantizeSettings.model_validate({"input": "work/a", "output": "work/b", "precision": "x", **recipe})


def test_a_mix_is_its_parts_first_and_then_the_rest() -> None:
    recipe = compression_of(resolve_precision(MIX, "openvino")[0], "cpu", "")
    gate, rest = Compression.model_validate(recipe).passes
    assert (gate.roles, gate.mode, gate.group_size) == (["ffn_gate"], "int4_asym", 32)
    assert (rest.roles, rest.mode) == ([], "int8_asym")


@pytest.mark.parametrize(
    "name", ["int8", "int8-sym", "int4-sym-g64", "int4-asym-g64-r0.8", "int4-sym-cw", "nf4-cw", MIX]
)
def test_every_openvino_precision_has_a_valid_recipe(name: str) -> None:
    precision = resolve_precision(name, "openvino")[0]
    recipe = Compression.model_validate(compression_of(precision, "cpu", ""))
    assert recipe.passes[-1].mode == precision.settings["mode"]
    assert recipe.passes[-1].ratio == precision.settings.get("ratio", 1.0)


@pytest.mark.parametrize(("name", "wanted"), [
    ("int4-asym-g64", (False, True)), ("int4-asym-g64+awq", (True, False)),
    ("int4-asym-g64+scale-estimation", (False, True)),
])  # fmt: skip
def test_a_method_in_the_name_comes_before_the_backend_s_own(name: str, wanted: tuple[bool, bool]) -> None:
    precision = resolve_precision(name, "openvino")[0]
    (step,) = Compression.model_validate(compression_of(precision, "cpu", "scale-estimation")).passes
    assert (step.awq, step.scale_estimation) == wanted


def test_the_embedded_model_is_planned_as_the_mix_that_passes_both_gates() -> None:
    document = here()
    assert Plan.model_validate(document).plan is not None
    assert document["plan"]["precision"] == MIX
    assert settings_of(document, "reference") | {"output": ""} == {
        "kind": "convert", "input": "work/source.gguf", "output": "", "type": "F16", "format": "openvino",
    }  # fmt: skip
    assert not any(step["settings"]["kind"] == "guide" for step in document["plan"]["steps"])


def test_every_rung_brings_its_own_compression() -> None:
    plan = Plan.model_validate(here(precision="int8"))
    assert plan.plan is not None
    modes = [[step.mode for step in rung.compression.passes] for rung in plan.plan.ladder if rung.compression]
    assert modes[0] == ["int4_asym", "int8_asym"]
    assert len(modes) == len(plan.plan.ladder)


def test_what_the_npu_must_do_is_told_and_never_run_here() -> None:
    document = openvino_plan(embedded_model(), target="npu", precision="int4-sym-cw", context=2048)
    kinds = {step["id"]: step["settings"]["kind"] for step in document["plan"]["steps"]}
    assert {i for i, kind in kinds.items() if kind == "guide"} == {"smoke", "compile", "benchmark"}
    told = settings_of(document, "compile")["values"]
    assert (told["MAX_PROMPT_LEN"], told["MIN_RESPONSE_LEN"]) == (2048 - 128, 128)
    assert told["CACHE_DIR"]
    assert "not run on the NPU" in settings_of(document, "smoke")["values"]["why"]
    assert settings_of(document, "quantize")["compression"]["target"] == "npu"
    items = {item["id"] for item in document["plan"]["checklist"]}
    assert {"npu-driver", "npu-run", "npu-static-shapes", "npu-cache"} <= items


def test_the_npu_s_items_are_on_no_other_checklist() -> None:
    assert not any(item["id"].startswith("npu-") for item in here()["plan"]["checklist"])


def test_a_model_that_is_not_here_is_downloaded_first() -> None:
    document = openvino_plan(find_model("Llama-3.2-1B-Instruct"), target="cpu")
    source = settings_of(document, "acquire")["source"]
    assert (source["kind"], source["hf_id"]) == ("hub", "meta-llama/Llama-3.2-1B-Instruct")
    commands = {step["id"]: step["command"] for step in document["plan"]["steps"]}
    assert ["optimum-cli", "export", "openvino"] in [command[:3] for command in commands.values()]
    assert commands["acquire"][:3] == ["hf", "download", "meta-llama/Llama-3.2-1B-Instruct"]


def test_the_resident_peak_counts_the_mapped_file_and_the_copy_but_no_unused_cache() -> None:
    """Measured with OpenVINO GenAI 2026.4.1 after 160 tokens, planned for 4,096."""
    for precision, measured in (("int8", 469.6e6), (MIX, 453.1e6), ("int4-sym-g64", 377.5e6)):
        band = here(precision=precision)["plan"]["predictions"]["peak_rss_bytes"]
        assert band["low"] <= measured <= band["high"]
        assert band["mid"] == pytest.approx(measured, rel=0.05)


@pytest.mark.parametrize("precision", ["int4-sym-g64", "int4-sym-g32", "nf4-g64", "mxfp4"])
def test_groups_that_the_npu_does_not_take_are_refused_by_a_rule(precision: str) -> None:
    """What `Compression` refuses for the NPU is never recommended there."""
    spec = find_model("Llama-3.2-1B-Instruct")
    profile = declared_profile(ram_bytes=16 * 2**30, chip="Core Ultra 7 155H")
    request = Constraints(model=spec.name, precision=precision, framework="openvino")
    document = make_plan(request, profile, spec)
    assert "openvino-npu" not in {row["backend"] for row in document["recommendations"]}
    assert any(row["rule"] == "npu.group" and precision in row["text"] for row in document["rejected"])
