"""Isolated environments, one per framework: `advisor toolchain list | install | check`.

    ADVISOR_HOME/toolchains/FRAMEWORK/               the environment, under its name only when it is whole
    ADVISOR_HOME/toolchains/FRAMEWORK/toolchain.json what it is; written last: without it nothing uses the environment
    ADVISOR_HOME/toolchains/FRAMEWORK.partial/       while it is made, or what an interrupted installation left
    ADVISOR_HOME/toolchains/FRAMEWORK.log            what pip and the compilers said

What an environment holds is pinned in `toolchains/FRAMEWORK.lock.txt`, its size and needs in `toolchains.toml` there.
An installation that was killed is begun again: what pip had downloaded or compiled it takes from its cache.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from executors.folder import PARTIAL, RunFolder, locked
from executors.interpreters import MODULES, read_record
from executors.process import Event, Watch, run_worker
from executors.toolchain_lock import LOCKS, Archive, Recipe, package_of, recipes
from knowledge.base import (
    EXIT_TOOLCHAIN_MISSING,
    MIB,
    AdvisorError,
    advisor_home,
    exists,
    file_error,
    format_bytes,
    read_json,
    write_json,
)

SCHEMA = "advisor.toolchain/1"
RECORD = "toolchain.json"
INSTALL_SECONDS = 3 * 3600.0  # a slow network, or a compiler on a small board
INSPECT_SECONDS = 300.0
SILENCE_SECONDS = 300.0  # the worker tells every second that it lives; a compiler may starve it
LOCKED_FOR = "linux-x86_64"  # where the locks are all that is needed

Listener = Callable[[Event], None]
State = dict[str, Any]


# ---- what is there


def list_toolchains(locks: Path = LOCKS) -> list[State]:
    """The state of every toolchain as its files tell it; nothing is started."""
    return [state(recipe) for recipe in recipes(locks).values()]


def state(recipe: Recipe) -> State:
    """One toolchain: `status` ok, broken or missing, `text` and `hint` for a person, and what its recipe says.

    Cheap: `ok` means that the record is there and names the pinned versions; `check_toolchain` looks closer.
    """
    folder = toolchain_folder(recipe.framework)
    about: State = {
        "framework": recipe.framework,
        "status": "missing",
        "text": "not installed",
        "hint": _install_hint(recipe),
        "version": recipe.version,
        "python": "",
        "path": str(folder),
        "packages": len(recipe.pins),
        "download_bytes": recipe.download_bytes,
        "disk_bytes": recipe.disk_bytes,
        "seconds": recipe.seconds,
        "lock": str(recipe.lock),
        "source": recipe.source,
    }
    if not exists(folder / RECORD):
        if exists(folder) or exists(_partial(folder)):
            about |= {"status": "broken", "text": "half-installed: an installation was interrupted, or is under way"}
        elif find_spec(MODULES.get(recipe.framework, recipe.framework)) is not None:
            about["text"] = "not installed: advisor's own Python has it and serves"
        return about
    try:
        record = read_json(folder / RECORD, "toolchain record", limit_bytes=MIB)
        python, packages = Path(str(record["python"])), dict(record["packages"])
    except (AdvisorError, KeyError, TypeError, ValueError):
        return about | {"status": "broken", "text": f"{RECORD} is not readable"}
    about["python"] = str(python)
    if not python.is_file():
        return about | {"status": "broken", "text": f"its interpreter is gone ({python})"}
    if wrong := _other_versions(recipe, packages):
        return about | {"status": "broken", "text": wrong}
    if lacking := _not_kept(recipe, folder):
        return about | {"status": "broken", "text": f"it lacks {lacking}"}
    return about | {"status": "ok", "text": f"{recipe.version}, {len(packages)} packages", "hint": ""}


def check_toolchain(recipe: Recipe) -> State:
    """`state`, and its interpreter starts, holds the pinned versions with all their files, and loads the framework."""
    found = state(recipe)
    if found["status"] != "ok":
        return found
    try:
        with tempfile.TemporaryDirectory() as scratch:
            inside = _inspect(recipe, Path(found["python"]), Path(scratch) / "log.txt")
    except AdvisorError as error:
        return found | {"status": "broken", "text": error.message.rstrip("."), "hint": _install_hint(recipe)}
    return found | {"text": f"{recipe.version}, {len(inside['packages'])} packages, Python {inside['python']}, loads"}


def _not_kept(recipe: Recipe, folder: Path) -> str:
    """The first of what the recipe keeps besides packages that the environment lacks; empty if none."""
    return next((name for kept in (recipe.archive, recipe.beside) if kept and (name := kept.lacking(folder))), "")


def toolchain_folder(framework: str) -> Path:
    """Where the environment of `framework` lies, or would lie."""
    return advisor_home().absolute() / "toolchains" / framework


def installed_version(framework: str, locks: Path = LOCKS) -> str:
    """The framework's version in its isolated environment; empty where there is none.

    AdvisorError `other-version` (exit 6) where the environment holds other packages than are pinned now: it was made by
    another version of advisor, or changed since; `toolchain-missing` (exit 6) where its record is damaged.
    """
    record = toolchain_folder(framework) / RECORD
    if not exists(record):
        return ""
    document = read_record(framework, record)
    recipe, packages = recipes(locks).get(framework), document.get("packages")
    wrong = _other_versions(recipe, packages) if recipe and isinstance(packages, dict) else ""
    if recipe and wrong:
        message = f"The toolchain of {framework} is not the one that advisor knows: {wrong}."
        raise AdvisorError("other-version", message, _install_hint(recipe), EXIT_TOOLCHAIN_MISSING)
    return str(document.get("version", ""))


def _inspect(recipe: Recipe, python: Path, log: Path, on_event: Listener | None = None) -> dict[str, Any]:
    """What the interpreter says of its packages. AdvisorError `broken-toolchain` where that is not what was pinned."""
    request = {"op": "inspect", "imports": list(recipe.imports)}
    inside = _ask(python, request, log, INSPECT_SECONDS, on_event)
    wrong = _other_versions(recipe, inside["packages"])
    if not wrong and inside["missing"]:
        wrong = f"files of its packages are gone, such as {inside['missing'][0]}"
    if wrong:
        raise AdvisorError("broken-toolchain", f"{wrong}.", _install_hint(recipe), EXIT_TOOLCHAIN_MISSING)
    return inside


def _other_versions(recipe: Recipe, packages: Mapping[str, Any]) -> str:
    wrong = [
        f"{name} is {packages.get(name) or 'missing'} and {version} is pinned"
        for name, version in recipe.pins.items()
        if packages.get(name) != version
    ]
    return wrong[0] + (f" (and {len(wrong) - 1} more)" if wrong[1:] else "") if wrong else ""


def _install_hint(recipe: Recipe) -> str:
    return f"advisor toolchain install {recipe.framework}"


def _partial(folder: Path) -> Path:
    return folder.with_name(folder.name + PARTIAL)


# ---- make one


def install_toolchain(recipe: Recipe, *, wheels: Path | None = None, on_event: Listener = lambda _: None) -> State:
    """Make the environment of `recipe`, unless it is there and sound; its state afterwards.

    `wheels` is a folder that holds every package: then no network is used. `on_event` gets `note` and `progress` events
    as in executors.runner.run_plan.

    Raises AdvisorError with exit 6: `wrong-python`, `no-wheels`, `no-network`, `no-compiler`, `no-venv`, `disk-full`,
    `pip-failed`, `broken-toolchain`; `unwritable` (exit 2); `run-in-progress`. What failed leaves no environment that
    anything would use, and the next installation begins anew.
    """
    folder = toolchain_folder(recipe.framework)
    _require_python(recipe)
    if wheels is not None:
        _require_wheels(recipe, wheels)
    _require_compiler(recipe, wheels)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(RunFolder(folder.parent)):
            _remove(_partial(folder))
            if (found := check_toolchain(recipe))["status"] == "ok":
                on_event(_note(f"{recipe.framework} is installed and sound"))
                return found
            _require_disk(recipe, folder.parent)
            try:
                _make(recipe, folder, wheels, on_event)
            except BaseException:
                _remove(_partial(folder))
                raise
    except OSError as error:
        raise file_error(error, Path(error.filename or folder)) from error
    return state(recipe)


def _make(recipe: Recipe, folder: Path, wheels: Path | None, on_event: Listener) -> None:
    partial, log = _partial(folder), folder.with_name(f"{folder.name}.log")
    minutes = max(1, round(recipe.seconds / 60))
    on_event(_note(
        f"{recipe.framework} {recipe.version}: {len(recipe.pins)} packages, "
        + ("from your folder" if wheels else f"about {recipe.download_bytes / 1e6:.0f} MB to download")
        + f", {format_bytes(recipe.disk_bytes)} on disk, about {minutes} min (log: {log})"
    ))  # fmt: skip
    log.unlink(missing_ok=True)
    on_event(_note(f"[1/3] making an environment with Python {sys.version.split()[0]}"))
    _ask(Path(sys.executable), {"op": "create", "folder": str(partial)}, log, INSPECT_SECONDS, on_event)
    python = _interpreter(partial)
    temporary = partial / "tmp"
    temporary.mkdir()
    on_event(_note("[2/3] installing the packages" + (", compiling llama.cpp for this CPU" if recipe.compiles else "")))
    request = {
        "op": "install",
        "requirements": str(recipe.lock),
        "packages": len(recipe.pins),
        "exact": sysconfig.get_platform() == LOCKED_FOR,
        "target": None,
        "wheels": str(wheels.absolute()) if wheels else None,
        "build": {key: f"{os.environ.get(key, '')} {value}".strip() for key, value in recipe.build.items()},
        # pip's cache does not know CMAKE_ARGS: beside arguments of the user's own, a cached build could be another one.
        "use_cache": not any(key in os.environ for key in recipe.build),
        "temporary": str(temporary),
    }
    _ask(python, request, log, INSTALL_SECONDS, on_event)
    if recipe.beside is not None:
        names = recipe.beside.requirements
        on_event(_note(f"      and, beside them, {' and '.join(names)}"))
        pinned = temporary / "beside.txt"
        pinned.write_text("\n".join(names), encoding="utf-8")
        target = str(partial / recipe.beside.place)
        others = {"requirements": str(pinned), "packages": len(names), "exact": True, "target": target}
        _ask(python, request | others, log, INSTALL_SECONDS, on_event)
    if recipe.archive is not None:
        on_event(_note(f"      taking {recipe.archive.members[0]} out of the source of {recipe.archive.package}"))
        _ask(python, _extraction(recipe.archive, wheels, partial, temporary), log, INSTALL_SECONDS, on_event)
    shutil.rmtree(temporary)
    on_event(_note("[3/3] checking what was installed"))
    inside = _inspect(recipe, python, log, on_event)
    _remove(folder)
    partial.rename(folder)
    record = {
        "schema": SCHEMA,
        "framework": recipe.framework,
        "version": recipe.version,
        "python": str(_interpreter(folder)),
        "packages": inside["packages"],
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    write_json(folder / RECORD, record)
    on_event(_note(f"{recipe.framework} {recipe.version} is installed in {folder}"))


def _extraction(archive: Archive, wheels: Path | None, environment: Path, temporary: Path) -> Event:
    return {
        "op": "extract",
        **asdict(archive),
        "place": str(environment / archive.place),
        "wheels": str(wheels.absolute()) if wheels else None,
        "temporary": str(temporary),
    }


def _note(text: str) -> Event:
    return {"type": "note", "text": text}


def _interpreter(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _remove(folder: Path) -> None:
    """Remove an environment: its record first, so that nothing uses what a kill might leave of it."""
    if folder.exists():
        (folder / RECORD).unlink(missing_ok=True)
        shutil.rmtree(folder)


def _ask(python: Path, request: Event, log: Path, limit_seconds: float, on_event: Listener | None) -> dict[str, Any]:
    """The answer of the toolchain worker in `python`. What keeps a toolchain from being made is exit 6."""
    try:
        done = run_worker(
            python,
            "toolchain",
            request,
            Watch(log, on_event or (lambda _: None), limit_seconds, SILENCE_SECONDS, None, None),
        )
    except AdvisorError as error:
        if error.code == "cancelled":
            raise
        hint = _HINTS.get(error.code, f"the reason stands in {log}; then install it again")
        raise AdvisorError(error.code, error.message, hint, EXIT_TOOLCHAIN_MISSING) from error
    return done.result


_HINTS = {
    "no-wheels": "pip needs an index that has it (for torch: its CPU builds, named in PIP_EXTRA_INDEX_URL), "
    "or a folder of wheels: --offline FOLDER",
    "no-network": "connect, set pip's proxy or index (PIP_INDEX_URL), or install from a folder: --offline FOLDER",
    "no-venv": "then install the toolchain again",
    "disk-full": "free some space, or set ADVISOR_HOME to a folder on another disk; then install it again",
}


# ---- what must be there first


def _require_python(recipe: Recipe) -> None:
    ours = f"{sys.version_info.major}.{sys.version_info.minor}"
    if ours not in recipe.pythons:
        message = f"The toolchain of {recipe.framework} needs Python {' or '.join(recipe.pythons)}, and this is {ours}."
        hint = "install advisor with one of those"
        raise AdvisorError("wrong-python", message, hint, EXIT_TOOLCHAIN_MISSING)


def _require_disk(recipe: Recipe, parent: Path) -> None:
    need, free = recipe.disk_bytes + recipe.temporary_bytes, shutil.disk_usage(parent).free
    if need > free:
        message = (
            f"The toolchain of {recipe.framework} needs {format_bytes(need)} of disk while it is made, "
            f"and {parent} has {format_bytes(free)} free."
        )
        raise AdvisorError("disk-full", message, _HINTS["disk-full"], EXIT_TOOLCHAIN_MISSING)


def _require_wheels(recipe: Recipe, wheels: Path) -> None:
    """AdvisorError `no-wheels` naming the pins that `wheels` has no file for."""
    hint = f"on a machine with a network: pip wheel --no-deps --wheel-dir FOLDER --requirement {recipe.lock}"
    try:
        names = [entry.name for entry in os.scandir(wheels)]
    except OSError as error:
        message = f"There is no folder of wheels at {wheels}: {error.strerror}."
        raise AdvisorError("no-wheels", message, hint, EXIT_TOOLCHAIN_MISSING) from error
    there = set(map(package_of, names))
    wanted = [*recipe.pins.items(), *(recipe.beside.pins.items() if recipe.beside else ())]
    lacking = [f"{name}=={version}" for name, version in wanted if (name, version) not in there]
    if recipe.beside:
        hint += f"; and pip download --no-deps --dest FOLDER {' '.join(recipe.beside.requirements)}"
    if recipe.archive and not any(map(recipe.archive.is_file, names)):
        source = f"{recipe.archive.package}=={recipe.archive.version}"
        lacking.append(f"the source archive of {source}")
        hint += f"; and pip download --no-deps --no-binary {recipe.archive.package} --dest FOLDER {source}"
    if lacking:
        more = f" (and {len(lacking) - 1} more)" if lacking[1:] else ""
        message = f"{wheels} lacks {lacking[0]}{more}, and without a network it cannot come from elsewhere."
        raise AdvisorError("no-wheels", message, hint, EXIT_TOOLCHAIN_MISSING)


def _require_compiler(recipe: Recipe, wheels: Path | None) -> None:
    built = wheels is not None and any(path.name.endswith(".whl") for path in wheels.glob("llama_cpp_python-*"))
    if not recipe.compiles or built or compiler():
        return
    message = f"{recipe.framework} is built from source and needs a C++ compiler, and there is none."
    hint = "install one: Debian and Ubuntu: apt install g++; macOS: xcode-select --install"
    raise AdvisorError("no-compiler", message, hint, EXIT_TOOLCHAIN_MISSING)


def compiler() -> str | None:
    """The C++ compiler that a build would find."""
    names = filter(None, [os.environ.get("CXX"), "c++", "g++", "clang++", "cl"])
    return next(filter(shutil.which, names), None)
