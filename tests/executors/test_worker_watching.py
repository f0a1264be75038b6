"""A worker may die, hang, grow, lie or leave children: one AdvisorError each time, and no process left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from executors.interpreters import interpreter_for
from executors.process import Watch, Worker, WorkerResult, run_worker
from executors.toolchain import installed_version
from knowledge.base import EXIT_INTERRUPTED, EXIT_STEP_FAILED, EXIT_TOOLCHAIN_MISSING, MIB, AdvisorError

REPOSITORY = Path(__file__).resolve().parents[2]

# A worker that does as it is told. Its children inherit its group, not its pipes.
FAKE = """
import json, os, signal, subprocess, sys, threading, time
request = json.loads(sys.stdin.readline())
def say(**event): print(json.dumps(event), flush=True)
def child():
    quiet = dict(stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], **quiet).pid
op = request["op"]
while op == "again":
    say(type="result", result={"echo": request["echo"], "pid": os.getpid()})
    request = json.loads(sys.stdin.readline())
    op = request["op"]
if op == "ok":
    say(type="progress", done=1, total=2, text="half\\x1b[31m")
    say(type="metric", name="m", value=3)
    say(type="result", result={"echo": request["echo"], "argv": sys.argv[1:], "peak_rss_bytes": 1})
elif op == "pids":
    say(type="metric", name="pids", value=[os.getpid(), child()])
    if request.get("then") == "result":
        say(type="result", result={})
    time.sleep(600)
elif op == "kill":
    print("GGML_ASSERT(n > 0) failed", file=sys.stderr, flush=True)
    os.kill(os.getpid(), getattr(signal, request["signal"]))
elif op == "exit":
    print("no such thing", file=sys.stderr, flush=True)
    sys.exit(request["status"])
elif op == "grow":
    hoard = [bytearray(os.urandom(1 << 20)) for _ in range(300)]
    time.sleep(600)
elif op == "silent":
    time.sleep(600)
elif op == "busy":
    while True:
        say(type="progress", done=0, total=1, text="")
        time.sleep(0.02)
elif op == "raw":
    sys.stdout.buffer.write(request["bytes"].encode() * request.get("times", 1)); sys.stdout.flush()
    time.sleep(request.get("wait", 0))
elif op == "close":
    os.close(1); time.sleep(600)
elif op == "error":
    say(type="error", **request["event"])
    time.sleep(600)
elif op == "unread":
    say(type="result", result={"length": len(request["blob"])})
elif op == "crash-after":
    say(type="result", result={"done": True})
    os.kill(os.getpid(), signal.SIGSEGV)
"""


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    folder = tmp_path / "fake"
    folder.mkdir()
    (folder / "__main__.py").write_text(FAKE)
    return folder


def watch(fake: Path, **limits: Any) -> Watch:
    options = {"time_limit_seconds": 30, "silence_limit_seconds": 30, "rss_limit_bytes": None, "cancel": None}
    return Watch(fake / "log", **{"on_event": lambda _: None, **options, **limits})


def ask(fake: Path, request: dict[str, Any], **limits: Any) -> WorkerResult:
    return run_worker(Path(sys.executable), "llama.cpp", request, watch(fake, **limits), worker=fake)


def refusal(fake: Path, request: dict[str, Any], **limits: Any) -> AdvisorError:
    started = time.perf_counter()
    with pytest.raises(AdvisorError) as caught:
        ask(fake, request, **limits)
    assert time.perf_counter() - started < 10
    assert "\n" not in caught.value.message
    return caught.value


def is_running(pid: int) -> bool:
    """Whether `pid` exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def gone(pids: list[int], seconds: float = 5.0) -> bool:
    deadline = time.perf_counter() + seconds
    while any(map(is_running, pids)) and time.perf_counter() < deadline:
        time.sleep(0.02)
    return not any(map(is_running, pids))


def test_answer_and_events_come_back(fake: Path) -> None:
    events: list[dict[str, Any]] = []
    done = ask(fake, {"op": "ok", "echo": "ü\u2028"}, on_event=events.append)
    assert done.result == {"echo": "ü\u2028", "argv": ["llama.cpp"]}
    assert done.exit_code == 0
    assert 0 < done.seconds < 10
    assert [event["type"] for event in events] == ["progress", "metric"]
    assert "\x1b" not in events[0]["text"]


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="the system opens links")
def test_a_log_that_is_a_link_is_not_written_through(fake: Path) -> None:
    (fake / "mine").write_text("mine")
    (fake / "log").symlink_to("mine")
    assert refusal(fake, {"op": "exit", "status": 1}).code == "file-error"
    assert (fake / "mine").read_text() == "mine"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_worker_that_stays_answers_again_and_ends_with_its_block(fake: Path) -> None:
    with Worker(Path(sys.executable), "llama.cpp", fake / "log", worker=fake) as worker:
        found = [worker.ask({"op": "again", "echo": k}, watch(fake), stay=True) for k in range(3)]
        pid = found[0].result["pid"]
        assert is_running(pid)
    assert [one.result for one in found] == [{"echo": k, "pid": pid} for k in range(3)]
    assert gone([pid])


