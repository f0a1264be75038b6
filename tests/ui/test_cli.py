"""The frame of the command: help, errors, output streams, exit codes."""

import subprocess
import sys
from collections.abc import Callable
from types import ModuleType

import pytest

from knowledge.base import AdvisorError
from ui import cli
from ui.command import Answer, Parser


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Registers a command `fail` that raises what it is given."""

    def register(error: BaseException) -> None:
        module = ModuleType("failing_verbs")

        def fail(arguments: object) -> Answer:
            raise error

        module.fail = fail  # type: ignore[attr-defined]
        module.fail_options = lambda parser: None  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "failing_verbs", module)
        monkeypatch.setitem(cli.COMMANDS, "fail", ("failing_verbs", "fails"))

    return register


def test_without_a_command_all_commands_are_listed(call) -> None:
    result = call()
    assert result.code == 0
    assert all(f"  {name} " in result.out for name in cli.COMMANDS)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_explains_its_options(call, name: str) -> None:
    result = call(name, "--help")
    assert result.code == 0
    _, parser = cli.load(name)
    assert all(option in result.out for option in parser.options())
    assert "--json" in result.out


def test_version_is_the_distribution_s(call) -> None:
    from importlib.metadata import version

    assert call("--version").out == f"advisor {version('edge-advisor')}\n"


def test_an_error_is_a_sentence_and_a_hint_on_standard_error(call) -> None:
    result = call("plan", "--ram", "banana")
    assert (result.code, result.out) == (2, "")
    message, hint = result.err.splitlines()
    assert message == "advisor: --ram: 'banana' is not a size."
    assert hint == "  hint: write --ram as a number with a unit, for example 8GB or 512MB"


def test_an_error_with_json_is_the_error_document(call) -> None:
    result = call("plan", "--json", "--ram", "banana")
    assert result.code == 2
    assert result.document["error"]["code"] == "bad-size"


@pytest.mark.parametrize(
    ("arguments", "nearest"),
    [
        (("plna",), "plan"),
        (("plan", "--rma", "8GB"), "--ram"),
        (("plan", "--ram", "8GB", "--vendor", "qualcom"), "qualcomm"),
        (("plan", "--ram", "8GB", "--framework", "llamacpp"), "llama.cpp"),
        (("knowledge", "model"), "models"),
    ],
    ids=" ".join,
)
def test_a_near_miss_is_answered_with_the_nearest_word(call, arguments: tuple[str, ...], nearest: str) -> None:
    result = call(*arguments)
    assert result.code == 2
    assert f"did you mean {nearest}?" in result.err


def test_options_are_not_abbreviated(call) -> None:
    assert "no option --ra" in call("plan", "--ra", "8GB").err


def test_an_option_is_given_once(call) -> None:
    assert "--ram was given twice" in call("plan", "--ram", "8GB", "--ram", "16GB").err


def test_an_interrupt_is_130(call, failing) -> None:
    failing(KeyboardInterrupt())
    result = call("fail", "--json")
    assert result.code == 130
    assert result.document["error"]["code"] == "interrupted"


@pytest.mark.parametrize(
    "error", [MemoryError(), RecursionError("deep"), ValueError("x\x1b[2Jy"), OSError(5, "disk")], ids=repr
)
def test_the_unforeseen_is_a_sentence_too(call, failing, error: Exception) -> None:
    failing(error)
    result = call("fail", "--json")
    assert result.code == 7
    assert result.document["error"]["hint"]
    assert "Traceback" not in result.err
    assert "\x1b" not in result.err


def test_the_unforeseen_shows_where_it_happened_when_asked(failing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADVISOR_DEBUG", "1")
    failing(ValueError("here"))
    with pytest.raises(ValueError, match="here"):
        cli.main(["fail"])


def test_a_view_that_fails_is_a_sentence_too(call, monkeypatch: pytest.MonkeyPatch) -> None:
    def show() -> None:
        raise KeyError("a field")

    module = ModuleType("showing_verbs")
    module.show = lambda arguments: Answer({}, show)  # type: ignore[attr-defined]
    module.show_options = lambda parser: None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "showing_verbs", module)
    monkeypatch.setitem(cli.COMMANDS, "show", ("showing_verbs", "shows"))
    result = call("show")
    assert result.code == 7
    assert "Traceback" not in result.err


@pytest.mark.parametrize("exit_code", [2, 3, 4, 5, 6, 7])
def test_an_error_s_exit_code_is_the_process_s(call, failing, exit_code: int) -> None:
    failing(AdvisorError("some-code", "What happened.", "what to do", exit_code))
    assert call("fail").code == exit_code


def test_json_is_alone_on_standard_output(start) -> None:
    result = start("knowledge", "frameworks", "--json")
    assert result.code == 0
    assert result.document["schema"] == "advisor.knowledge/1"
    assert result.err == ""


def test_a_reader_that_leaves_ends_the_printing_quietly() -> None:
    program = f"{sys.executable} -m ui.cli knowledge models --json | head -c 10; echo; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "0"


def test_output_survives_a_terminal_without_the_characters(start) -> None:
    result = start("knowledge", "rules", PYTHONIOENCODING="ascii")
    assert result.code == 0
    assert "Traceback" not in result.err


def test_no_color_is_respected(start) -> None:
    assert "\x1b[3" in start("doctor", FORCE_COLOR="1").out
    assert "\x1b[3" not in start("doctor", FORCE_COLOR="1", NO_COLOR="1").out


def test_every_parser_takes_json() -> None:
    assert "--json" in Parser("any", "words").options()
