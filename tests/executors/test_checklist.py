"""`advisor check`: any byte that changed since the run fails the item that vouches for it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from fake_run import CHECKS, MACHINE, FakeExecutor, fake_model, fake_plan

from advisor.constraints import Constraints
from executors.check import CHECKS as REGISTRY
from executors.check import check_run, checklist_markdown, failed
from executors.runner import run_plan
from knowledge.base import AdvisorError
from ui.cli import main
from ui.verbs_plan import make_plan

MIX = "Q8_0+ffn_gate=Q5_0"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    plan = fake_plan(fake_model(folder / "model.gguf"), MIX)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADVISOR_HOME", str(folder / "home"))
        run_plan(plan, folder / "run", machine=MACHINE, executor=FakeExecutor(folder / "pids"))
    return folder / "run"


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy of a finished run, to be damaged."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def results(document: dict[str, Any]) -> dict[str, str]:
    return {item["id"]: item["status"] for item in document["items"]}


def flip(path: Path, place: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 0x10
    path.write_bytes(content)


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_finished_run_passes_its_automatic_items(folder: Path) -> None:
    document = check_run(folder)
    assert results(document) == {**dict.fromkeys(CHECKS, "pass"), "rollback": "todo"}
    assert not failed(document)
    assert document == json.loads((folder / "checklist.json").read_text())
    assert document["schema"] == "advisor.checklist/1"


@pytest.mark.parametrize("place", [0.0, 0.3, 1.0])
def test_a_flipped_byte_of_the_artifact_fails(place: float, folder: Path) -> None:
    flip(next(folder.glob("artifact/*.gguf")), place)
    document = check_run(folder)
    assert failed(document)
    assert results(document)["artifact-hashes"] == results(document)["manifest-complete"] == "fail"


@pytest.mark.parametrize(
    ("path", "item"),
    [
        ("report.md", "manifest-complete"),
        ("work/reference.gguf", "manifest-complete"),
        ("artifact/README.md", "artifact-hashes"),
        ("artifact/SHA256SUMS", "artifact-hashes"),
        ("steps/03-quantize/log.txt", "manifest-complete"),
    ],
)
def test_a_file_that_is_gone_or_changed_fails_its_item(path: str, item: str, folder: Path) -> None:
    (folder / path).write_text("other")
    assert results(check_run(folder))[item] == "fail"
    (folder / path).unlink()
    assert results(check_run(folder))[item] == "fail"


@pytest.mark.parametrize(
    ("path", "item"), [("artifact/extra.bin", "artifact-hashes"), ("extra.txt", "manifest-complete")]
)
def test_a_file_that_the_run_did_not_make_fails(path: str, item: str, folder: Path) -> None:
    (folder / path).write_text("other")
    assert results(check_run(folder))[item] == "fail"


@pytest.mark.parametrize(("path", "item"), [("artifact/more", "artifact-hashes"), ("more", "manifest-complete")])
def test_a_link_to_a_folder_fails(path: str, item: str, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (folder / path).symlink_to(tmp_path / "elsewhere")
    assert results(check_run(folder))[item] == "fail"


def test_a_plan_that_requires_nothing_has_not_passed_its_gates(folder: Path) -> None:
    plan = json.loads((folder / "plan.json").read_text())
    plan["plan"]["gates"] = [gate | {"level": "advisory"} for gate in plan["plan"]["gates"]]
    (folder / "plan.json").write_text(json.dumps(plan))
    item = next(item for item in check_run(folder)["items"] if item["id"] == "gates-passed")
    assert (item["status"], item["evidence"]) == ("fail", "the plan requires no gate")


def test_an_edited_verdict_does_not_help(tmp_path: Path) -> None:
    plan = fake_plan(fake_model(tmp_path / "model.gguf"), "Q8_0")
    run_plan(plan, tmp_path / "run", machine=MACHINE, executor=FakeExecutor(tmp_path / "pids"))
    edit(tmp_path / "run/report.json", status="passed", gates=[])
    assert results(check_run(tmp_path / "run"))["gates-passed"] == "fail"


def test_a_model_file_that_is_gone_fails_its_items(folder: Path) -> None:
    model = next(folder.glob("artifact/*.gguf"))
    model.unlink()
    document = check_run(folder)
    missed = {item for item, status in results(document).items() if status == "fail"}
    assert missed == {"artifact-hashes", "size-matches-prediction", "manifest-complete"}
    size = next(item for item in document["items"] if item["id"] == "size-matches-prediction")
    assert size["evidence"] == f"{model.name} cannot be read: No such file or directory"
    assert main(["check", str(folder)]) == 5


def test_a_report_without_the_size_fails_its_item(folder: Path) -> None:
    edit(folder / "report.json", predicted_vs_measured=[])
    assert results(check_run(folder))["size-matches-prediction"] == "fail"


@pytest.mark.parametrize("name", ["report.json", "manifest.json"])
@pytest.mark.parametrize("content", ["", "{}", "[]", '{"schema": "advisor.run/1", "status": "passed"}', "\x00\xff"])
def test_a_broken_document_fails_without_a_traceback(name: str, content: str, folder: Path) -> None:
    (folder / name).write_text(content)
    assert failed(check_run(folder))


def test_an_unfinished_run_fails_its_automatic_items(tmp_path: Path) -> None:
    plan = fake_plan(fake_model(tmp_path / "model.gguf"), MIX)
    with pytest.raises(AdvisorError):
        run_plan(plan, tmp_path / "run", machine=MACHINE, executor=FakeExecutor(tmp_path / "pids", fail={"smoke": "x"}))
    assert set(results(check_run(tmp_path / "run")).values()) == {"fail", "todo"}


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AdvisorError, match="holds no run"):
        check_run(tmp_path)


def test_the_markdown_ticks_what_passed_and_escapes_its_strings(folder: Path) -> None:
    document = check_run(folder)
    document["items"][0]["text"] = "<b>[x](http://evil)\n# hi"
    text = checklist_markdown(document)
    assert text.count("- [x]") == len(CHECKS)
    assert "<b>" not in text
    assert "\n# hi" not in text


def test_every_check_that_items_can_name_is_described() -> None:
    import executors.check

    assert all(f"`{name}`" in (executors.check.__doc__ or "") for name in REGISTRY)


def test_the_checklist_page_escapes_what_models_say() -> None:
    from executors.report_html import render_checklist

    item = {
        "id": "x", "phase": "deployment", "text": "<script>alert(1)</script>", "kind": "manual", "command": "",
        "status": "todo", "evidence": "", "why": "a & b", "how": "",
    }  # fmt: skip
    page = render_checklist({"schema": "advisor.checklist/1", "items": [item]})
    assert "<script>" not in page
    assert "a &amp; b" in page
    assert "http" not in page.replace("http-equiv", "")


@pytest.mark.parametrize("framework", ["llama.cpp", "openvino", "olive", "mlx"])
def test_every_item_of_the_course_is_there_for_every_framework(framework: str) -> None:
    course = {
        "pre-deployment": {"accuracy", "performance-targets", "security", "stress", "failure-recovery",
                           "monitoring-configured", "rollback-tested"},
        "deployment": {"blue-green", "gradual", "dashboards", "baselines", "error-thresholds", "rollback-triggers"},
        "post-deployment": {"drift", "degradation", "resources", "user-experience", "lineage", "reviews"},
    }  # fmt: skip
    machine = (
        {"chip": "Apple M3", "os": "macos"} if framework == "mlx" else {"chip": "Core Ultra 7 258V", "os": "linux"}
    )
    asked = Constraints(model="Qwen2.5-0.5B-Instruct", framework=framework, ram_bytes=16 * 2**30, **machine)
    items = make_plan(asked)["plan"]["checklist"]
    for phase, ids in course.items():
        assert ids <= {item["id"] for item in items if item["phase"] == phase}, phase
    assert all(item["why"] and item["how"] and "{" not in item["text"] + item["how"] for item in items)
    assert all(item["command"] for item in items if item["kind"] == "automatic")
    assert any(framework in item["text"] + item["how"] for item in items)
