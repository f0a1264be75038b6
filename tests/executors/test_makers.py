"""The worker that waits between steps: used again, given up where it is too large or another is wanted, never left."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from executors.makers import Makers
from executors.process import Watch
from knowledge.base import GIB, AdvisorError

WORKER = """
import os, pathlib
def told(request):
    print("words of", request["op"], flush=True)
    scratch = pathlib.Path(request["scratch"])
    (scratch / request["op"]).touch()
    return {"pid": os.getpid(), "scratch": str(scratch), "found": sorted(path.name for path in scratch.iterdir())}
def fail(request):
    raise RuntimeError("told to")
OPERATIONS = {"build": told, "quantize": told, "fail": fail}
"""

Ask = Callable[..., dict[str, Any]]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two frameworks `one` and `two` whose worker is the one above, in this interpreter."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "worker.py").write_text(WORKER)
    monkeypatch.setattr("executors.process.extensions", lambda: {name: tmp_path / name for name in ("one", "two")})
    monkeypatch.setattr("executors.interpreters.module_of", lambda framework: "json")


def asker(makers: Makers, folder: Path) -> Ask:
    def ask(framework: str, op: str, *, keep: bool) -> dict[str, Any]:
        watch = Watch(folder / op / "log.txt", lambda _: None, 30, 30, None, None)
        return makers.ask(framework, {"op": op}, watch, scratch=folder / "scratch", keep=keep).result

    return ask


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.usefixtures("own")
def test_it_answers_the_next_step_and_ends(tmp_path: Path) -> None:
    ask = asker(Makers(GIB), tmp_path)
    first = ask("one", "build", keep=True)
    assert not is_gone(first["pid"])
    second = ask("one", "quantize", keep=False)
    assert second["pid"] == first["pid"]
    assert second["found"] == ["build", "quantize"]
    assert is_gone(first["pid"])
    assert not Path(first["scratch"]).exists()
    assert (tmp_path / "build/log.txt").read_text() == "words of build\n"
    assert (tmp_path / "quantize/log.txt").read_text() == "words of quantize\n"


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("most_idle_bytes", [0, 1024])
def test_none_waits_where_it_may_not(tmp_path: Path, most_idle_bytes: int) -> None:
    ask = asker(Makers(most_idle_bytes), tmp_path)
    first = ask("one", "build", keep=True)
    assert is_gone(first["pid"])
    second = ask("one", "quantize", keep=True)
    assert (second["pid"] != first["pid"], second["found"]) == (True, ["quantize"])


@pytest.mark.usefixtures("own")
def test_another_framework_or_the_run_s_end_takes_its_place(tmp_path: Path) -> None:
    makers = Makers(GIB)
    ask = asker(makers, tmp_path)
    first, second = ask("one", "build", keep=True), ask("two", "build", keep=True)
    assert is_gone(first["pid"])
    assert not is_gone(second["pid"])
    makers.close()
    assert is_gone(second["pid"])
    assert not list(tmp_path.glob(".scratch*"))


@pytest.mark.usefixtures("own")
def test_a_failure_ends_it(tmp_path: Path) -> None:
    ask = asker(Makers(GIB), tmp_path)
    first = ask("one", "build", keep=True)
    with pytest.raises(AdvisorError, match="told to"):
        ask("one", "fail", keep=True)
    assert is_gone(first["pid"])
    assert not Path(first["scratch"]).exists()
    assert ask("one", "build", keep=False)["pid"] != first["pid"]


@pytest.mark.usefixtures("own")
def test_one_that_died_while_it_waited_is_replaced(tmp_path: Path) -> None:
    ask = asker(Makers(GIB), tmp_path)
    first = ask("one", "build", keep=True)
    os.kill(first["pid"], signal.SIGKILL)
    os.waitid(os.P_PID, first["pid"], os.WEXITED | os.WNOWAIT)
    assert ask("one", "quantize", keep=False)["pid"] != first["pid"]
