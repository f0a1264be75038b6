"""toolchain: the frameworks' isolated, pinned environments."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knowledge.base import EXIT_OK, EXIT_TOOLCHAIN_MISSING, AdvisorError
from ui.command import Answer, Parser, nearest

if TYPE_CHECKING:
    from executors.toolchain_lock import Recipe

ACTIONS = ("list", "install", "check")


def toolchain_options(parser: Parser) -> None:
    parser.add_argument("action", metavar="|".join(ACTIONS), help="what to do")
    parser.add_argument("framework", nargs="?", metavar="FRAMEWORK", help="llama.cpp, openvino, olive, mlx or export")
    parser.value("--offline", "FOLDER", "install: take every package from this folder of wheels, use no network")


def toolchain(arguments: argparse.Namespace) -> Answer:
    from executors.toolchain import check_toolchain, state
    from executors.toolchain_lock import find_recipe, recipes

    action, name = arguments.action, arguments.framework
    if action not in ACTIONS:
        hint = f"{nearest(action, ACTIONS)}write one of {', '.join(ACTIONS)}"
        raise AdvisorError("bad-option", f"advisor toolchain has no {action!r}.", hint)
    if arguments.offline is not None and action != "install":
        hint = "advisor toolchain install FRAMEWORK --offline FOLDER"
        raise AdvisorError("bad-option", f"--offline has no meaning for advisor toolchain {action}.", hint)
    if action == "install" and name is None:
        hint = f"name one of {', '.join(recipes())}"
        raise AdvisorError("bad-option", "advisor toolchain install needs a framework.", hint)
    chosen = [find_recipe(name)] if name is not None else list(recipes().values())
    if action == "install":
        return _answer([_install(chosen[0], arguments.offline)])
    if action == "list":
        return _answer([state(recipe) for recipe in chosen])
    found = [check_toolchain(recipe) for recipe in chosen]
    unsound = {"broken", "missing"} if name is not None else {"broken"}  # unnamed: what is not there is no fault
    sound = not any(one["status"] in unsound for one in found)
    return _answer(found, EXIT_OK if sound else EXIT_TOOLCHAIN_MISSING)


def _install(recipe: Recipe, offline: str | None) -> dict[str, Any]:
    from executors.toolchain import install_toolchain
    from ui.progress import shown_progress

    if offline is not None and not offline.strip():
        raise AdvisorError("bad-option", "--offline is empty.", "name a folder of wheels, or leave --offline out")
    with shown_progress() as listener:
        return install_toolchain(recipe, wheels=Path(offline) if offline else None, on_event=listener)


def _answer(found: list[dict[str, Any]], exit_code: int = EXIT_OK) -> Answer:
    def show() -> None:
        from ui.view_info import show_toolchains

        show_toolchains(found)

    return Answer({"schema": "advisor.toolchains/1", "toolchains": found}, show, exit_code)
