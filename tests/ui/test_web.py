"""The page's paths without a browser: every question, every kind of answer, and words that try to be markup."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, get_args

import pytest

from advisor.constraints import UseCase
from executors.history import Measured, record_run

pytestmark = pytest.mark.slow
testing = pytest.importorskip("streamlit.testing.v1", reason="the extra `ui` is not installed")
APP = Path(__file__).resolve().parents[2] / "ui" / "web" / "app.py"


@pytest.fixture
def page() -> Any:
    opened = testing.AppTest.from_file(str(APP), default_timeout=30).run()
    assert not opened.exception
    return opened


def after(widget: Any) -> Any:
    shown = widget.run()
    assert not shown.exception
    return shown


def described(page: Any, **answers: str) -> Any:
    """The page once the machine is described by `answers`."""
    after(page.radio(key="machine").set_value("A description"))
    for key, value in answers.items():
        widget = page.text_input(key=key) if key in ("ram", "chip", "vram") else page.selectbox(key=key)
        after(widget.set_value(value))
    return page


def figures(page: Any) -> dict[str, str]:
    return {metric.label: metric.value for metric in page.metric}


def test_this_machine_is_answered_at_once(page: Any) -> None:
    assert set(figures(page)) == {"Memory", "Decode", "First token", "Quality kept"}
    assert "Run it here" in [button.label for button in page.button] or page.info


def test_a_described_machine_is_planned_for(page: Any) -> None:
    described(page, ram="16GB", os="windows")
    assert not page.error
    assert figures(page)["Memory"].endswith("GiB")


def test_an_unknown_npu_asks_for_its_vendor_and_the_answer_is_taken(page: Any) -> None:
    described(page, ram="8GB", target="npu")
    assert any("Whose NPU" in shown.value for shown in page.subheader)
    after(page.button(key="answer-intel").click())
    assert page.session_state["vendor"] == "intel"
    assert not page.error
    assert not any("Whose NPU" in shown.value for shown in page.subheader)


def test_a_device_is_found_by_name(page: Any) -> None:
    after(page.radio(key="machine").set_value("A device"))
    assert page.info[0].value.startswith("Search")
    after(page.selectbox(key="device").set_value("Raspberry Pi 5"))
    assert figures(page)["Memory"]


@pytest.mark.parametrize(
    ("key", "text", "words"),
    [
        ("context", "0", "context"),
        ("max_loss", "lots", "max-quality-loss"),
        ("max_disk", "8XB", "max-disk"),
        ("precision", "Q9_Z", "Q9"),
        ("min_decode_tps", "-3", "min-decode-tps"),
        ("concurrency", "many", "concurrency"),
        ("max_ttft_ms", "nan", "max-ttft-ms"),
    ],
)
def test_a_wrong_limit_gets_the_command_line_s_sentence(page: Any, key: str, text: str, words: str) -> None:
    after(page.text_input(key=key).set_value(text))
    assert len(page.error) == 1
    assert words in page.error[0].value.replace("\\", "")
    after(page.text_input(key=key).set_value(""))
    assert not page.error


def test_a_contradiction_names_both_sides(page: Any) -> None:
    described(page, ram="16GB", os="windows")
    after(page.selectbox(key="framework").set_value("mlx"))
    shown = " ".join(error.value for error in page.error).replace("\\", "")
    assert "mlx" in shown
    assert "windows" in shown.lower()


def test_text_is_a_hub_name_and_never_a_path(page: Any, tmp_path: Path) -> None:
    after(page.radio(key="source").set_value("Hugging Face"))
    for text in ("/etc/passwd", "../../etc/passwd", "~/model.gguf", str(tmp_path), "a/../b", "file:///etc/passwd"):
        after(page.text_input(key="hub").set_value(text))
        assert "no name or link" in page.error[0].value.replace("\\", ""), text


def test_an_answer_out_of_sight_is_kept(page: Any) -> None:
    described(page, ram="24GB")
    after(page.radio(key="machine").set_value("This machine"))
    after(page.radio(key="machine").set_value("A description"))
    assert page.text_input(key="ram").value == "24GB"


def test_weights_of_one_s_own_are_sliders(page: Any) -> None:
    described(page, ram="32GB", chip="Core Ultra 7 155H")
    after(page.toggle(key="own_weights").set_value(True))
    for name in ("quality", "memory", "effort"):
        after(page.slider(key=f"weight_{name}").set_value(0))
    fast = figures(page)["Decode"]
    after(page.slider(key="weight_speed").set_value(0))
    after(page.slider(key="weight_quality").set_value(10))
    good = figures(page)["Decode"]
    assert float(fast.split()[0].replace(",", "")) > float(good.split()[0].replace(",", ""))


def test_a_saved_plan_and_profile_reproduce_the_answer(page: Any) -> None:
    described(page, ram="16GB", os="windows")
    before = figures(page)
    (plan,) = [plan for plan in page.session_state["plans"].values() if plan["hardware"]["os"]["family"] == "windows"]
    again = testing.AppTest.from_file(str(APP), default_timeout=30).run()
    again.file_uploader(key="opened_plan_file0").upload("plan.json", json.dumps(plan).encode())
    assert figures(after(again)) == before
    third = testing.AppTest.from_file(str(APP), default_timeout=30).run()
    after(third.radio(key="machine").set_value("A saved profile"))
    data = json.dumps(plan["hardware"]).encode()
    third.file_uploader(key="profile_file0").upload("profile.json", data)
    assert figures(after(third)) == before


def test_a_refused_upload_keeps_the_other_answers(page: Any) -> None:
    described(page, ram="24GB")
    for data in (b"{", b"[]", b'{"schema": "advisor.plan/1"}', b"\xff\xfe", b'{"schema": "advisor.hardware/1"}'):
        page.file_uploader(key="opened_plan_file0").set_value(("plan.json", data, "application/json"))
        after(page)
        assert "The file" in page.error[0].value, data
        assert page.text_input(key="ram").value == "24GB"


def test_an_upload_is_bounded_by_the_server_and_read_no_further_by_the_page() -> None:
    from knowledge.base import AdvisorError
    from ui.verbs_ui import _command
    from ui.web.parts import UPLOAD_MIB, _read_json

    assert f"--server.maxUploadSize={UPLOAD_MIB}" in _command(8501)
    with pytest.raises(AdvisorError, match=f"larger than {UPLOAD_MIB} MiB"):
        _read_json(b" " * (UPLOAD_MIB * 2**20 + 1), lambda document: document, "advisor.plan/1")


def test_a_model_s_name_cannot_become_markup() -> None:
    from ui.web.parts import plain, safe

    evil = "<img src=x onerror=alert(1)> [x](javascript:alert(1)) $x$ :red[y] **b** `c`\x1b[31m"
    assert "<" not in safe(evil)
    assert "\x1b" not in safe(evil) + plain(evil)
    for sign in "<[(*`$:":
        assert all(plain(evil)[at - 1] == "\\" for at in range(len(plain(evil))) if plain(evil)[at] == sign)


def test_sessions_are_independent() -> None:
    sessions = [testing.AppTest.from_file(str(APP), default_timeout=30).run() for _ in range(3)]
    for number, session in enumerate(sessions, 1):
        described(session, ram=f"{4 * number}GB")
    assert [session.text_input(key="ram").value for session in sessions] == ["4GB", "8GB", "12GB"]
    assert len({figures(session)["Memory"] for session in sessions}) > 1


@pytest.mark.parametrize("use_case", get_args(UseCase))
def test_every_use_has_an_answer(page: Any, use_case: str) -> None:
    after(page.selectbox(key="use_case").set_value(use_case))
    assert figures(page) or page.error
    assert not [error.value for error in page.error if "Nothing fits" not in error.value]


def test_every_way_to_run_has_an_answer(page: Any) -> None:
    for target in ("cpu", "gpu", "npu"):
        after(page.selectbox(key="target").set_value(target))
        assert figures(page) or page.error or page.subheader


def measured(fingerprint: str, measured: float, metric: str = "decode_tps") -> Measured:
    return Measured(
        f"run-{measured}", "2026-11-23T10:15:00Z", fingerprint, "Qwen/Qwen2.5-0.5B-Instruct", "llama.cpp", "1.0",
        "cpu", "Q8_0", metric, 10.0, 20.0, 30.0, measured,
    )  # fmt: skip


def one_page(name: str) -> Any:
    """The page of the module `name` alone: the harness does not follow the navigation."""

    def script(name: str) -> None:
        import importlib

        importlib.import_module(f"ui.web.{name}").show()

    opened = testing.AppTest.from_function(script, args=(name,), default_timeout=30).run()
    assert not opened.exception
    return opened


def test_the_history_shows_what_was_measured_and_how_that_moves_later_plans() -> None:
    from probes.probe import probe_machine

    fingerprint = probe_machine(bench=False).fingerprint
    assert record_run([measured(fingerprint, 25.0), measured(fingerprint, 40.0), measured("another", 1.0)]) is None
    shown = one_page("history_page")
    assert figures(shown)["Inside the predicted 90 % interval"] == "1 of 2"
    (rows,) = shown.table
    assert [words.replace("\\", "") for words in rows.value["measured"]] == ["40 tok/s", "25 tok/s"]
    assert any("predictions times" in words.value.replace("\\", "") for words in shown.markdown)


def test_an_empty_history_and_no_run_say_what_to_do() -> None:
    for name in ("history_page", "runs_page"):
        assert "Run it here" in one_page(name).info[0].value


def test_two_devices_are_compared(page: Any) -> None:
    shown = one_page("compare_page")
    after(shown.radio(key="a_machine").set_value("A device"))
    after(shown.selectbox(key="a_device").set_value("Raspberry Pi 5"))
    after(shown.selectbox(key="b_device").set_value("Jetson AGX Orin 64GB"))
    first, second = [metric.value for metric in shown.metric if metric.label == "Decode"]
    assert first != second


class TestJobs:
    """Detached runs, with the runner's own process and a plan that stops at once for want of its toolchain."""

    def plan(self) -> Any:
        from advisor.constraints import Constraints
        from advisor.plan import Plan
        from ui.verbs_plan import make_plan

        return Plan.model_validate(make_plan(Constraints(model="embedded", framework="llama.cpp", target="cpu")))

    def test_a_run_starts_detached_and_is_cancelled_and_resumed(self) -> None:
        pytest.importorskip("llama_cpp", reason="the extra `llamacpp` is not installed")
        from executors.folder import existing_folder, owner
        from ui import jobs

        name = jobs.start(self.plan())
        assert jobs.read(name).state == "running"
        assert os.getsid(owner(existing_folder(jobs.runs_folder() / name)) or 0) != os.getsid(0)
        time.sleep(3)
        assert jobs.read(name).progress["title"]
        jobs.cancel(name)
        self.wait(name, "interrupted")
        jobs.resume(name)
        assert jobs.read(name).state == "running"
        os.kill(owner(existing_folder(jobs.runs_folder() / name)) or 0, signal.SIGKILL)
        self.wait(name, "interrupted", "stopped")
        assert jobs.log(name)

    def test_a_run_survives_the_death_of_the_server_that_started_it(self, tmp_path: Path) -> None:
        pytest.importorskip("llama_cpp", reason="the extra `llamacpp` is not installed")
        from executors.folder import existing_folder, owner
        from ui import jobs

        plan = tmp_path / "plan.json"
        plan.write_text(json.dumps(self.plan().as_json()), encoding="utf-8")
        program = (
            "import sys, time; from pathlib import Path; from advisor.plan import load_plan; from ui import jobs; "
            "print(jobs.start(load_plan(Path(sys.argv[1]))), flush=True); time.sleep(60)"
        )
        environment = {**os.environ, "PYTHONPATH": str(APP.parents[2])}
        server = subprocess.Popen(
            [sys.executable, "-c", program, str(plan)],
            stdout=subprocess.PIPE, env=environment, text=True, start_new_session=True,
        )  # fmt: skip
        assert server.stdout is not None
        name = server.stdout.readline().strip()
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
        assert jobs.read(name).state == "running"
        done, end = 0, time.monotonic() + 60
        while done < 2 and time.monotonic() < end:
            time.sleep(0.2)
            done = len(jobs.read(name).progress.get("steps", []))
        assert done >= 2
        assert owner(existing_folder(jobs.runs_folder() / name)) is not None
        jobs.cancel(name)
        self.wait(name, "interrupted")

    def wait(self, name: str, *states: str) -> None:
        from ui import jobs

        end = time.monotonic() + 30
        while jobs.read(name).state not in states and time.monotonic() < end:
            time.sleep(0.2)
        assert jobs.read(name).state in states

    @pytest.mark.parametrize("name", ["..", "../runs", "/etc", "a/b", "", "x" * 300, "CON\0"])
    def test_a_name_cannot_leave_the_workspace(self, name: str) -> None:
        from knowledge.base import AdvisorError
        from ui import jobs

        for act in (jobs.read, jobs.cancel, jobs.resume, jobs.log):
            with pytest.raises(AdvisorError):
                act(name)

    def test_only_a_run_s_papers_can_be_downloaded(self) -> None:
        from knowledge.base import AdvisorError
        from ui import jobs

        with pytest.raises(AdvisorError):
            jobs.paper("any", "../../history.sqlite")
