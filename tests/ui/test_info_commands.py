"""probe, history, knowledge, doctor through the command."""

import json
import os
from pathlib import Path

import pytest

from executors.history import Measured, record_run
from ui.verbs_info import COLUMNS

ROOT = Path(__file__).resolve().parents[2]


def measured(run_id: str, fingerprint: str) -> Measured:
    return Measured(
        run_id, "2026-11-23T10:15:00Z", fingerprint, "SmolLM2-135M-Instruct", "llama.cpp", "0.3.36", "cpu", "Q8_0",
        "decode_tps", 18.0, 40.0, 52.0, 34.0,
    )  # fmt: skip


def fingerprint(call) -> str:
    found: str = call("probe", "--no-bench", "--json").document["fingerprint"]
    return found


def test_probe_prints_the_profile_and_saves_it(call, tmp_path: Path) -> None:
    path = tmp_path / "machine.json"
    result = call("probe", "--no-bench", "--save", str(path), "--json")
    assert result.document["schema"] == "advisor.hardware/1"
    assert json.loads(path.read_text()) == result.document
    assert call("plan", "--profile", str(path), "--json").document["hardware"]["origin"] == "loaded"


def test_probe_shows_units_to_a_person(call) -> None:
    assert "GiB ram" in call("probe", "--no-bench").out


def test_history_is_of_this_machine_unless_all_are_asked_for(call) -> None:
    record_run([measured("here", fingerprint(call)), measured("elsewhere", "another")])
    assert [row["run_id"] for row in call("history", "--json").document["rows"]] == ["here"]
    assert len(call("history", "--all", "--json").document["rows"]) == 2
    assert "34 tok/s" in call("history").out
    assert call("history", "export", "--all").out.count("\n") == 3


def test_forgetting_a_run_leaves_the_others(call) -> None:
    record_run([measured("first", "another"), measured("second", "another")])
    assert call("history", "forget", "--run", "first", "--json").document["forgotten"] == 1
    assert [row["run_id"] for row in call("history", "--all", "--json").document["rows"]] == ["second"]


def test_forgetting_is_of_this_machine_unless_all_are_asked_for(call) -> None:
    record_run([measured("first", "another")])
    assert call("history", "forget", "--json").document["forgotten"] == 0
    assert call("history", "forget", "--all", "--json").document["forgotten"] == 1


@pytest.mark.parametrize("topic", COLUMNS)
def test_every_topic_has_rows_and_a_view(call, topic: str) -> None:
    document = call("knowledge", topic, "--json").document
    assert document["topic"] == topic
    assert document["rows"]
    key = "id" if topic in ("rules", "sources", "claims") else "name"
    name = document["rows"][0][key]
    assert name in "".join(call("knowledge", topic).out.split()) or name.split()[0] in call("knowledge", topic).out
    assert call("knowledge", topic, name).code == 0


@pytest.mark.parametrize(("topic", "name"), [("models", "smollm2-135m"), ("devices", "pi 5"), ("devices", "rtx4090")])
def test_names_are_found_in_their_usual_spellings(call, topic: str, name: str) -> None:
    assert len(call("knowledge", topic, name, "--json").document["rows"]) == 1


def test_every_row_says_where_it_is_from(call) -> None:
    for topic in ("models", "devices", "precisions", "frameworks", "rules", "claims"):
        assert all(row["source"] for row in call("knowledge", topic, "--json").document["rows"]), topic


def test_doctor_finds_this_installation_sound(call) -> None:
    document = call("doctor", "--json").document
    assert document["schema"] == "advisor.doctor/1"
    assert {check["id"] for check in document["checks"] if check["status"] == "fail"} == set()
    assert "python" in call("doctor").out


def test_doctor_finds_a_shadowed_package(start, tmp_path: Path) -> None:
    shadow = tmp_path / "elsewhere" / "probes"
    shadow.mkdir(parents=True)
    (shadow / "__init__.py").write_text("")
    result = start("doctor", "--json", PYTHONPATH=os.pathsep.join([str(shadow.parent), str(ROOT)]))
    broken = [check for check in result.document["checks"] if check["status"] == "fail"]
    assert result.code == 7
    assert [check["id"] for check in broken] == ["package-probes"]
    assert str(shadow) in broken[0]["text"]


