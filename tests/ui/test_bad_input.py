"""Bad input, from the start: one sentence, a hint, exit 2, the JSON error; never a traceback."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import bad_inputs
import pytest

from ui.cli import main

SAMPLE = bad_inputs.ALL[:: max(1, len(bad_inputs.ALL) // 6)]


def label(arguments: list[str]) -> str:
    return " ".join(arguments)[:60] or "nothing"


def assert_refused(arguments: list[str], code: int, out: str, err: str) -> None:
    assert code == 2, (arguments, out, err)
    document = json.loads(out)
    assert document["status"] == "error"
    assert set(document["error"]) == {"code", "message", "hint"}
    assert all(isinstance(words, str) and words.strip() for words in document["error"].values())
    assert document["error"]["code"] != "internal"
    assert all(words.isprintable() for words in document["error"].values())
    assert "Traceback" not in err
    assert document["error"]["message"] in err


def test_there_are_at_least_120_bad_inputs() -> None:
    assert len({tuple(row) for row in bad_inputs.ALL}) == len(bad_inputs.ALL) >= 120


@pytest.mark.parametrize("arguments", bad_inputs.ALL, ids=label)
def test_bad_input_is_one_sentence(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    filled = [*bad_inputs.fill(arguments, tmp_path), "--json"]
    start = time.monotonic()
    code = main(filled)
    assert time.monotonic() - start < 5
    assert_refused(filled, code, *capsys.readouterr())


WITH_PEAK = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[2:], timeout=30).returncode
with open(sys.argv[1], "w") as file:
    print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=file)
"""  # a small parent: what a child reports as its peak is at least that of the process it was forked from


def refused_as_process(arguments: list[str], folder: Path) -> None:
    filled = [argument.replace("\0", "") for argument in bad_inputs.fill(arguments, folder)]  # no program gets a NUL
    out, err, ended = folder / "out.txt", folder / "err.txt", folder / "ended.txt"
    command = [sys.executable, "-c", WITH_PEAK, str(ended), sys.executable, "-m", "ui.cli", *filled, "--json"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    start = time.monotonic()
    with out.open("wb") as stdout, err.open("wb") as stderr:
        subprocess.run(command, cwd=folder, env=environment, stdout=stdout, stderr=stderr, check=True)
    assert time.monotonic() - start < 5
    code, peak_kib = map(int, ended.read_text().split())
    assert peak_kib < 500 * 1024
    assert_refused(filled, code, out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8"))


@pytest.mark.parametrize("arguments", SAMPLE, ids=label)
def test_bad_input_ends_the_process_with_2(arguments: list[str], tmp_path: Path) -> None:
    refused_as_process(arguments, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", bad_inputs.ALL, ids=label)
def test_every_bad_input_ends_the_process_in_time_and_memory(arguments: list[str], tmp_path: Path) -> None:
    refused_as_process(arguments, tmp_path)