def test_a_worker_that_stayed_and_died_is_told_as_one_that_died(fake: Path) -> None:
    with Worker(Path(sys.executable), "llama.cpp", fake / "log", worker=fake) as worker:
        worker.ask({"op": "again", "echo": 1}, watch(fake), stay=True)
        with pytest.raises(AdvisorError) as caught:
            worker.ask({"op": "kill", "signal": "SIGKILL"}, watch(fake), stay=True)
    assert caught.value.code == "worker-died"


def test_signal_is_named_with_the_last_failed_assertion(fake: Path) -> None:
    error = refusal(fake, {"op": "kill", "signal": "SIGABRT"})
    assert error.code == "worker-died"
    assert error.exit_code == EXIT_STEP_FAILED
    assert "SIGABRT" in error.message
    assert "GGML_ASSERT(n > 0) failed" in error.message


def test_sigkill_points_at_memory(fake: Path) -> None:
    assert "out of memory" in refusal(fake, {"op": "kill", "signal": "SIGKILL"}).message


def test_status_without_an_answer_names_the_last_words(fake: Path) -> None:
    error = refusal(fake, {"op": "exit", "status": 3})
    assert (error.code, error.message) == ("worker-died", "The worker ended with status 3: no such thing.")


def test_last_words_are_those_of_this_run(fake: Path) -> None:
    refusal(fake, {"op": "kill", "signal": "SIGABRT"})
    assert "GGML_ASSERT" not in refusal(fake, {"op": "exit", "status": 3}).message


def test_end_without_an_answer_is_a_protocol_error(fake: Path) -> None:
    assert refusal(fake, {"op": "exit", "status": 0}).code == "worker-protocol"


def test_silence_is_ended(fake: Path) -> None:
    assert refusal(fake, {"op": "silent"}, silence_limit_seconds=0.6).code == "worker-hung"


def test_total_time_is_ended_though_it_talks(fake: Path) -> None:
    assert refusal(fake, {"op": "busy"}, time_limit_seconds=0.8, silence_limit_seconds=0.5).code == "worker-hung"


def test_growth_is_ended_at_the_memory_limit(fake: Path) -> None:
    error = refusal(fake, {"op": "grow"}, rss_limit_bytes=120 * MIB)
    assert error.code == "worker-memory"
    assert "120.0 MiB" in error.message


@pytest.mark.parametrize(
    "request_",
    [
        {"op": "raw", "bytes": "Segmentation fault\n", "wait": 600},
        {"op": "raw", "bytes": "[1, 2]\n", "wait": 600},
        {"op": "raw", "bytes": '{"type": "surprise"}\n', "wait": 600},
        {"op": "raw", "bytes": '{"type": ["result"]}\n', "wait": 600},
        {"op": "raw", "bytes": '{"type": "result", "result": 7}\n', "wait": 600},
        {"op": "raw", "bytes": "[" * 5000, "times": 10},
        {"op": "raw", "bytes": "x" * 1000, "times": 20_000, "wait": 600},
        {"op": "raw", "bytes": '{"type": "res'},
        {"op": "close"},
    ],
    ids=[
        "text", "list", "unknown-type", "type-no-text", "no-result", "deep", "endless-line", "half-a-line",
        "closes-output",
    ],
)  # fmt: skip
def test_garbage_is_refused(fake: Path, request_: dict[str, Any]) -> None:
    assert refusal(fake, request_).code == "worker-protocol"


def test_the_workers_own_error_is_told(fake: Path) -> None:
    event = {"code": "tokenizer-mismatch", "message": "Other\x1b[0m tokens."}
    error = refusal(fake, {"op": "error", "event": event})
    assert (error.code, error.exit_code) == ("tokenizer-mismatch", EXIT_STEP_FAILED)
    assert "\x1b" not in error.message


@pytest.mark.parametrize("code", [None, 7, "Not A Code", "x" * 100])
def test_an_unusable_code_becomes_worker_error(fake: Path, code: Any) -> None:
    assert refusal(fake, {"op": "error", "event": {"code": code, "message": "m"}}).code == "worker-error"


def test_a_framework_that_does_not_import_is_a_missing_toolchain(fake: Path) -> None:
    error = refusal(fake, {"op": "error", "event": {"code": "toolchain-missing", "message": "m"}})
    assert error.exit_code == EXIT_TOOLCHAIN_MISSING
    assert error.hint == "advisor toolchain install llama.cpp"


def test_a_crash_after_the_answer_does_not_take_it_back(fake: Path) -> None:
    done = ask(fake, {"op": "crash-after"})
    assert done.result == {"done": True}
    assert done.exit_code == -signal.SIGSEGV


def test_a_request_larger_than_a_pipe_arrives(fake: Path) -> None:
    assert ask(fake, {"op": "unread", "blob": "x" * 1_000_000}).result == {"length": 1_000_000}


