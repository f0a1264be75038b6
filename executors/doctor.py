"""The health of this installation, check by check: what `advisor doctor` shows.

Each check is one dictionary of the `advisor.doctor/1` document: `{"id", "status": "ok|warn|fail", "text", "hint"}`.
`fail` means that advisor cannot work as it is, `warn` that some of it cannot. Nothing is changed or created.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from executors import history
from executors.interpreters import install_hint, interpreter_for, module_of
from executors.toolchain import compiler, list_toolchains
from knowledge.base import AdvisorError, advisor_home, exists, format_bytes
from knowledge.matrix import load_frameworks
from knowledge.models import embedded_path
from knowledge.rule_lint import lint
from knowledge.rules import load_rules

PACKAGES = ("knowledge", "probes", "advisor", "executors", "ui")
SUPPORTED = ((3, 11), (3, 13))  # requires-python of the distribution
LEAST_FREE_BYTES = 2 * 10**9  # what the quickstart's run takes, with room
LOAD_SECONDS = 60

Check = dict[str, Any]


def check_installation() -> list[Check]:
    """All checks, in the order in which they matter. Takes a few seconds: each framework's library is loaded once, in a
    process of its own."""
    found = [_python(), *_shadowed(), *_dependencies(), _rules(), _home(), _history()]
    found += [_framework(row.name) for row in load_frameworks() if row.executor]
    return [*found, *_toolchains(), _embedded(), _compiler()]


def _check(name: str, status: Literal["ok", "warn", "fail"], text: str, hint: str = "") -> Check:
    return {"id": name, "status": status, "text": text, "hint": hint}


def _python() -> Check:
    text = f"Python {sys.version.split()[0]} at {sys.executable}"
    if SUPPORTED[0] <= sys.version_info[:2] <= SUPPORTED[1]:
        return _check("python", "ok", text)
    return _check("python", "fail", f"{text} is not supported", "install advisor with Python 3.11, 3.12 or 3.13")


def _shadowed() -> Iterator[Check]:
    """Whether each of our five names means our package; another distribution or a folder may have the same name."""
    ours = Path(__file__).resolve().parent.parent
    for name in PACKAGES:
        found = importlib.util.find_spec(name)
        where = Path(found.origin).resolve().parent if found and found.origin else None
        if where == ours / name:
            continue
        text = f"the package {name!r} is {where or 'nowhere'}, not advisor's"
        hint = f"install advisor in an environment of its own, or start it from a folder without {name}/"
        yield _check(f"package-{name}", "fail", text, hint)
        return
    yield _check("packages", "ok", f"advisor's packages are its own, in {ours}")


def _dependencies() -> Iterator[Check]:
    missing = []
    for name in ("pydantic", "platformdirs", "rich", "psutil", "jinja2"):
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        yield _check(
            "dependencies", "fail", f"not installed: {', '.join(missing)}", "install edge-advisor again with pip"
        )
    else:
        yield _check("dependencies", "ok", "everything that the core needs is installed")


def _rules() -> Check:
    try:
        problems = lint(load_rules())
    except AdvisorError as error:
        problems = [error.message]
    if problems:
        return _check("rules", "fail", problems[0], "install edge-advisor again, or correct the rule file")
    return _check("rules", "ok", "the decision tree is sound")


def _home() -> Check:
    home = advisor_home()
    folder = next(path for path in (home, *home.absolute().parents) if exists(path))
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        return _check("home", "fail", f"{home} cannot be written", "set ADVISOR_HOME to a folder of yours")
    free = shutil.disk_usage(folder).free
    text = f"{home} can be written, {format_bytes(free)} free"
    if free < LEAST_FREE_BYTES:
        return _check("home", "warn", text, "free some space: runs keep the reference and the artifact")
    return _check("home", "ok", text)


def _history() -> Check:
    try:
        rows = history.list_history()
    except AdvisorError as error:
        return _check("history", "warn", error.message, error.hint)
    return _check("history", "ok", f"{len(rows)} measured figures")


def _framework(name: str) -> Check:
    """Whether the framework loads; a build for another CPU dies here and not in a run."""
    try:
        python = interpreter_for(name)
    except AdvisorError as error:
        return _check(name, "warn", error.message, error.hint)
    program = f"import {module_of(name)} as m; print(getattr(m, '__version__', ''))"
    command = [str(python), "-I", "-c", program]
    hint = f"install it anew: {install_hint(name)}"
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=LOAD_SECONDS, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return _check(name, "fail", f"{python} did not answer: {type(error).__name__}", hint)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"ended with status {done.returncode}"])[-1]
        return _check(name, "fail", f"installed, but does not load: {last}", hint)
    return _check(name, "ok", f"version {done.stdout.strip() or 'unknown'}, loads")


def _toolchains() -> Iterator[Check]:
    """The isolated environments that are there; whether one loads is told by its framework's own check."""
    for found in list_toolchains():
        if found["status"] != "missing":
            status: Literal["ok", "warn"] = "ok" if found["status"] == "ok" else "warn"
            yield _check(f"toolchain-{found['framework']}", status, found["text"], found["hint"])


def _embedded() -> Check:
    path = embedded_path()
    if path is None:
        return _check("embedded", "warn", "the embedded model is not installed", "run make quickstart")
    return _check("embedded", "ok", f"SmolLM2-135M-Instruct, {format_bytes(path.stat().st_size)}")


def _compiler() -> Check:
    found = compiler()
    if found is None:
        hint = "only needed to install llama.cpp: Debian and Ubuntu: apt install g++; macOS: xcode-select --install"
        return _check("compiler", "warn", "no C++ compiler", hint)
    return _check("compiler", "ok", found)
