"""`advisor plan` as programs and people use it: streams, files, exit codes, determinism."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

ROOT = Path(__file__).resolve().parents[2]
REQUESTS = (
    ("plan", "--ram", "8GB", "--target", "npu", "--json"),
    ("plan", "--ram", "8GB", "--os", "linux", "--json"),
    ("plan", "embedded", "--ram", "4GB", "--framework", "llama.cpp", "--target", "cpu", "--json"),
)


@pytest.mark.parametrize("arguments", REQUESTS, ids=" ".join)
def test_the_same_request_gives_the_same_bytes_under_any_hash_seed(start, arguments: tuple[str, ...]) -> None:
    first, second = (start(*arguments, PYTHONHASHSEED=seed) for seed in ("0", "1"))
    assert first.out == second.out
    assert first.err == second.err == ""


@pytest.mark.parametrize(
    ("arguments", "code", "status"),
    [
        (("--ram", "8GB"), 0, "ok"),
        (("--ram", "8GB", "--target", "npu"), 3, "needs_input"),
        (("--ram", "64MB"), 4, "infeasible"),
    ],
)
def test_the_exit_code_is_the_status_s(call, arguments: tuple[str, ...], code: int, status: str) -> None:
    result = call("plan", *arguments, "--json")
    assert (result.code, result.document["status"]) == (code, status)


def test_offline_says_that_the_weights_are_not_here_and_that_a_run_would_stop(
    call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    words = ("plan", "Qwen3-0.6B", "--ram", "16GB", "--os", "linux", "--framework", "llama.cpp", "--offline")
    document = call(*words, "--json").document
    told = [text for text in document["warnings"] if text.startswith("Offline: the weights of Qwen/Qwen3-0.6B")]
    assert "exit code 7" in told[0]
    assert document["plan"]["steps"][0]["settings"]["offline"]
    assert "Offline: the weights" in call(*words).out
    assert "Offline: the weights" not in call(*words[:-1]).out
    weights = tmp_path / "models--Qwen--Qwen3-0.6B" / "snapshots" / ("a" * 40) / "model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"")
    (weights.parents[2] / "refs").mkdir()
    (weights.parents[2] / "refs" / "main").write_text("a" * 40)
    assert not any(text.startswith("Offline: the weights") for text in call(*words, "--json").document["warnings"])


def test_a_plan_is_valid_by_its_own_schema(call) -> None:
    schema = call("plan", "--schema", "--json").document
    for arguments in REQUESTS:
        jsonschema.validate(call(*arguments).document, schema)


def test_out_writes_the_plan_that_is_printed(call, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    result = call("plan", "--ram", "8GB", "--out", str(path), "--json")
    assert json.loads(path.read_text()) == result.document


def test_out_replaces_an_earlier_plan_and_nothing_else(call, tmp_path: Path) -> None:
    plan, notes = tmp_path / "plan.json", tmp_path / "notes.txt"
    notes.write_text("mine")
    assert call("plan", "--ram", "8GB", "--out", str(plan)).code == 0
    assert call("plan", "--ram", "16GB", "--out", str(plan)).code == 0
    assert json.loads(plan.read_text())["constraints"]["ram_bytes"] == 16 * 2**30
    assert call("plan", "--ram", "8GB", "--out", str(notes)).code == 2
    assert notes.read_text() == "mine"


def test_a_written_plan_is_read_back(call, tmp_path: Path) -> None:
    from advisor.plan import load_plan

    path = tmp_path / "plan.json"
    document = call("plan", "embedded", "--ram", "4GB", "--target", "cpu", "--out", str(path), "--json").document
    assert_within(document, load_plan(path).as_json())


def assert_within(part: Any, whole: Any) -> None:
    """Everything in `part` is in `whole`; a loaded plan has its defaults filled in besides."""
    if isinstance(part, dict):
        for key, value in part.items():
            assert_within(value, whole[key])
    elif isinstance(part, list):
        assert len(part) == len(whole)
        for one, other in zip(part, whole, strict=True):
            assert_within(one, other)
    else:
        assert part == whole


def test_a_saved_profile_already_says_its_memory(call, tmp_path: Path) -> None:
    from knowledge.base import write_json
    from probes.declared import declared_profile

    path = tmp_path / "machine.json"
    write_json(path, declared_profile(ram_bytes=8 * 2**30, os="linux").as_json())
    assert call("plan", "--profile", str(path), "--json").document["hardware"]["origin"] == "loaded"
    assert call("plan", "--profile", str(path), "--ram", "4GB", "--json").document["error"]["code"] == "contradiction"


def test_a_local_gguf_is_planned_by_its_own_tensors(call, small_gguf: Path) -> None:
    document = call(
        "plan", str(small_gguf), "--ram", "8GB", "--framework", "llama.cpp", "--target", "cpu", "--json"
    ).document
    assert document["status"] == "ok"
    assert document["plan"]["steps"][0]["settings"]["source"]["path"] == str(small_gguf)


def test_a_checklist_of_a_plan_is_to_do(call, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    call("plan", "embedded", "--ram", "4GB", "--target", "cpu", "--out", str(path))
    document = call("checklist", str(path), "--json").document
    assert document["schema"] == "advisor.checklist/1"
    assert {item["status"] for item in document["items"]} == {"todo"}
    assert "# Deployment checklist" in call("checklist", str(path), "--format", "md").out
    assert json.loads(call("checklist", str(path), "--format", "json").out) == document
    assert "Pre-deployment" in call("checklist", str(path)).out


@pytest.mark.parametrize("arguments", [("--device", "Raspberry Pi"), ("--device", "Jetson Orin")])
def test_a_name_that_fits_several_machines_is_a_question(call, arguments: tuple[str, ...]) -> None:
    result = call("plan", *arguments, "--json")
    assert (result.code, result.document["status"]) == (3, "needs_input")
    assert "can mean" in result.document["question"]["text"]
    jsonschema.validate(result.document, call("plan", "--schema", "--json").document)
    assert "--device" in call("plan", *arguments).out


def test_a_plan_reads_every_table_once() -> None:
    """Parsing one again for every option once made plans five times as slow."""
    code = """
import collections, contextlib, io, sys
import knowledge.tables as tables
read = collections.Counter()
document, table = tables.read_document, tables._table
tables.read_document = lambda name: read.update([name]) or document(name)
tables._table = lambda path: read.update([path.name]) or table(path)
from ui.cli import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main(["plan", "Llama-3.1-8B-Instruct", "--chip", "RTX 3090", "--ram", "32GB", "--json"])
print(len(read), *(name for name, times in read.items() if times > 1))
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    count, *twice = said.split()
    assert int(count) > 20
    assert not twice