def test_no_interpreter_is_a_missing_toolchain(fake: Path) -> None:
    with pytest.raises(AdvisorError) as caught:
        run_worker(fake / "python", "llama.cpp", {}, watch(fake))
    assert caught.value.exit_code == EXIT_TOOLCHAIN_MISSING


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("how", ["result", "silence", "cancel", "interrupt", "listener"])
def test_the_workers_children_end_with_it(fake: Path, how: str) -> None:
    pids: list[int] = []
    cancel = threading.Event()

    def hear(event: dict[str, Any]) -> None:
        pids.extend(event["value"])
        if how == "cancel":
            cancel.set()
        elif how == "interrupt":
            raise KeyboardInterrupt
        elif how == "listener":
            raise RuntimeError("listener")

    request = {"op": "pids", "then": "result" if how == "result" else ""}
    if how == "result":
        ask(fake, request, on_event=hear)
    else:
        expected = {"interrupt": KeyboardInterrupt, "listener": RuntimeError}.get(how, AdvisorError)
        with pytest.raises(expected) as caught:
            ask(fake, request, on_event=hear, cancel=cancel, silence_limit_seconds=0.5 if how == "silence" else 30)
        if how == "cancel":
            assert isinstance(caught.value, AdvisorError)
            assert (caught.value.code, caught.value.exit_code) == ("cancelled", EXIT_INTERRUPTED)
    assert len(pids) == 2
    assert gone(pids)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_killed_parent_leaves_no_worker(tmp_path: Path) -> None:
    """The real worker's protocol, with a framework module that never comes back from its import."""
    worker = tmp_path / "worker"
    worker.mkdir()
    source = REPOSITORY / "executors" / "worker"
    for name in ("__init__.py", "__main__.py", "protocol.py"):
        (worker / name).write_text((source / name).read_text())
    note = tmp_path / "pid"
    (worker / "llamacpp.py").write_text(
        f"import os, time\nopen({str(note)!r}, 'w').write(str(os.getpid()) + ' ')\ntime.sleep(600)\n"
    )
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path; from executors.process import Watch, run_worker\n"
            "watch = Watch(Path(sys.argv[1]), print, 600, 600, None, None)\n"
            "run_worker(Path(sys.executable), 'llama.cpp', {'op': 'x'}, watch, worker=Path(sys.argv[2]))",
            str(tmp_path / "log"),
            str(worker),
        ],
        cwd=REPOSITORY,
    )
    deadline = time.perf_counter() + 10
    while not (note.exists() and note.read_text().endswith(" ")) and time.perf_counter() < deadline:
        time.sleep(0.02)
    pid = int(note.read_text())
    assert is_running(pid)
    parent.kill()
    parent.wait()
    assert gone([pid])


def test_clock_jumps_do_not_end_a_worker(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(0, 10**9, 10**6))
    monkeypatch.setattr(time, "time", lambda: float(next(ticks)))
    assert ask(fake, {"op": "ok", "echo": 1}).result["echo"] == 1


def test_isolated_toolchain_wins(tmp_path: Path, advisor_home: Path) -> None:
    folder = advisor_home / "toolchains" / "mlx"
    folder.mkdir(parents=True)
    (folder / "toolchain.json").write_text(json.dumps({"python": sys.executable}))
    assert interpreter_for("mlx") == Path(sys.executable)


@pytest.mark.parametrize("python", ["relative/python", "", 7, "/does/not/exist"])
def test_a_toolchain_record_without_its_interpreter_is_said(advisor_home: Path, python: Any) -> None:
    folder = advisor_home / "toolchains" / "mlx"
    folder.mkdir(parents=True)
    (folder / "toolchain.json").write_text(json.dumps({"python": python}))
    with pytest.raises(AdvisorError) as caught:
        interpreter_for("mlx")
    assert caught.value.exit_code == EXIT_TOOLCHAIN_MISSING


@pytest.mark.parametrize("ask_for", [interpreter_for, installed_version])
def test_a_damaged_toolchain_record_is_exit_6_with_the_command_that_makes_it_anew(
    ask_for: Callable[[str], object], advisor_home: Path
) -> None:
    folder = advisor_home / "toolchains" / "mlx"
    folder.mkdir(parents=True)
    (folder / "toolchain.json").write_text('{"python":')
    with pytest.raises(AdvisorError) as caught:
        ask_for("mlx")
    assert (caught.value.exit_code, caught.value.hint) == (EXIT_TOOLCHAIN_MISSING, "advisor toolchain install mlx")


def test_a_missing_framework_names_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("executors.interpreters.find_spec", lambda name: None)
    with pytest.raises(AdvisorError) as caught:
        interpreter_for("llama.cpp")
    assert caught.value.hint == "advisor toolchain install llama.cpp"
    assert caught.value.exit_code == EXIT_TOOLCHAIN_MISSING


def test_no_reader_thread_is_left_behind(fake: Path) -> None:
    before = threading.active_count()
    for _ in range(3):
        ask(fake, {"op": "ok", "echo": os.getpid()})
    assert threading.active_count() == before
