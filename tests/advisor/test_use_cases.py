"""Embedding, vision and speech: planned with what serves them and what they take, never executed as text."""

from __future__ import annotations

from typing import Any

import pytest
from planning import GIB, plan

from knowledge.models import find_model, load_models
from knowledge.serving import metric_of, modalities

LAPTOP: dict[str, Any] = {"chip": "Core Ultra 7 155H", "ram_bytes": 16 * GIB, "os": "linux"}
MODALITIES = {"embedding": {"embedding"}, "vision": {"image-text"}, "speech": {"speech"}}


def texts(row: dict[str, Any]) -> str:
    return " ".join(reason["text"] for reason in row["reasons"])


@pytest.mark.parametrize("use_case", MODALITIES)
def test_a_use_case_is_answered_with_models_made_for_it_and_what_serves_them(use_case: str) -> None:
    document = plan(use_case=use_case, **LAPTOP)
    assert document["status"] == "ok"
    for row in document["recommendations"]:
        spec = find_model(row["model"])
        assert spec.modality in MODALITIES[use_case]
        assert "Served with" in texts(row)
        assert 0 < row["memory"]["weights_bytes"] < row["memory"]["total_bytes"] <= row["memory"]["budget_bytes"]
    warned = [*document["warnings"], *document["recommendations"][0]["warnings"]]
    assert any("by hand" in warning for warning in warned)


@pytest.mark.parametrize("use_case", MODALITIES)
def test_what_is_not_text_is_shown_how_and_never_run_or_prompted_as_text(use_case: str) -> None:
    document = plan(use_case=use_case, **LAPTOP)
    steps = document["plan"]["steps"]
    assert {step["settings"]["kind"] for step in steps} == {"guide"}
    assert not {"validate", "benchmark"} & {step["kind"] for step in steps}


@pytest.mark.parametrize("use_case", [*MODALITIES, "chat", "code"])
def test_better_scores_come_first_where_only_quality_counts(use_case: str) -> None:
    document = plan(use_case=use_case, ram_bytes=64 * GIB, os="linux", target="cpu", priority="quality", top=1)
    best = find_model(document["recommendations"][0]["model"])
    metric = metric_of(use_case)
    scores = {m.name: s.value for m in load_models() for s in m.scores if s.metric == metric.name}
    assert best.name in scores
    better = [name for name, value in scores.items() if (value > scores[best.name]) == (metric.best > metric.worst)]
    fitting = [name for name in better if use_case in find_model(name).use_cases and find_model(name).params < 30e9]
    assert len(fitting) <= 3, fitting


def test_speech_is_not_for_llama_cpp_and_the_answer_names_what_is() -> None:
    document = plan("whisper-large-v3-turbo", ram_bytes=8 * GIB, os="linux", target="cpu")
    told = {row["rule"]: row["text"] for row in document["rejected"] if row["framework"] == "llama.cpp"}
    assert "whisper.cpp" in told["modality.unserved"]
    assert document["recommendations"][0]["framework"] != "llama.cpp"
    command = next(step["command"] for step in document["plan"]["steps"] if step["kind"] == "quantize")
    assert "automatic-speech-recognition-with-past" in command or "whisper" in " ".join(command)


def test_a_speech_model_decodes_by_its_decoder_alone() -> None:
    turbo, large = (plan(name, framework="openvino", precision="int8", target="cpu", **LAPTOP)["recommendations"][0]
                    for name in ("whisper-large-v3-turbo", "whisper-large-v3"))  # fmt: skip
    assert turbo["decode_tps"]["mid"] > 3 * large["decode_tps"]["mid"]
    assert turbo["prefill_tps"]["mid"] is None
    assert "speech" in turbo["prefill_tps"]["basis"]


def test_an_embedding_model_has_no_speed_of_writing_and_no_cache() -> None:
    row = plan("Qwen3-Embedding-0.6B", **LAPTOP)["recommendations"][0]
    assert row["decode_tps"]["mid"] is None
    assert row["prefill_tps"]["mid"] > 0
    assert "nDCG" in " ".join(row["warnings"])
    assert plan("bge-m3", **LAPTOP)["recommendations"][0]["memory"]["kv_bytes"] == 0


def test_the_encoder_of_images_counts_where_images_are_asked_for() -> None:
    seeing, reading = (
        plan("gemma-3-4b-it", use_case=use, ram_bytes=16 * GIB, os="linux", target="cpu", precision="Q4_K_M")
        for use in ("vision", "chat")
    )
    extra = (
        seeing["recommendations"][0]["memory"]["total_bytes"] - reading["recommendations"][0]["memory"]["total_bytes"]
    )
    assert extra == 2 * find_model("gemma-3-4b-it").tower_params
    assert "image" in str([part["name"] for part in seeing["recommendations"][0]["memory"]["parts"]])


def test_text_use_cases_never_get_a_model_that_writes_no_text() -> None:
    for use_case in ("chat", "code", "rag", "reasoning", "agent"):
        for row in plan(use_case=use_case, ram_bytes=8 * GIB, os="linux", target="cpu", top=20)["recommendations"]:
            assert modalities()[find_model(row["model"]).modality].use_case in ("chat", "vision")


def test_retrieval_says_that_it_needs_an_embedding_model_besides() -> None:
    assert "--use-case embedding" in texts(plan(use_case="rag", **LAPTOP)["recommendations"][0])
