"""Shell completion: commands, options and their fixed values, written out from the parsers as a static script."""

from __future__ import annotations

import re
from collections.abc import Mapping

SHELLS = ("bash", "zsh", "fish")
Words = Mapping[str, Mapping[str, tuple[str, ...]]]
_FIXED = re.compile(r"[\w.]+(?:\|[\w.]+)+")


def vocabulary() -> dict[str, dict[str, tuple[str, ...]]]:
    """The options of every command, each with the values it is limited to; "" holds those of the first argument."""
    from ui.cli import COMMANDS, load

    words: dict[str, dict[str, tuple[str, ...]]] = {}
    for command in COMMANDS:
        _, parser = load(command)
        words[command] = {}
        for action in parser._actions:
            metavar = action.metavar if isinstance(action.metavar, str) else ""
            fixed = tuple(metavar.split("|")) if _FIXED.fullmatch(metavar) else ()
            for name in action.option_strings or [""]:
                if name or not words[command].get(""):
                    words[command][name] = fixed
    return words


def script(shell: str) -> str:
    """The completion script for `shell`, one of SHELLS."""
    words = vocabulary()
    return _fish(words) if shell == "fish" else _bash(words, zsh=shell == "zsh")


def _bash(words: Words, *, zsh: bool) -> str:
    lines = ["autoload -Uz +X bashcompinit && bashcompinit"] if zsh else []
    lines += [
        "_advisor() {",
        '  local word="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}" offered=""',
        '  if [ "$COMP_CWORD" -eq 1 ]; then',
        f'    offered="{" ".join(words)}"',
        "  else",
        '    case "${COMP_WORDS[1]} $before" in',
    ]
    for command, options in words.items():
        for option, values in options.items():
            if option and values:
                lines.append(f'      "{command} {option}") offered="{" ".join(values)}" ;;')
    lines += ['      *) case "${COMP_WORDS[1]}" in']
    for command, options in words.items():
        offered = " ".join([*options.get("", ()), *(option for option in options if option)])
        lines.append(f'        {command}) offered="{offered}" ;;')
    lines += [
        "      esac ;;",
        "    esac",
        "  fi",
        '  COMPREPLY=($(compgen -W "$offered" -- "$word"))',
        "}",
        "complete -o default -F _advisor advisor",
    ]
    return "\n".join(lines) + "\n"


def _fish(words: Words) -> str:
    lines = [f"complete -c advisor -n __fish_use_subcommand -a '{' '.join(words)}'"]
    for command, options in words.items():
        seen = f"-n '__fish_seen_subcommand_from {command}'"
        for option, values in options.items():
            offered = f" -x -a '{' '.join(values)}'" if values else ""
            if option.startswith("--"):
                lines.append(f"complete -c advisor {seen} -l {option[2:]}{offered}")
            elif not option and values:
                lines.append(f"complete -c advisor {seen}{offered.replace(' -x', '')}")
    return "\n".join(lines) + "\n"
