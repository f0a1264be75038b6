"""What every command is made of: a parser whose errors are ours, and an answer for programs and for people."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from knowledge.base import EXIT_OK, AdvisorError

if TYPE_CHECKING:
    from pydantic import ValidationError


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command found: `document` is printed with --json, `show` writes the same for a person; `afterwards` is
    what the command goes on doing once it has answered."""

    document: dict[str, Any]
    show: Callable[[], None]
    exit_code: int = EXIT_OK
    afterwards: Callable[[], None] = lambda: None


class Parser(argparse.ArgumentParser):
    """argparse with one rule more and one fewer: an option is given once, and is never abbreviated.

    Raises AdvisorError (`bad-option`) where argparse would print its usage and exit. Every parser has --json.
    """

    def __init__(self, command: str, summary: str) -> None:
        super().__init__(prog=f"advisor {command}", description=summary, allow_abbrev=False)
        self.command = command
        self._given: set[str] = set()
        self.flag("--json", "print one JSON document on standard output and nothing else")

    def value(self, option: str, metavar: str, meaning: str, **extra: Any) -> None:
        """An option with a value; a second one is refused."""
        self.add_argument(option, metavar=metavar, help=meaning, action=_Once, **extra)

    def flag(self, option: str, meaning: str, **extra: Any) -> None:
        self.add_argument(option, action="store_true", help=meaning, **extra)

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        self._given.clear()
        return self.parse_args(list(arguments))

    def options(self) -> list[str]:
        return [name for action in self._actions for name in action.option_strings]

    def error(self, message: str) -> NoReturn:
        more = f"`advisor {self.command} --help` lists what it takes"
        if unknown := re.match(r"unrecognized arguments: (\S+)", message):
            word = unknown[1]
            if word.startswith("-"):
                near = nearest(word.partition("=")[0], self.options())
                raise AdvisorError("bad-option", f"advisor {self.command} has no option {word}.", f"{near}{more}")
            raise AdvisorError("bad-option", f"advisor {self.command}: {word!r} is one argument too many.", more)
        if lacking := re.match(r"argument (\S+): expected one argument", message):
            hint = f"write {lacking[1]}=VALUE if the value begins with a dash; {more}"
            raise AdvisorError("bad-option", f"{lacking[1]} needs a value.", hint)
        if missing := re.match(r"the following arguments are required: (.+)", message):
            raise AdvisorError("bad-option", f"advisor {self.command} needs {missing[1]}.", more)
        raise AdvisorError("bad-option", f"advisor {self.command}: {message.removeprefix('argument ')}.", more)


class _Once(argparse.Action):
    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        assert isinstance(parser, Parser)
        if self.dest in parser._given:
            hint = f"give {self.option_strings[0]} once"
            raise AdvisorError("bad-option", f"{self.option_strings[0]} was given twice.", hint)
        parser._given.add(self.dest)
        setattr(namespace, self.dest, values)


def to_json(document: dict[str, Any]) -> str:
    """ASCII, so that it reads the same under every locale; the keys stand in the contract's order."""
    return json.dumps(document, indent=1, allow_nan=False)


def nearest(word: str, accepted: Sequence[str]) -> str:
    """`did you mean X? ` for the accepted word most like `word`, or nothing."""
    from difflib import get_close_matches  # imported late: only mistakes need it

    near = get_close_matches(word.lower(), accepted, n=1)
    return f"did you mean {near[0]}? " if near else ""


def option_error(error: ValidationError, option_of: Callable[[str], str]) -> AdvisorError:
    """The first thing wrong in validated options as one sentence; `option_of` gives a field's option name."""
    first = error.errors(include_url=False)[0]
    option = option_of(str(first["loc"][0]))
    given = first.get("input")
    if first["type"] == "literal_error":
        accepted = re.findall(r"'([^']+)'", str(first["ctx"]["expected"]))
        message = f"{option}: {given!r} is not one of {', '.join(accepted)}."
        return AdvisorError(
            "bad-option", message, f"{nearest(str(given), accepted)}write {option} {'|'.join(accepted)}"
        )
    problem = first["msg"].replace("Input should be", "it should be").replace("String should", "it should")
    return AdvisorError("bad-option", f"{option}: {given!r}: {problem}.", f"give {option} another value")
