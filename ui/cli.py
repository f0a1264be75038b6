"""The `advisor` command: finds the verb, runs it, prints its answer; the one place where errors are shown.

Start-up is a feature: a verb's module is imported when the verb is called, and rich only when a person reads.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TextIO

from knowledge.base import EXIT_INTERRUPTED, EXIT_STEP_FAILED, AdvisorError
from ui.command import Answer, Parser, nearest, to_json

if TYPE_CHECKING:
    import argparse

# name: (module, what it does). A module has NAME_options(parser) and NAME(arguments) -> Answer.
COMMANDS = {
    "quickstart": ("ui.verbs_run", "the whole loop on the embedded model: probe, plan, run, validate, report"),
    "probe": ("ui.verbs_plan", "what this machine is: CPU, memory, GPUs, NPUs, disk, frameworks"),
    "plan": ("ui.verbs_plan", "which model, framework and precision for a device, with reasons and steps"),
    "run": ("ui.verbs_run", "execute a plan: produce, validate, measure, judge; resumes where it stopped"),
    "validate": ("ui.verbs_judge", "judge any artifact against its 16-bit reference"),
    "report": ("ui.verbs_judge", "put several runs side by side: advisor report compare RUN..."),
    "checklist": ("ui.verbs_run", "the deployment checklist of a plan or a run"),
    "check": ("ui.verbs_run", "verify the checklist items of a run that a machine can check"),
    "predict": ("ui.verbs_predict", "speed and memory of the rows of a CSV file, each with an interval"),
    "evaluate": ("ui.verbs_predict", "how accurate the cost model is, by partition, against baselines"),
    "learn": ("ui.verbs_predict", "retrain the cost model from the knowledge base and this machine's history"),
    "history": ("ui.verbs_run", "what runs measured on this machine, next to what was predicted"),
    "ui": ("ui.verbs_ui", "the web page: the questionnaire, runs with live progress, history"),
    "knowledge": ("ui.verbs_info", "what advisor knows, and where from"),
    "toolchain": ("ui.verbs_toolchain", "the frameworks' isolated environments: list, install, check"),
    "mcp": ("ui.verbs_ui", "the same for coding agents: an MCP server on standard input and output"),
    "completion": ("ui.verbs_ui", "the completion script of a shell: bash, zsh or fish"),
    "doctor": ("ui.verbs_info", "diagnosis of this installation"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code of the contract. Never a traceback, unless ADVISOR_DEBUG is set."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that lacks a character shows a substitute
            stream.reconfigure(errors="replace")
    # Pydantic looks for plugins in every installed distribution: 16 ms that bring nothing here.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    as_json = "--json" in arguments
    try:
        answer = answer_to(arguments)
        _print(answer, as_json)
        answer.afterwards()
    except (Exception, KeyboardInterrupt) as error:
        if os.environ.get("ADVISOR_DEBUG") and not isinstance(error, AdvisorError):
            raise
        failure = _as_advisor_error(error)
        with _reader_may_leave(sys.stderr):
            print(f"advisor: {failure.message}\n  hint: {failure.hint}", file=sys.stderr, flush=True)
        answer = Answer(failure.as_json(), lambda: None, failure.exit_code)
        _print(answer, as_json)
    return answer.exit_code


def answer_to(arguments: list[str]) -> Answer:
    """What the command that `arguments` name answers; nothing is printed. Raises AdvisorError."""
    name = arguments[0] if arguments else "--help"
    if name in ("--help", "-h", "help"):
        return Answer({"commands": {command: summary for command, (_, summary) in COMMANDS.items()}}, _show_help)
    if name == "--version":
        from importlib.metadata import version

        number = version("edge-advisor")
        return Answer({"version": number}, lambda: print(f"advisor {number}"))
    if name.startswith("-"):
        hint = "write the command first, for example: advisor plan --ram 8GB"
        raise AdvisorError("bad-option", f"{name} comes before any command.", hint)
    if name not in COMMANDS:
        hint = f"{nearest(name, list(COMMANDS))}`advisor --help` lists the commands"
        raise AdvisorError("unknown-command", f"There is no command {name!r}.", hint)
    run, parser = load(name)
    if "-h" in arguments or "--help" in arguments:
        text = parser.format_help()
        return Answer({"help": text}, lambda: print(text, end=""))
    return run(parser.parse(arguments[1:]))


def load(name: str) -> tuple[Callable[[argparse.Namespace], Answer], Parser]:
    """The function and the parser of the command `name`."""
    module_name, summary = COMMANDS[name]
    module = importlib.import_module(module_name)
    parser = Parser(name, summary)
    getattr(module, f"{name}_options")(parser)
    return getattr(module, name), parser


def _as_advisor_error(error: BaseException) -> AdvisorError:
    if isinstance(error, AdvisorError):
        return error
    if isinstance(error, KeyboardInterrupt):
        hint = "the same command goes on where it stopped"
        return AdvisorError("interrupted", "Interrupted.", hint, EXIT_INTERRUPTED)
    if isinstance(error, MemoryError):
        hint = "close other programs, or plan with a smaller model or context"
        return AdvisorError("out-of-memory", "This machine ran out of memory.", hint, EXIT_STEP_FAILED)
    hint = "run `advisor doctor`; ADVISOR_DEBUG=1 shows where it happened, for a bug report"
    return AdvisorError("internal", f"advisor failed: {type(error).__name__}: {error}.", hint, EXIT_STEP_FAILED)


def _print(answer: Answer, as_json: bool) -> None:
    with _reader_may_leave(sys.stdout):
        if as_json:
            print(to_json(answer.document), flush=True)
        else:
            answer.show()
            sys.stdout.flush()


def _show_help() -> None:
    width = max(map(len, COMMANDS))
    print("usage: advisor COMMAND [options]\n")
    print("Which framework, which precision, will it fit, how fast, how good: decided, done and proven.\n")
    for name, (_, summary) in COMMANDS.items():
        print(f"  {name:<{width}}  {summary}")
    print("\n`advisor COMMAND --help` lists a command's options; every command takes --json.")


@contextlib.contextmanager
def _reader_may_leave(stream: TextIO) -> Iterator[None]:
    """A closed pipe (`advisor ... | head`) ends the printing, not the command; nothing is printed at exit either."""
    try:
        yield
    except BrokenPipeError:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    sys.exit(main())