@pytest.mark.parametrize(
    "command", [["doctor"], ["history"], ["toolchain", "list"], ["probe", "--no-bench"], ["plan", "embedded"]]
)
def test_a_home_that_cannot_be_looked_into_is_as_an_empty_one(
    call, command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADVISOR_HOME", str(tmp_path / ("h" * 300)))  # which refuses everybody, root too
    assert call(*command, "--json").code == 0


@pytest.mark.skipif(os.name != "posix", reason="the interpreter is a script")
def test_doctor_shows_what_is_no_text(call, advisor_home: Path) -> None:
    python = advisor_home / "toolchains" / "mlx" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\nprintf 'bad \\377' >&2\nexit 1\n")
    python.chmod(0o755)
    (python.parent / "toolchain.json").write_text(json.dumps({"python": str(python)}))
    found = {check["id"]: check for check in call("doctor", "--json").document["checks"]}
    assert found["mlx"]["text"] == "installed, but does not load: bad \N{REPLACEMENT CHARACTER}"


def test_doctor_raw_is_a_fixture_for_the_probes(call) -> None:
    from probes.probe import probe_machine
    from probes.reader import ReplayReader

    raw = call("doctor", "--raw", "--json").document["raw"]
    assert probe_machine(reader=ReplayReader(raw)).cpu.arch == probe_machine(bench=False).cpu.arch


def test_the_decision_tree_is_printed_for_other_programs(call) -> None:
    assert call("knowledge", "rules", "--graph", "mermaid").out.startswith("flowchart TD\n")
    graph = call("knowledge", "rules", "--graph", "dot", "--json").document["graph"]
    assert graph["text"].startswith("digraph")
    assert {"memory.fits", "ranked"} <= {node["id"] for node in graph["nodes"]}


@pytest.mark.parametrize("arguments", [("models", "--graph", "dot"), ("rules", "--graph", "png")])
def test_what_has_no_graph_is_refused(call, arguments: tuple[str, ...]) -> None:
    result = call("knowledge", *arguments)
    assert result.code == 2
    assert "hint:" in result.err


def test_claims_are_found_by_number_topic_and_verdict(call) -> None:
    (row,) = call("knowledge", "claims", "B9", "--json").document["rows"]
    assert (row["verdict"], row["source"]) == ("wrong", "llamacpp-quantize")
    wrong = call("knowledge", "claims", "wrong", "--json").document["rows"]
    assert {row["verdict"] for row in wrong} == {"wrong"}
    assert len(call("knowledge", "claims", "MLX", "--json").document["rows"]) == 12
    assert call("knowledge", "claims", "no such").code == 2
    assert "62.5 %" in call("knowledge", "claims", "B9").out


def test_the_course_s_matrix_is_shown_with_the_verdict(call) -> None:
    rows = {row["name"]: row for row in call("knowledge", "course", "platform", "--json").document["rows"]}
    assert rows["nvidia"]["verdict"] == "wrong"
    assert "openvino" in rows["intel"]["says"]


def test_a_precision_shows_its_bits_by_role_its_backends_and_what_it_was_found_to_keep(call) -> None:
    rows = call("knowledge", "precisions", "q4-k-m", "--json").document["rows"]
    assert [row["name"] for row in rows] == ["Q4_K_M"]
    assert rows[0]["bits_by_role"]["output"] == 6.5625
    assert rows[0]["bits_by_role"]["ffn_gate"] == 4.5
    assert "llama.cpp cpu" in rows[0]["backends"]
    assert all(row["source"] and 0 < row["retention"] <= 1.01 for row in rows[0]["evidence"])
    assert "0.919" in call("knowledge", "precisions", "Q4_K_M").out


def test_a_family_shows_the_recipe_of_each_framework(call) -> None:
    rows = call("knowledge", "precisions", "int4", "--json").document["rows"]
    assert [row["framework"] for row in rows] == ["llama.cpp", "openvino", "olive", "mlx"]
