"""What a person reads: the answer first, units everywhere, 80 columns, nothing untrusted that acts."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from house_gguf import House

from probes.profile import CPU, GPU, Disk, HardwareProfile, MemoryPool, OperatingSystem
from ui import terminal
from ui.view_info import show_profile
from ui.view_plan import show_plan
from ui.view_run import quantity, show_checklist, show_history, show_report

EVIL = "evil\x1b[2J[bold]x[/bold]\u202e"

REPORT: dict[str, Any] = {
    "status": "failed",
    "run_dir": "/tmp/a-run",
    "model": EVIL,
    "framework": "llama.cpp",
    "backend": "cpu",
    "precision": "Q8_0+ffn_gate=Q5_0",
    "reference": {"precision": "f16", "note": "dequantized from Q4_1"},
    "artifact": {"path": "artifact", "bytes": 1, "files": []},
    "steps": [
        {"id": "quantize", "kind": "quantize", "status": "done", "seconds": 61.5, "peak_rss_bytes": 1, "attempts": 1},
        {"id": "acquire", "kind": "acquire", "status": "cached", "seconds": 0.0, "peak_rss_bytes": 1, "attempts": 1},
    ],
    "gates": [
        {"id": "quality", "metric": "quality_retention", "op": ">=", "value": 0.95, "observed": 0.994,
         "level": "required", "result": "pass", "text": ""},
        {"id": "memory", "metric": "memory_ratio", "op": "<=", "value": 0.5, "observed": 0.51,
         "level": "required", "result": "fail", "text": ""},
        {"id": "decode", "metric": "decode_ratio", "op": ">=", "value": 2.0, "observed": None,
         "level": "advisory", "result": "inconclusive", "text": ""},
    ],
    "predicted_vs_measured": [
        {"metric": "artifact_bytes", "low": 99e6, "mid": 100e6, "high": 101e6, "measured": 100e6, "within": True},
        {"metric": "decode_tps", "low": None, "mid": None, "high": None, "measured": 48.0, "within": None},
    ],
    "why": {
        "reasons": [{"rule": "gate.both-pass", "text": "Expected to pass both."}],
        "alternatives": [
            {"precision": "Q6_K", "quality_retention": 0.981, "memory_ratio": 0.511, "basis": "measured",
             "would_miss": ["memory"]},
        ],
    },
    "rungs": [
        {"rung": 0, "precision": "Q4_0", "quality_retention": 0.807, "memory_ratio": 0.339, "result": "failed",
         "chosen": False},
        {"rung": 1, "precision": "Q8_0+ffn_gate=Q5_0", "quality_retention": 0.994, "memory_ratio": 0.51,
         "result": "failed", "chosen": True},
    ],
    "next": [{"text": "Serve it.", "command": "llama-server -m RUN_DIR/model.gguf"}],
}  # fmt: skip


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def assert_tame(text: str) -> None:
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_a_report_leads_with_the_verdict_and_shows_gates_with_units(capsys: pytest.CaptureFixture[str]) -> None:
    show_report(REPORT)
    out = capsys.readouterr().out
    assert out.strip().splitlines()[0] == "Failed: a required gate does not hold"
    assert re.search(r"memory +<= 50 % +51 % +required +fail", out)
    assert re.search(r"quality +>= 95 % +99.4 % +required +pass", out)
    assert re.search(r"decode +>= 2 x +not measured +advisory +inconclusive", out)
    assert re.search(r"decode_tps +not predicted +48 tok/s", out)
    assert "1 of 2 steps were done before" in out
    assert "/tmp/a-run/report.md" in out
    assert "llama-server -m /tmp/a-run/model.gguf" in out


def test_a_report_tells_what_was_considered_and_tried(capsys: pytest.CaptureFixture[str]) -> None:
    show_report(REPORT)
    out = capsys.readouterr().out
    assert "Expected to pass both." in out
    assert re.search(r"Q6_K +98.1 % +51.1 % +memory", out)
    assert re.search(r"Q4_0 +80.7 % +33.9 % +failed", out)


def test_untrusted_words_are_shown_and_do_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    show_report(REPORT)
    out = capsys.readouterr().out
    assert_tame(out)
    assert "[bold]x[/bold]" in out


def test_a_machine_is_shown_with_its_memory_and_doubts(capsys: pytest.CaptureFixture[str]) -> None:
    profile = HardwareProfile(
        origin="probed",
        device=EVIL,
        os=OperatingSystem(family="linux", name="Debian", version="12", container=True),
        cpu=CPU(vendor="amd", arch="x86_64", model="AMD EPYC", physical_cores=2, instruction_sets=("avx2",)),
        memory=(
            MemoryPool(id="ram", kind="ram", total_bytes=8 * 2**30, limit_bytes=4 * 2**30, measured_bandwidth_gbs=17.1),
        ),
        gpus=(GPU(vendor="nvidia", name="[red]RTX", pool="vram"),),
        disk=Disk(free_bytes=5 * 2**30),
        provenance={"gpus.0": {"source": "a guess", "confidence": "low"}},
    )
    show_profile(profile.as_json())
    out = capsys.readouterr().out
    assert_tame(out)
    assert "Debian 12 in a container" in out
    assert "8.00 GiB ram, limited to 4.00 GiB, 17.1 GB/s measured" in out.replace("\n", " ").replace("  ", " ")
    assert "[red]RTX" in out
    assert "Of low confidence: gpus.0" in out


def test_a_checklist_shows_what_was_verified(capsys: pytest.CaptureFixture[str]) -> None:
    item = {"id": "hashes", "phase": "deployment", "text": EVIL, "status": "pass", "evidence": "3 files"}
    show_checklist({"items": [item]})
    out = capsys.readouterr().out
    assert_tame(out)
    assert re.search(r"pass +evil", out)


def test_an_empty_history_names_the_first_command(capsys: pytest.CaptureFixture[str]) -> None:
    show_history([], [])
    assert "advisor quickstart" in capsys.readouterr().out


def test_a_plan_leads_with_its_recommendation_in_80_columns(call) -> None:
    result = call("plan", "--ram", "8GB", "--os", "linux")
    lines = result.out.splitlines()
    best = call("plan", "--ram", "8GB", "--os", "linux", "--json").document["recommendations"][0]
    assert result.code == 0
    assert lines[1].startswith(f"{best['model']} as {best['precision']}")
    assert max(map(len, lines)) <= 80
    assert "GiB of" in lines[2]


def test_needs_input_leads_with_every_vendor_s_answer(call) -> None:
    result = call("plan", "--ram", "8GB", "--target", "npu")
    head, _, rest = result.out.partition("One question")
    assert result.code == 3
    for vendor in ("Intel", "AMD", "Qualcomm", "Apple", "Rockchip"):
        assert vendor in head
    assert "--vendor" in rest
    assert "not on the NPU" in " ".join(rest.split())


def test_infeasible_says_what_would_have_to_change(call) -> None:
    result = call("plan", "--framework", "olive", "--os", "linux", "--ram", "1GB")
    assert result.code == 4
    assert result.out.strip().startswith("Nothing fits.")
    assert "What would have to change" in result.out


def test_explain_shows_the_path_and_every_rejection(call) -> None:
    document = call("plan", "--ram", "8GB", "--json").document
    out = call("plan", "--ram", "8GB", "--explain").out
    assert "The path through the decision tree" in out
    assert all(row["rule"].split(".")[0] in out for row in document["rejected"])


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["--ram", "8GB"], "ok"), (["--ram", "8GB", "--target", "npu"], "needs_input"), (["--ram", "64MB"], "infeasible")],
)
def test_every_status_of_a_plan_has_a_view(call, arguments: list[str], status: str) -> None:
    document = call("plan", *arguments, "--json").document
    assert document["status"] == status
    show_plan(document, explain=True)


@pytest.mark.parametrize(
    ("metric", "value", "words"),
    [
        ("artifact_bytes", 3 * 2**30, "3.00 GiB"),
        ("decode_tps", 12.345, "12.3 tok/s"),
        ("ttft_ms", 1840.0, "1,840 ms"),
        ("quality_retention", 0.9876, "98.8 %"),
        ("decode_ratio", 1.5, "1.5 x"),
        ("integrity", 1.0, "yes"),
        ("kl_divergence", 0.00912, "0.00912"),
        ("decode_tps", None, "not measured"),
    ],
)
def test_every_quantity_has_its_unit(metric: str, value: float | None, words: str) -> None:
    assert quantity(metric, value) == words


def test_an_interval_says_unknown_rather_than_zero() -> None:
    assert terminal.interval({"low": None, "mid": None, "high": None}) == "unknown"
    assert terminal.interval({"low": 12.0, "mid": 18.0, "high": 25.0}, "tok/s") == "18 tok/s (12 to 25)"
    assert terminal.interval({"low": 1.0, "mid": 1.0, "high": 1.0}, "%", 100) == "100 %"


@pytest.mark.parametrize(("seconds", "words"), [(8.31, "8.3 s"), (42, "42 s"), (125, "2 min 5 s"), (3780, "1 h 3 min")])
def test_durations_are_for_people(seconds: float, words: str) -> None:
    assert terminal.duration(seconds) == words


def test_commands_to_copy_run_in_the_shell_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = tmp_path / ".venv" / "bin"
    ours.mkdir(parents=True)
    for name in ("python", "advisor"):
        (ours / name).touch(mode=0o755)
    monkeypatch.setattr("sys.executable", str(ours / "python"))
    monkeypatch.setenv("PATH", "")
    monkeypatch.chdir(tmp_path)
    assert terminal.runnable("advisor check x") == ".venv/bin/advisor check x"
    assert terminal.runnable("llama-server -m x") == "llama-server -m x"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert terminal.runnable("advisor check x") == f"{ours}/advisor check x"
    monkeypatch.setenv("PATH", str(ours))
    assert terminal.runnable("advisor check x") == "advisor check x"


def test_a_plan_s_commands_can_be_pasted_whatever_the_model_is_called(call, tmp_path: Path) -> None:
    path = House().write(tmp_path / "x; touch p $(touch q).gguf")
    words = ("plan", str(path), "--framework", "mlx", "--ram", "16GB", "--chip", "Apple M2")
    made = [step["command"] for step in call(*words, "--json").document["plan"]["steps"]]
    shown = [line[2:] for line in call(*words).out.splitlines()]
    assert all(shlex.join(command) in shown for command in made if command[0] != "python")
    assert any(str(path) in shlex.split(line) for line in shown if "mlx_lm.convert" in line)


def test_paths_in_the_home_folder_are_short_and_still_work_in_a_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere/ada")
    assert terminal.shell_path("/somewhere/ada/runs/one") == "~/runs/one"
    assert terminal.shell_path("/somewhere/ada/my runs/one") == "'/somewhere/ada/my runs/one'"
    assert terminal.shell_path("/data/one") == "/data/one"
