"""Runs side by side: their figures as their reports have them, references on the same tokens, bad folders refused."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from fake_run import MACHINE, FakeExecutor, fake_model, fake_plan

from executors.compare import FIGURES, compare_runs, markdown
from executors.runner import run_plan
from knowledge.base import AdvisorError


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Two finished runs of one model, in Q8_0 and in a mix."""
    model, folders = fake_model(tmp_path / "model.gguf"), []
    for name, precision in (("one", "Q8_0"), ("two", "Q8_0+ffn_gate=Q5_0")):
        folders.append(tmp_path / name)
        run_plan(fake_plan(model, precision), folders[-1], machine=MACHINE, executor=FakeExecutor(tmp_path / "pids"))
    return folders


def change(folder: Path, **figures: Any) -> None:
    """Say something else in the distribution tier of a report."""
    document = json.loads((folder / "report.json").read_text())
    document["validation"]["distribution"] |= figures
    (folder / "report.json").write_text(json.dumps(document))


def test_figures_are_those_of_the_reports(runs: list[Path]) -> None:
    document = compare_runs(runs)
    assert document["schema"] == "advisor.compare/1"
    one, two = document["runs"]
    assert (one["name"], one["precision"], one["status"]) == ("one", "Q8_0", "failed")
    assert two["quality_retention"] == 0.985
    assert two["perplexity_ratio"] == pytest.approx(1 / 0.985)
    assert two["decode_ratio"] == pytest.approx(1.5)
    report = json.loads((runs[1] / "report.json").read_text())
    model = [file for file in report["artifact"]["files"] if file["path"].endswith(".gguf")]
    assert two["artifact_bytes"] == model[0]["bytes"]
    assert all(two[figure] is not None for figure in FIGURES)


def test_one_reference_row_serves_runs_that_share_it(runs: list[Path]) -> None:
    (reference,) = compare_runs(runs)["references"]
    assert reference["runs"] == ["one", "two"]
    assert reference["perplexity"] == 15.0


@pytest.mark.parametrize(
    ("texts", "tokens", "words"),
    [
        (("a", "a"), ("t", "t"), "can be compared"),
        (("a", "b"), ("t", "u"), "different texts"),
        (("a", "a"), ("t", "u"), "other tokens"),
        ((None, "a"), ("t", "t"), "with care"),
    ],
)
def test_it_is_said_whether_references_saw_the_same(
    runs: list[Path], texts: tuple[str, str], tokens: tuple[str, str], words: str
) -> None:
    for folder, text, token in zip(runs, texts, tokens, strict=True):
        change(folder, text_sha256=text, tokens_sha256=token)
    assert any(words in note for note in compare_runs(runs)["notes"])


def test_markdown_has_a_column_per_run_and_escapes(runs: list[Path]) -> None:
    text = markdown(compare_runs(runs))
    assert "| `one` | `two` |" in text
    assert "| Quality retention | 99.0 % | 98.5 % |" in text
    assert "15.000" in text


def test_two_folders_of_one_name_are_told_apart(runs: list[Path]) -> None:
    assert [run["name"] for run in compare_runs([runs[0], runs[0]])["runs"]] == ["one (1)", "one (2)"]


def test_folders_that_hold_no_finished_run_are_refused(runs: list[Path], tmp_path: Path) -> None:
    def refused(folder: Path) -> str:
        with pytest.raises(AdvisorError) as caught:
            compare_runs([runs[0], folder])
        assert caught.value.exit_code == 2
        return caught.value.code

    assert refused(tmp_path / "none") == "not-a-run"
    (runs[1] / "report.json").write_text(json.dumps({"schema": "advisor.run/1", "status": "error"}))
    assert refused(runs[1]) == "unfinished-run"
    (runs[1] / "report.json").write_text(json.dumps({"schema": "advisor.run/1", "status": "passed"}))
    assert refused(runs[1]) == "bad-report"
    (runs[1] / "report.json").write_text(json.dumps(["foreign"]))
    assert refused(runs[1]) == "bad-report"
    (runs[1] / "report.json").unlink()
    assert refused(runs[1]) == "unfinished-run"


def test_a_report_without_its_environment_is_refused(runs: list[Path]) -> None:
    document = json.loads((runs[1] / "report.json").read_text())
    (runs[1] / "report.json").write_text(json.dumps(document | {"environment": None}))
    with pytest.raises(AdvisorError) as caught:
        compare_runs(runs)
    assert caught.value.code == "bad-report"


def test_the_command_that_finishes_a_run_is_quoted(runs: list[Path], tmp_path: Path) -> None:
    odd = runs[1].rename(tmp_path / "it's two; runs")
    (odd / "report.json").unlink()
    with pytest.raises(AdvisorError) as caught:
        compare_runs([runs[0], odd])
    assert shlex.split(caught.value.hint.partition(": ")[2]) == ["advisor", "run", str(odd)]
