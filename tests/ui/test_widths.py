"""No width of the terminal cuts a number: words wrap, names fold, rows become blocks, figures stay whole."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from test_views import REPORT

from ui.terminal import table
from ui.view_predict import show_accuracy
from ui.view_run import show_history, show_report

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "executors"))

from fake_run import MACHINE, FakeExecutor, fake_model, fake_plan

from executors.runner import run_plan

WIDTHS = (60, 80, 120)
FIGURE = re.compile(r"\(?[\d.,]*\d(?:-[\d.,]+)?[%)*]*")
PART = {
    "metric": "decode_tps", "framework": "llama.cpp", "device_kind": "apple", "split": "new device", "n": 12345,
    "mdape": 0.1234, "within_30": 0.5678, "over_2x": 0.0912, "coverage": 0.9034, "width": 1.04,
    "baselines": {"nearest neighbour": {"within_30": 0.42}},
}  # fmt: skip
MEASURED = {
    "run_id": "a-run", "model": "HuggingFaceTB/SmolLM2-135M-Instruct", "precision": "Q8_0+ffn_gate=Q5_0",
    "framework": "llama.cpp", "backend": "cpu", "framework_version": "0.3.36", "time": "2026-11-24T10:00:00",
    "metric": "quality_retention", "low": 0.9123, "mid": 0.9567, "high": 0.9891, "measured": 0.9455,
}  # fmt: skip


def figures(text: str) -> set[str]:
    return {word for word in text.split() if FIGURE.fullmatch(word)}


def assert_whole(show: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    wide = figures(show())
    assert wide
    for width in WIDTHS:
        monkeypatch.setenv("COLUMNS", str(width))
        shown = show()
        assert wide <= figures(shown), width
        lines = [line for line in shown.splitlines() if not line.startswith("  ")]  # commands are never wrapped
        assert max(map(len, lines)) <= width


@pytest.mark.parametrize(
    "words",
    [
        ("plan", "--chip", "Ryzen 7 5700X", "--ram", "32GB", "--os", "linux"),
        ("plan", "Qwen3-4B", "--chip", "RTX 4090", "--ram", "64GB", "--os", "windows"),
        ("plan", "--ram", "8GB", "--target", "npu"),
        ("plan", "--ram", "8GB", "--os", "linux", "--compare", "course"),
        *(("knowledge", topic) for topic in ("models", "devices", "precisions", "frameworks", "claims", "sources")),
        ("knowledge", "frameworks", "openvino"),
        ("knowledge", "devices", "RTX 4090"),
        ("toolchain", "list"),
    ],
    ids=" ".join,
)
def test_a_command_shows_its_numbers_whole(call, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    assert_whole(lambda: call(*words).out, monkeypatch)


def test_runs_and_accuracy_show_their_numbers_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for show in (
        lambda: show_report(REPORT),
        lambda: show_history([MEASURED], []),
        lambda: show_accuracy({"rows": 1, "left_out": {}, "partitions": [PART]}),
    ):
        capsys.readouterr()
        assert_whole(lambda show=show: (show(), capsys.readouterr().out)[1], monkeypatch)


def test_a_comparison_shows_its_numbers_whole(call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = fake_plan(fake_model(tmp_path / "model.gguf"), "Q8_0+ffn_gate=Q5_0")
    runs = [tmp_path / name for name in ("a-run", "another-run-with-a-long-name", "third")]
    for run in runs:
        run_plan(plan, run, machine=MACHINE, executor=FakeExecutor(tmp_path / "pids"))
    assert_whole(lambda: call("report", "compare", *map(str, runs)).out, monkeypatch)


CELL = st.one_of(
    st.from_regex(r"[0-9]{1,3}(,[0-9]{3}){0,3}(\.[0-9]{1,2})?( %| GiB)?", fullmatch=True),
    st.text("abcdefgh -", max_size=40).map(str.strip),
)


@given(st.lists(st.tuples(*[CELL] * 7), min_size=1, max_size=4), st.integers(40, 140))
def test_a_figure_is_never_broken_whatever_stands_beside_it(rows: list[tuple[str, ...]], width: int) -> None:
    columns = tuple("abcdefg")
    screen = Console(width=width)
    with screen.capture() as caught:
        screen.print(table(columns, rows, right=columns[2:]))
    for line in caught.get().splitlines():
        assert len(line) <= width
    for row in rows:
        for cell in row[2:]:
            if cell[:1].isdigit():
                assert cell in caught.get()
