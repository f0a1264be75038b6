"""A run of an encoder from plan to report, with an executor that makes files and figures: what is left behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fake_run import MACHINE
from house_encoder import MATRICES, SMALL, encoder

from advisor.constraints import Constraints
from advisor.decide import make_plan
from advisor.plan import Plan, QuantizeSettings
from executors import report_html, report_md
from executors.artifacts import recognize
from executors.check import check_run
from executors.compare import compare_runs, figure_rows, markdown
from executors.embedding_tiers import groups
from executors.executor import Task
from executors.history import list_history
from executors.runner import run_plan
from executors.validate import validate
from executors.worker.encoding import copy_papers
from knowledge.base import AdvisorError, read_json
from knowledge.checkpoint import read_model_path
from knowledge.pooling import read_pooling
from probes.declared import declared_profile

WEIGHTS = 130_000
FRAMEWORKS = {"openvino": ("openvino_model.xml", "openvino_model.bin"), "olive": ("model.onnx",)}


class FakeEncoder:
    """Makes the files of a folder and keeps `retention` of the quality in `ratio` of 16 bits."""

    version = "fake 1"

    def __init__(self, framework: str, retention: float = 0.99, ratio: float = 0.51) -> None:
        self.framework, self.retention, self.ratio = framework, retention, ratio

    def run(self, task: Task) -> dict[str, Any]:
        kind = getattr(task.settings, "tier", task.settings.kind)
        if kind in ("convert", "quantize"):
            self.make(task.paths["input"], task.paths["output"], getattr(task.settings, "expected_bytes", 0))
            return {"bytes": 1}
        if kind == "reference":
            task.paths["output"].mkdir()
            (task.paths["output"] / "index.json").write_text("{}")
        if kind == "integrity":
            parameters = MATRICES + SMALL
            return {"status": "pass", "tensor_bytes": round(2 * parameters * self.ratio), "parameters": parameters}
        if kind == "distribution":
            return agreement(self.retention)
        if kind == "benchmark":
            return {side: timings(rate) for side, rate in (("reference", 100.0), ("artifact", 150.0))}
        return {"status": "pass"}

    def make(self, source: Path, output: Path, size: int) -> None:
        output.mkdir()
        copy_papers(source, output, ["config.json", *read_pooling(source).papers])
        *names, last = FRAMEWORKS[self.framework]
        for name in names:
            (output / name).write_text("<net/>")
        rest = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
        (output / last).write_bytes(bytes(max(1, (size or WEIGHTS) - rest)))


def agreement(retention: float) -> dict[str, Any]:
    def figure(value: float) -> dict[str, float]:
        return {"value": value, "stderr": 0.001, "low95": value - 0.002, "high95": value + 0.002}

    cosine = {"mean": 0.998, "min": 0.99, "stderr": 0.0001, "low95": 0.9978, "high95": 0.9982}
    shares = {key: figure(retention) for key in ("centred_cosine", "rank_correlation", "retention")}
    ndcg = {"reference": 0.97, "artifact": 0.96, "ratio": 0.99, "stderr": 0.001, "low95": 0.98, "high95": 0.99}
    counts = {"texts": 120, "tokens": 2000, "queries": 24, "documents": 96, "dimension": 64}
    top = {**figure(0.95), "top": 10}
    return {"status": "pass", **counts, "cosine_similarity": cosine, **shares, "top_overlap": top, "ndcg": ndcg}


def timings(rate: float) -> dict[str, list[float]]:
    series = {"sentences_per_second": rate, "sentence_ms": 1000 / rate, "load_seconds": 0.2, "peak_rss_bytes": 2e8}
    return {metric: [value * (1 + 0.01 * n) for n in range(5)] for metric, value in series.items()}


def plan_of(folder: Path, framework: str) -> Plan:
    machine = declared_profile(ram_bytes=8 * 2**30, vendor="intel", os="linux", target="cpu")
    asked = Constraints(model=str(folder), framework=framework, target="cpu", use_case="embedding")
    return Plan.model_validate(make_plan(asked, machine, read_model_path(folder)))


@pytest.fixture(params=FRAMEWORKS)
def framework(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def house(tmp_path: Path) -> Path:
    return encoder(tmp_path / "House-encoder")


@pytest.fixture
def finished(house: Path, tmp_path: Path, framework: str) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path / "run"
    return folder, run_plan(plan_of(house, framework), folder, machine=MACHINE, executor=FakeEncoder(framework))


def test_the_artifact_keeps_its_folders_and_every_file_has_its_hash(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, report = finished
    assert read_pooling(folder / "artifact").mode == "mean"
    listed = {file["path"] for file in report["artifact"]["files"]}
    assert "artifact/1_Pooling/config.json" in listed
    sums = (folder / "artifact" / "SHA256SUMS").read_text()
    assert "  1_Pooling/config.json\n" in sums
    statuses = {item["id"]: item["status"] for item in check_run(folder)["items"] if item["kind"] == "automatic"}
    assert {id_ for id_, status in statuses.items() if status != "pass"} <= {"artifact-header"}, "its graph is fake"


def test_the_report_speaks_of_vectors_and_not_of_tokens(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, report = finished
    assert (report["status"], report["kind"]) == ("passed", "embedding")
    assert [line["metric"] for line in report["predicted_vs_measured"]] == [
        "artifact_bytes", "peak_rss_bytes", "sentences_per_second", "quality_retention",
    ]  # fmt: skip
    assert report["performance"]["embedding_ratio"]["value"] == pytest.approx(1.5)
    for text in (report_md.render(report), report_html.render(report)):
        assert "mean cosine 0.9980" in text
        assert "texts/s" in text
        assert "perplexity" not in text
    assert "Rank correlation" in report_md.render(report)
    assert 'pipeline_tag: "sentence-similarity"' in (folder / "artifact" / "README.md").read_text()
    assert "LLMPipeline" not in json.dumps(report["next"])


def test_running_it_again_does_nothing_twice(finished: tuple[Path, dict[str, Any]], house: Path) -> None:
    folder, first = finished
    name = first["framework"]
    again = run_plan(plan_of(house, name), folder, machine=MACHINE, executor=FakeEncoder(name))
    assert {step["status"] for step in again["steps"]} == {"cached"}


def test_history_keeps_what_was_measured_of_it(finished: tuple[Path, dict[str, Any]]) -> None:
    rows = {row.metric: row for row in list_history() if row.run_id == finished[1]["run_id"]}
    assert {"artifact_bytes", "sentences_per_second", "quality_retention"} <= set(rows)
    assert rows["sentences_per_second"].mid is None


def test_quality_or_memory_missed_fails_the_run_with_its_words(house: Path, tmp_path: Path, framework: str) -> None:
    for name, executor in {
        "quality": FakeEncoder(framework, retention=0.5),
        "memory": FakeEncoder(framework, ratio=1.0),
    }.items():
        report = run_plan(plan_of(house, framework), tmp_path / name, machine=MACHINE, executor=executor)
        missed = [gate for gate in report["gates"] if gate["level"] == "required" and gate["result"] != "pass"]
        assert (report["status"], [gate["id"] for gate in missed]) == ("failed", [name])
        assert "misses the limit" in missed[0]["text"]


def test_runs_of_both_kinds_stand_side_by_side(finished: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, _ = finished
    other = tmp_path / "older"
    other.mkdir()
    text = read_json(folder / "report.json", "report")
    text |= {"validation": {**text["validation"], "distribution": {}}, "performance": {}}
    del text["kind"]  # as reports were before there were two
    (other / "report.json").write_text(json.dumps(text))
    (other / "plan.json").write_text((folder / "plan.json").read_text())
    rows = {row[0]: row[1:] for row in figure_rows(compare_runs([folder, other]))}
    assert rows["Mean cosine"] == ["0.9980", "–"]
    assert "Perplexity ratio" in rows
    alone = markdown(compare_runs([folder]))
    assert "Perplexity" not in alone
    assert "Same first ten" in alone


def test_a_folder_is_known_for_an_encoder_by_how_it_says_it_pools(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, report = finished
    found = recognize(folder)
    assert (found.framework, found.kind) == (report["framework"], "embedding")
    (folder / "artifact" / "modules.json").unlink()
    if report["framework"] == "openvino":
        assert recognize(folder / "artifact").kind == "text"
    else:
        with pytest.raises(AdvisorError, match="no model that advisor knows"):
            recognize(folder / "artifact")


def test_validation_alone_judges_it_by_the_same_gates(finished: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, report = finished
    executor = FakeEncoder(report["framework"])
    reference = next(path for path in (folder / "work").glob("reference-*") if (path / "modules.json").is_file())
    document = validate(folder, reference, tmp_path / "work", threads=1, executor=executor)
    assert (document["status"], document["kind"]) == ("passed", "embedding")
    own, here = ({g["id"]: g["value"] for g in d["gates"]} for d in (report, document))
    assert here == {key: value for key, value in own.items() if key != "peak-memory"}
    assert set(document["validation"]) == {"integrity", "smoke", "distribution", "tasks"}
    with pytest.raises(AdvisorError) as caught:
        validate(folder, "embedded", tmp_path / "other", threads=1, executor=executor)
    assert caught.value.code in ("no-reference", "toolchain-missing")


def test_the_plan_names_what_the_executor_gets(house: Path, framework: str) -> None:
    work = plan_of(house, framework).plan
    assert work is not None
    quantize = next(step.settings for step in work.steps if isinstance(step.settings, QuantizeSettings))
    made = quantize.compression.passes[0].mode if quantize.compression else quantize.onnx and quantize.onnx.dynamic
    assert made == {"openvino": "int8_asym", "olive": True}[framework]
    assert quantize.expected_bytes > 0
    assert len(groups()) >= 20
