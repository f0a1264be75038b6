"""Plans for embedding models: what advisor makes of encoders, what it never offers, what it says it does not know."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from house_encoder import encoder
from planning import GIB, plan
from pydantic import ValidationError

from advisor.constraints import Constraints
from advisor.contradictions import refuse_other_use
from advisor.embedding import MEMORY_RATIO
from advisor.memory import resident_peak_bytes
from advisor.onnx_recipe import OnnxRecipe
from advisor.plan import Plan
from knowledge.base import EXIT_BAD_INPUT, AdvisorError
from knowledge.checkpoint import read_model_path
from knowledge.models import find_model
from knowledge.precisions import resolve_precision
from knowledge.records import ModelSpec
from knowledge.weights import weights

LAPTOP: dict[str, Any] = {"chip": "Core Ultra 7 155H", "ram_bytes": 16 * GIB, "os": "linux", "target": "cpu"}
MADE = {"openvino": "int8", "olive": "int8-dynamic"}
TIERS = ["integrity", "smoke", "reference", "distribution"]


@pytest.fixture
def house(tmp_path: Path) -> ModelSpec:
    return read_model_path(encoder(tmp_path / "house"))


@pytest.mark.parametrize("framework", MADE)
def test_every_step_of_an_encoder_is_run(house: ModelSpec, framework: str) -> None:
    document = plan(house, use_case="embedding", framework=framework, **LAPTOP)
    work = Plan.model_validate(document).plan
    assert work is not None
    assert (work.kind, work.precision) == ("embedding", MADE[framework])
    kinds = [step.settings.kind for step in work.steps]
    assert kinds[:2] == ["acquire", "convert"]
    assert "guide" not in kinds
    assert sorted(step.settings.tier for step in work.steps if step.settings.kind == "validate") == sorted(TIERS)
    assert not any("by hand" in warning for warning in document["recommendations"][0]["warnings"])


@pytest.mark.parametrize("framework", MADE)
def test_an_encoder_is_judged_by_its_vectors_and_never_by_decoding(house: ModelSpec, framework: str) -> None:
    gates = {g["metric"]: g for g in plan(house, framework=framework, **LAPTOP)["plan"]["gates"]}
    required = {metric for metric, gate in gates.items() if gate["level"] == "required"}
    assert required == {"integrity", "smoke", "quality_retention", "memory_ratio"}
    assert gates["quality_retention"]["value"] == 0.95
    assert gates["memory_ratio"]["value"] == MEMORY_RATIO
    assert {"cosine_similarity", "top_overlap"} <= set(gates)
    assert not {"decode_ratio", "kl_divergence", "same_top1"} & set(gates)


def test_the_memory_gate_of_encoders_lets_no_more_than_8_bits_pass() -> None:
    spec = find_model("all-MiniLM-L6-v2")
    eight = [weights(spec, resolve_precision(p, f)[0]).ratio for f, p in MADE.items()]
    assert all(0.5 < ratio < MEMORY_RATIO for ratio in eight)
    sixteen = weights(spec, resolve_precision("f16", "openvino")[0]).ratio
    assert sixteen > MEMORY_RATIO


def test_the_gates_of_language_models_are_as_they_were() -> None:
    work = plan("SmolLM2-135M-Instruct", framework="openvino", precision="int8", **LAPTOP)["plan"]
    gates = {g["metric"]: g["value"] for g in work["gates"]}
    assert (work["kind"], gates["memory_ratio"], "decode_ratio" in gates) == ("text", 0.5, True)


def test_speed_is_unknown_and_not_invented(house: ModelSpec) -> None:
    document = plan(house, framework="openvino", **LAPTOP)
    best = document["recommendations"][0]
    for metric in ("decode_tps", "prefill_tps", "ttft_ms"):
        assert (best[metric]["low"], best[metric]["mid"], best[metric]["high"]) == (None, None, None)
    assert "nobody has published" in best["prefill_tps"]["basis"]
    assert document["plan"]["predictions"]["sentences_per_second"]["mid"] is None
    assert "decode_tps" not in document["plan"]["predictions"]


def test_quality_is_measured_for_the_measured_model_and_an_assumption_for_others(house: ModelSpec) -> None:
    known, other = (plan(m, framework="openvino", **LAPTOP)["recommendations"][0]["quality"]
                    for m in (find_model("all-MiniLM-L6-v2"), house))  # fmt: skip
    assert (known["basis"], other["basis"]) == ("measured", "assumed")
    assert "perplexity" not in known["metric"]
    width = [q["retention"]["high"] - q["retention"]["low"] for q in (known, other)]
    assert width[0] < width[1]


# (artifact, resident bytes of the timed process) as measured on 2026-11-28; the second is a BERT of random weights
MEASURED = [("all-MiniLM-L6-v2", "openvino", 213_254_144), ("all-MiniLM-L6-v2", "olive", 124_837_888),
            ("bge-base-en-v1.5", "openvino", 391_081_984), ("bge-base-en-v1.5", "olive", 245_256_192)]  # fmt: skip


@pytest.mark.parametrize(("model", "framework", "measured"), MEASURED)
def test_the_resident_peak_is_within_fifteen_per_cent(model: str, framework: str, measured: int) -> None:
    """bge-base has the shape of the random BERT that was measured: 12 layers, 768 wide, the same vocabulary."""
    spec = find_model(model)
    sizes = weights(spec, resolve_precision(MADE[framework], framework)[0])
    assert resident_peak_bytes(spec, sizes, framework, "cpu", 256, 160) == pytest.approx(measured, rel=0.15)


# ---- what is never offered


def test_a_framework_that_does_not_load_encoders_is_rejected_with_what_does(house: ModelSpec) -> None:
    mac = {"chip": "M3", "ram_bytes": 16 * GIB, "os": "macos"}
    document = plan(house, **mac)
    assert "mlx" not in {row["framework"] for row in document["recommendations"]}
    told = {row["rule"]: row["text"] for row in document["rejected"] if row["framework"] == "mlx"}
    assert "mlx-embeddings" in told["modality.unserved"]


@pytest.mark.parametrize(
    ("framework", "precision", "rule"),
    [
        ("openvino", "int4-sym-g64", "encoder.precision"),
        ("openvino", "f16", "encoder.precision"),
        ("olive", "int8", "encoder.precision"),
        ("olive", "int4-kquant-b32", "encoder.precision"),
        ("llama.cpp", "Q8_0+ffn_gate=Q5_0", "encoder.mix"),
    ],
)
def test_a_precision_that_no_step_makes_is_rejected_and_says_why(
    house: ModelSpec, framework: str, precision: str, rule: str
) -> None:
    document = plan(house, framework=framework, precision=precision, **LAPTOP)
    assert document["status"] == "infeasible"
    row = next(row for row in document["rejected"] if row["rule"] == rule)
    assert precision in row["text"]
    assert row["change"]


def test_the_precision_that_is_named_instead_is_made(house: ModelSpec) -> None:
    document = plan(house, framework="olive", precision="int4-rtn-b32", **LAPTOP)
    change = next(row["change"] for row in document["rejected"] if row["rule"] == "encoder.precision")
    assert change == "with --precision int8-dynamic"
    assert plan(house, framework="olive", precision="int8-dynamic", **LAPTOP)["status"] == "ok"


def test_a_precision_for_encoders_is_never_offered_to_what_writes_text() -> None:
    asked = plan("SmolLM2-135M-Instruct", framework="olive", precision="int8-dynamic", **LAPTOP)
    assert "encoder.precision-foreign" in {row["rule"] for row in asked["rejected"]}
    free = plan("SmolLM2-135M-Instruct", framework="olive", top=50, **LAPTOP)
    assert "int8-dynamic" not in {row["precision"] for row in free["recommendations"]}


@pytest.mark.parametrize("model", ["Qwen3-Embedding-0.6B", "nomic-embed-text-v1.5"])
def test_what_is_no_encoder_of_a_known_architecture_is_shown_and_said_to_be_by_hand(model: str) -> None:
    document = plan(model, framework="openvino", **LAPTOP)
    assert document["plan"]["kind"] == "text"
    assert {step["settings"]["kind"] for step in document["plan"]["steps"]} == {"guide"}
    assert any("by hand" in warning for warning in document["recommendations"][0]["warnings"])


def test_an_encoder_on_another_device_is_shown_and_not_run(house: ModelSpec) -> None:
    document = plan(house, framework="openvino", chip="Core Ultra 7 155H", ram_bytes=16 * GIB, os="linux", target="gpu")
    assert {step["settings"]["kind"] for step in document["plan"]["steps"]} == {"guide"}


def test_an_encoder_on_an_npu_is_quantized_as_encoders_are_and_not_as_language_models_are() -> None:
    document = plan("all-MiniLM-L6-v2", chip="Core Ultra 7 155H", ram_bytes=16 * GIB, os="windows", target="npu")
    best = document["recommendations"][0]
    assert (best["backend"], best["precision"]) == ("openvino-npu", "int8-sym")
    assert best["quality"]["retention"]["mid"] > 0.95


# ---- what excludes each other


@pytest.mark.parametrize(
    ("model", "use"),
    [
        ("SmolLM2-135M-Instruct", "embedding"),
        ("all-MiniLM-L6-v2", "chat"),
        ("all-MiniLM-L6-v2", "code"),
        ("Qwen3-Embedding-0.6B", "agent"),
        ("Qwen3-8B", "vision"),
        ("Qwen3-8B", "speech"),
        ("whisper-base", "chat"),
    ],
)
def test_a_use_that_the_model_is_not_for_is_bad_input(model: str, use: str) -> None:
    with pytest.raises(AdvisorError) as caught:
        refuse_other_use(Constraints.model_validate({"model": model, "use_case": use}), find_model(model))
    assert (caught.value.code, caught.value.exit_code) == ("contradiction", EXIT_BAD_INPUT)
    assert model in caught.value.message
    assert use in caught.value.message


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("all-MiniLM-L6-v2", {}),
        ("all-MiniLM-L6-v2", {"use_case": "embedding"}),
        ("all-MiniLM-L6-v2", {"use_case": "rag"}),
        ("SmolLM2-135M-Instruct", {"use_case": "rag"}),
        ("Qwen3.5-4B", {"use_case": "vision"}),
        ("Qwen3.5-4B", {"use_case": "chat"}),
        ("whisper-base", {"use_case": "speech"}),
    ],
)
def test_a_use_that_was_not_said_or_fits_is_no_contradiction(model: str, said: dict[str, Any]) -> None:
    refuse_other_use(Constraints(model=model, **said), find_model(model))


def test_dynamic_quantization_leaves_nothing_to_passes() -> None:
    with pytest.raises(ValidationError, match="leaves nothing to passes"):
        OnnxRecipe.model_validate({"dynamic": True, "passes": [{"algorithm": "rtn", "bits": 8}]})


def test_an_artifact_that_was_made_already_is_not_made_again() -> None:
    made = replace(find_model("all-MiniLM-L6-v2"), source_framework="openvino", source_bits=8, source_precision="int8")
    document = plan(made, framework="openvino", **LAPTOP)
    kinds = {step["kind"] for step in document["plan"]["steps"]} if document["plan"] else set()
    assert not {"convert", "quantize"} & kinds
