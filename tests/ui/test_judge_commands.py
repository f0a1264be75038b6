"""validate and report, as a person calls them."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "executors"))

from fake_run import MACHINE, FakeExecutor, fake_model, fake_plan

from executors.runner import run_plan


@pytest.fixture
def run(tmp_path: Path) -> Path:
    plan = fake_plan(fake_model(tmp_path / "model.gguf"), "Q8_0+ffn_gate=Q5_0")
    run_plan(plan, tmp_path / "a-run", machine=MACHINE, executor=FakeExecutor(tmp_path / "pids"))
    return tmp_path / "a-run"


def test_runs_are_compared_as_a_table_as_markdown_and_as_json(call, run: Path) -> None:
    shown = call("report", "compare", str(run))
    assert shown.code == 0
    assert "a-run" in shown.out
    assert "98.5 %" in shown.out
    assert "## References" in call("report", "compare", str(run), "--markdown").out
    document = call("report", "compare", str(run), "--json").document
    assert document["runs"][0]["quality_retention"] == 0.985


def test_a_validation_is_shown_with_its_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    from ui.view_judge import show_validation

    model = {"path": "/models/m.gguf", "bytes": 100, "bits_per_weight": 8.5}
    gate = {"id": "integrity", "metric": "integrity", "op": "==", "value": 1, "observed": 0.0, "level": "required"}
    show_validation(
        {
            "status": "failed",
            "framework_version": "llama-cpp-python 0.3.36",
            "artifact": model,
            "reference": {**model, "note": "itself quantized"},
            "validation": {
                "integrity": {"status": "fail", "code": "wrong-values", "reason": "Its [red]scales\x1b[2J are zero."},
                "smoke": {}, "distribution": {}, "tasks": {},
            },
            "gates": [{**gate, "result": "fail", "text": "The integrity check failed: its scales are zero."}],
        }
    )  # fmt: skip
    out = capsys.readouterr().out
    assert "a required gate does not hold" in out
    assert "[red]scales" in out
    assert "\x1b" not in out
    assert "not run" in out


def test_validate_refuses_two_frameworks_at_once(call, tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    (tmp_path / "ir").mkdir()
    for name in ("openvino_model.xml", "openvino_model.bin"):
        (tmp_path / "ir" / name).write_bytes(b"")
    result = call("validate", str(tmp_path / "a.gguf"), "--reference", str(tmp_path / "ir"), "--json")
    assert result.code in (2, 6)  # 6: no llama.cpp here
    assert json.loads(result.out)["error"]["code"] in ("other-framework", "toolchain-missing")
