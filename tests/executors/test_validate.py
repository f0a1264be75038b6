"""Validation alone: what is recognized, in which order it is judged, what is kept, what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from fake_run import distribution

from executors import reference_cache
from executors.artifacts import digest, recognize
from executors.executor import Task
from executors.process import Event
from executors.validate import validate
from knowledge.base import AdvisorError


class Tiers:
    """An executor whose answers are given by tier; `ran` lists what it was asked."""

    version = "tiers 1"

    def __init__(self, **answers: Any) -> None:
        self.answers, self.ran = answers, []

    def run(self, task: Task) -> dict[str, Any]:
        tier = task.settings.tier  # type: ignore[union-attr]
        self.ran.append(tier)
        if tier == "reference":
            task.paths["output"].mkdir()
            (task.paths["output"] / "index.json").write_text("{}")
        if tier == "distribution":
            assert (task.paths["store"] / "index.json").is_file()
        found = self.answers.get(tier, {})
        if isinstance(found, AdvisorError):
            raise found
        if tier == "integrity":
            sixteen = "f16" in task.paths["artifact"].name
            return {"status": "pass", "tensor_bytes": 2000 if sixteen else 900, "parameters": 1000} | found
        if tier == "distribution":
            return distribution(0.98) | found
        if tier == "tasks":
            return {"status": "pass", "retention": {"value": 1.0, "low95": 0.9, "high95": 1.1}} | found
        return {"status": "pass"} | found


FAILED = {"status": "fail", "code": "wrong-values", "reason": "90 % of the scales are zero."}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for name in ("f16.gguf", "q.gguf"):
        (tmp_path / name).write_bytes(b"GGUF" + name.encode())
    return tmp_path


def judged(models: Path, executor: Tiers, artifact: str = "q.gguf", reference: str = "f16.gguf") -> dict[str, Any]:
    return validate(models / artifact, models / reference, models / "out", threads=1, executor=executor)


def test_a_sound_artifact_passes_every_tier_in_order(models: Path) -> None:
    executor = Tiers()
    document = judged(models, executor)
    assert document["status"] == "passed"
    assert executor.ran == ["integrity", "integrity", "smoke", "reference", "distribution", "tasks"]
    assert document["artifact"]["bits_per_weight"] == 7.2
    assert json.loads((models / "out/validation.json").read_text()) == document
    results = {gate["id"]: (gate["level"], gate["result"]) for gate in document["gates"]}
    assert results["memory"] == ("required", "pass")
    assert results["tasks"] == ("advisory", "inconclusive")


@pytest.mark.parametrize(
    ("names", "total"),
    [
        (("model.gguf",), 6),
        (("config.json", "model.safetensors"), 7),
        (("openvino_model.xml", "openvino_model.bin", "modules.json"), 5),
    ],
    ids=["llama.cpp", "mlx", "encoder"],
)
def test_the_last_step_is_as_many_as_were_announced(tmp_path: Path, names: tuple[str, ...], total: int) -> None:
    artifact, reference = (folder(tmp_path / name, *names) for name in ("artifact", "reference"))
    events: list[Event] = []
    validate(artifact, reference, tmp_path / "out", threads=1, executor=Tiers(), on_event=events.append)
    steps = [event for event in events if event["type"] == "step"]
    assert {event["total"] for event in steps} == {total}
    assert steps[-1]["index"] == total


def test_the_reference_is_scored_once(models: Path) -> None:
    judged(models, Tiers())
    second = Tiers()
    judged(models, second)
    assert "reference" not in second.ran
    (models / "f16.gguf").write_bytes(b"GGUF another")
    third = Tiers()
    judged(models, third)
    assert "reference" in third.ran


def test_damaged_scores_are_made_anew_once(models: Path) -> None:
    judged(models, Tiers())
    broken = Tiers(distribution=AdvisorError("bad-reference", "It was changed.", "-", 7))
    with pytest.raises(AdvisorError, match="It was changed"):
        judged(models, broken)
    assert broken.ran.count("reference") == 1


@pytest.mark.parametrize("tier", ["integrity", "smoke", "distribution", "tasks"])
def test_the_first_tier_that_fails_ends_it_with_the_reason(models: Path, tier: str) -> None:
    class Failing(Tiers):
        def run(self, task: Task) -> dict[str, Any]:
            found = super().run(task)
            wrong = task.settings.tier == tier and "q" in task.paths.get("artifact", Path("-")).name  # type: ignore[union-attr]
            return dict(FAILED) if wrong else found

    document = judged(models, Failing())
    tiers = ["integrity", "smoke", "distribution", "tasks"]
    assert [name for name in tiers if document["validation"][name]] == tiers[: tiers.index(tier) + 1]
    assert any(FAILED["reason"] in gate["text"] for gate in document["gates"])
    assert document["status"] == ("passed" if tier == "tasks" else "failed")


def test_an_artifact_that_kills_its_framework_has_failed(models: Path) -> None:
    document = judged(models, Tiers(smoke=AdvisorError("worker-died", "The worker was killed (SIGABRT).", "-", 7)))
    assert document["status"] == "failed"
    assert document["validation"]["smoke"]["code"] == "worker-died"


def test_a_damaged_reference_is_bad_input(models: Path) -> None:
    with pytest.raises(AdvisorError, match="90 %") as refused:
        judged(models, Tiers(integrity=FAILED))
    assert (refused.value.code, refused.value.exit_code) == ("bad-reference", 2)


def test_a_16_bit_artifact_has_no_memory_to_save(models: Path) -> None:
    (models / "other-f16.gguf").write_bytes(b"GGUF")
    document = judged(models, Tiers(), artifact="other-f16.gguf")
    assert "memory" not in {gate["id"] for gate in document["gates"]}


def test_a_quantized_reference_is_said_to_be_one(models: Path) -> None:
    assert "itself quantized" in judged(models, Tiers(), reference="q.gguf")["reference"]["note"]


# ---- what an artifact is


def folder(path: Path, *names: str) -> Path:
    path.mkdir()
    for name in names:
        (path / name).write_bytes(b"x")
    return path


def test_artifacts_are_recognized_by_what_they_hold(tmp_path: Path) -> None:
    gguf = folder(tmp_path / "one", "model.gguf", "README.md")
    assert recognize(gguf).path == gguf / "model.gguf"
    assert recognize(gguf / "model.gguf").framework == "llama.cpp"
    openvino = folder(tmp_path / "ir", "openvino_model.xml", "openvino_model.bin", "config.json")
    assert (recognize(openvino).framework, recognize(openvino).path) == ("openvino", openvino)
    assert recognize(folder(tmp_path / "ort", "genai_config.json", "model.onnx")).framework == "olive"
    assert recognize(folder(tmp_path / "mlx", "config.json", "model.safetensors")).framework == "mlx"


def test_a_run_stands_for_its_artifact(tmp_path: Path) -> None:
    folder(tmp_path / "run", "plan.json")
    folder(tmp_path / "run/artifact", "model.gguf")
    assert recognize(tmp_path / "run").path.name == "model.gguf"


@pytest.mark.parametrize(
    ("names", "code"),
    [(("notes.txt",), "unknown-artifact"), (("a.gguf", "b.gguf"), "several-models"), ((), "unknown-artifact")],
)
def test_what_is_no_single_model_is_refused(tmp_path: Path, names: tuple[str, ...], code: str) -> None:
    with pytest.raises(AdvisorError) as refused:
        recognize(folder(tmp_path / "it", *names))
    assert (refused.value.code, refused.value.exit_code) == (code, 2)


def test_what_is_not_there_and_what_is_for_another_framework_are_refused(models: Path) -> None:
    with pytest.raises(AdvisorError, match="no model at"):
        recognize(models / "none.gguf")
    folder(models / "ir", "openvino_model.xml", "openvino_model.bin")
    with pytest.raises(AdvisorError) as refused:
        judged(models, Tiers(), reference="ir")
    assert refused.value.code == "other-framework"


def test_a_folder_s_digest_tells_any_change_of_any_file(tmp_path: Path) -> None:
    path = folder(tmp_path / "ir", "openvino_model.xml", "openvino_model.bin")
    before = digest(recognize(path))
    (path / "openvino_model.bin").write_bytes(b"y")
    assert digest(recognize(path)) != before


def test_the_scores_used_longest_ago_go_first(tmp_path: Path) -> None:
    stores = [folder(tmp_path / name, "index.json") for name in "abc"]
    for age, store in enumerate(stores):
        (store / "logprobs.f16").write_bytes(bytes(1000))
        os.utime(store, (1000 + age, 1000 + age))
    reference_cache.prune(stores[0], limit_bytes=2100)
    assert [store.exists() for store in stores] == [True, False, True]
