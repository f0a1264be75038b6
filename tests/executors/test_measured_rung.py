"""A rung whose mix is found on the run: measured when it is reached, kept, and never repeated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fake_run import MACHINE, MEMORY, QUALITY, FakeExecutor, fake_model, fake_plan

from advisor.plan import Plan, Rung, load_plan
from executors.runner import run_plan
from executors.schedule import schedule
from knowledge.base import AdvisorError
from ui.view_run import show_report

MIX = {
    "groups": ["ffn_gate"],
    "tensor_bytes": 20_000,
    "kl_divergence": 0.006,
    "retention": 0.99,
    "precision": "Q8_0+ffn_gate=Q5_0",
    "tensor_types": [{"pattern": "ffn_gate", "type": "Q5_0"}],
    "expected_bytes": 0,
}


class Measuring(FakeExecutor):
    mix: dict[str, Any] | None = MIX

    def answer(self, name: str, precision: str) -> dict[str, Any]:
        if name == "sensitivity":
            return {"base": "Q8_0", "lower": "Q5_0", "tokens": 1024, "measured": [], "mix": self.mix}
        return super().answer(name, precision)


@pytest.fixture
def executor(tmp_path: Path) -> Measuring:
    return Measuring(tmp_path / "pids")


def plan_with_measured_rung(tmp_path: Path, precision: str = "Q8_0") -> Plan:
    plan = fake_plan(fake_model(tmp_path / "model.gguf"), precision, ("Q6_K",))
    assert plan.plan is not None
    last = plan.plan.ladder[-1]
    measured = last.model_copy(
        update={"precision": "Q8_0+measured", "type": "Q8_0", "lower": "Q5_0", "expected_bytes": 0}
    )
    return plan.model_copy(update={"plan": plan.plan.model_copy(update={"ladder": [last, measured]})})


def test_a_measured_rung_is_searched_then_tried_and_named_by_what_was_found(
    tmp_path: Path, executor: Measuring, capsys: pytest.CaptureFixture[str]
) -> None:
    assert MEMORY["Q8_0"] > 0.5
    assert MEMORY["Q6_K"] > 0.5
    assert QUALITY[str(MIX["precision"])] > 0.95
    report = run_plan(
        plan_with_measured_rung(tmp_path), tmp_path / "run", machine=MACHINE, executor=executor, escalate=True
    )
    assert report["status"] == "passed"
    assert report["precision"] == MIX["precision"]
    assert [rung["precision"] for rung in report["rungs"]] == ["Q8_0", "Q6_K", MIX["precision"]]
    assert "ffn_gate in Q5_0" in report["rungs"][-1]["why"]
    assert executor.ran.count("sensitivity") == 1
    assert report["sensitivity"]["mix"] == MIX
    expected = next(row for row in report["predicted_vs_measured"] if row["metric"] == "quality_retention")
    assert expected["mid"] == pytest.approx(MIX["retention"])
    assert expected["low"] < expected["mid"] < expected["high"]
    show_report({**report, "run_dir": str(tmp_path / "run")})
    printed = capsys.readouterr()
    assert str(MIX["precision"]) in printed.out + printed.err


def test_without_escalation_nothing_is_measured(tmp_path: Path, executor: Measuring) -> None:
    report = run_plan(plan_with_measured_rung(tmp_path), tmp_path / "run", machine=MACHINE, executor=executor)
    assert report["status"] == "failed"
    assert "sensitivity" not in executor.ran
    assert "sensitivity" not in report


def test_a_finished_measurement_is_kept_by_the_next_run(tmp_path: Path, executor: Measuring) -> None:
    folder = tmp_path / "run"
    run_plan(plan_with_measured_rung(tmp_path), folder, machine=MACHINE, executor=executor, escalate=True)
    executor.ran.clear()
    report = run_plan(load_plan(folder / "plan.json"), folder, machine=MACHINE, executor=executor, escalate=True)
    assert executor.ran == []
    assert report["precision"] == MIX["precision"]


@pytest.mark.parametrize("found", [None, {**MIX, "precision": "Q6_K", "tensor_types": [], "groups": []}])
def test_a_search_that_finds_nothing_new_ends_the_ladder(
    found: dict[str, Any] | None, tmp_path: Path, executor: Measuring
) -> None:
    executor.mix = found
    report = run_plan(
        plan_with_measured_rung(tmp_path), tmp_path / "run", machine=MACHINE, executor=executor, escalate=True
    )
    assert report["status"] == "failed"
    assert [rung["precision"] for rung in report["rungs"]] == ["Q8_0", "Q6_K"]
    assert all("--escalate" not in step["command"] for step in report["next"])


def test_a_measured_rung_needs_a_reference(tmp_path: Path) -> None:
    plan = plan_with_measured_rung(tmp_path)
    assert plan.plan is not None
    without = [step for step in plan.plan.steps if step.kind != "convert"]
    with pytest.raises(AdvisorError, match="16-bit reference"):
        schedule(plan.model_copy(update={"plan": plan.plan.model_copy(update={"steps": without})}))


def test_the_share_of_the_bytes_is_bounded() -> None:
    with pytest.raises(ValueError, match="memory_ratio"):
        Rung.model_validate({"precision": "Q8_0+measured", "type": "Q8_0", "memory_ratio": 0.0, "why": ""})
