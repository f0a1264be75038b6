"""Plans from somebody else: refused before anything runs, or harmless."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_run import MACHINE, FakeExecutor, fake_model, fake_plan

from advisor.plan import Plan, load_plan
from executors.runner import run_plan
from knowledge.base import AdvisorError

Change = Callable[[dict[str, Any]], Any]


def step(document: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in document["plan"]["steps"] if one["id"] == name)


def settings(document: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = step(document, name)["settings"]
    return found


def source(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = settings(document, "acquire")["source"]
    return found


OUTSIDE = [
    "/etc/passwd",
    "../out.gguf",
    "work/../../out",
    "~/out",
    "C:\\out",
    "work\\..\\out",
    "a\x00b",
    "",
    "\n",
    "w" * 400,
]
NOT_UNDER_WORK = [
    "plan.json",
    "steps/01-acquire/status.json",
    "work",
    ".",
    "./",
    "report.json",
    ".lock",
    "artifact/x.gguf",
    "work/x.partial",
]

REFUSED: dict[str, Change] = {
    **{
        f"output {path!r}": lambda d, p=path: settings(d, "quantize").update(output=p)
        for path in OUTSIDE + NOT_UNDER_WORK
    },
    **{
        f"input {path!r}": lambda d, p=path: settings(d, "quantize").update(input=p)
        for path in [*OUTSIDE, "work/none", "plan.json"]
    },
    **{
        f"scores {path!r}": lambda d, p=path: step(d, "reference").update(outputs=[p])
        for path in OUTSIDE + NOT_UNDER_WORK
    },
    "input is output": lambda d: settings(d, "quantize").update(output="work/reference.gguf"),
    "output in other case": lambda d: settings(d, "convert").update(output="work/SOURCE.gguf"),
    "output below output": lambda d: settings(d, "convert").update(output="work/source.gguf/x"),
    "same id twice": lambda d: step(d, "smoke").update(id="integrity"),
    "id with a path": lambda d: step(d, "smoke").update(id="../smoke"),
    "id of a temporary name": lambda d: step(d, "smoke").update(id="smoke.partial"),
    "id of a command": lambda d: step(d, "smoke").update(id="$(reboot)"),
    "kind and settings differ": lambda d: step(d, "quantize").update(kind="package"),
    "unknown settings": lambda d: settings(d, "quantize").update(shell="reboot"),
    "unknown kind": lambda d: settings(d, "quantize").update(kind="exec"),
    "two quantize steps": lambda d: d["plan"]["steps"].append({**step(d, "quantize"), "id": "again"}),
    "no package step": lambda d: d["plan"]["steps"].pop(),
    "other framework": lambda d: step(d, "quantize").update(framework="mlx"),
    "no such framework": lambda d: d["plan"].update(framework="rm -rf"),
    "a thousand steps": lambda d: d["plan"]["steps"].extend({**step(d, "smoke"), "id": f"s{n}"} for n in range(1000)),
    "a thousand rungs": lambda d: d["plan"]["ladder"].extend(d["plan"]["ladder"] * 1000),
    "type that is no type": lambda d: settings(d, "quantize").update(type="Q8_0; reboot"),
    "pattern that is a program": lambda d: settings(d, "quantize").update(
        tensor_types=[{"pattern": "(a+)+$", "type": "Q5_0"}]
    ),
    "negative size": lambda d: settings(d, "quantize").update(expected_bytes=-1),
    "absurd context": lambda d: settings(d, "smoke").update(context=2**31),
    "absurd blocks": lambda d: settings(d, "reference").update(blocks=10**9),
    "absurd pairs": lambda d: settings(d, "benchmark").update(pairs=10**6),
    "limit that is no number": lambda d: d["plan"]["gates"][2].update(value="NaN"),
    "model by a relative path": lambda d: source(d).update(path="model.gguf"),
    "model on a share": lambda d: source(d).update(path="//host/share/model.gguf"),
    "model with a null character": lambda d: source(d).update(path="/tmp/a\0b"),
    "model by half a character": lambda d: d["plan"].update(model="\ud800"),
    "model is a folder": lambda d: source(d).update(path="/"),
    "model is a device": lambda d: source(d).update(path="/dev/zero"),
    "model is a secret": lambda d: source(d).update(path="/etc/passwd"),
    "model is nowhere": lambda d: source(d).update(path="/nonexistent/model.gguf"),
    "model has another hash": lambda d: source(d).update(sha256="0" * 64),
    "model has another size": lambda d: source(d).update(file_bytes=7),
    "model id is an option": lambda d: source(d).update(kind="hub", hf_id="--help"),
    "nothing to run": lambda d: d.update(status="infeasible"),
    "nothing decided": lambda d: d.update(plan=None),
    "estimate of an exabyte": lambda d: step(d, "quantize")["estimate"].update(disk_bytes=2**60),
}


@pytest.mark.parametrize("change", REFUSED.values(), ids=REFUSED.keys())
def test_an_evil_plan_is_refused_before_a_worker_runs(change: Change, tmp_path: Path) -> None:
    document = fake_plan(fake_model(tmp_path / "model.gguf"), "Q8_0", ("Q6_K",)).as_json()
    change(document)
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(document))
    before = sorted(entry.name for entry in tmp_path.iterdir())
    executor = FakeExecutor(tmp_path / "pids")
    with pytest.raises(AdvisorError) as refused:
        run_plan(load_plan(path), tmp_path / "run", machine=MACHINE, executor=executor)
    assert refused.value.exit_code in (2, 4, 7)
    assert "\n" not in refused.value.message
    assert executor.ran == []
    assert {entry.name for entry in tmp_path.iterdir()} <= {*before, "run"}


def test_a_number_beyond_all_numbers_is_refused(tmp_path: Path) -> None:
    document = fake_plan(fake_model(tmp_path / "model.gguf"), "Q8_0").as_json()
    step(document, "smoke").update(settings={"kind": "guide", "values": {"blocks": 12345}})
    (tmp_path / "plan.json").write_text(json.dumps(document).replace("12345", "1e999"))
    with pytest.raises(AdvisorError) as refused:
        load_plan(tmp_path / "plan.json")
    assert (refused.value.code, refused.value.exit_code) == ("bad-plan", 2)


def test_a_command_in_a_plan_is_never_executed(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    document = fake_plan(fake_model(tmp_path / "model.gguf"), "Q8_0").as_json()
    for one in document["plan"]["steps"]:
        one["command"] = ["touch", str(mark)]
    run_plan(Plan.model_validate(document), tmp_path / "run", machine=MACHINE, executor=FakeExecutor(tmp_path / "pids"))
    assert not mark.exists()


@pytest.mark.parametrize("place", ["work", "steps", "artifact", "work/rungs"])
def test_a_link_in_a_run_folder_is_not_followed(place: str, tmp_path: Path) -> None:
    plan = fake_plan(fake_model(tmp_path / "model.gguf"), "Q8_0")
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run/plan.json").write_text(json.dumps(plan.as_json()))
    (tmp_path / "run" / place).parent.mkdir(exist_ok=True)
    (tmp_path / "run" / place).symlink_to(outside)
    with pytest.raises(AdvisorError, match="symbolic link"):
        run_plan(plan, tmp_path / "run", machine=MACHINE, executor=FakeExecutor(tmp_path / "pids"))
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("name", ["log.txt", "metrics.jsonl", "status.json", "olive.json"])
def test_a_link_in_a_step_folder_is_not_written_through(name: str, tmp_path: Path) -> None:
    plan = fake_plan(fake_model(tmp_path / "model.gguf"), "Q8_0")
    outside = tmp_path / "outside"
    outside.write_text("mine")
    (tmp_path / "run/steps/02-convert").mkdir(parents=True)
    (tmp_path / "run/plan.json").write_text(json.dumps(plan.as_json()))
    (tmp_path / "run/steps/02-convert" / name).symlink_to(outside)
    executor = FakeExecutor(tmp_path / "pids")
    with pytest.raises(AdvisorError, match="symbolic link"):
        run_plan(plan, tmp_path / "run", machine=MACHINE, executor=executor)
    assert executor.ran == []
    assert outside.read_text() == "mine"


def test_a_hub_model_that_may_not_be_downloaded_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = fake_plan(fake_model(tmp_path / "model.gguf"), "Q8_0").as_json()
    source(document).update(kind="hub", path="", hf_id="org/model")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf-home"))
    with pytest.raises(AdvisorError) as refused:
        run_plan(
            Plan.model_validate(document), tmp_path / "run", machine=MACHINE, executor=FakeExecutor(tmp_path / "pids")
        )
    assert (refused.value.code, refused.value.exit_code) == ("not-cached", 7)
