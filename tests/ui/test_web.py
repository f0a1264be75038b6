"""The page's paths without a browser: every question, every kind of answer, and words that try to be markup."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

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
