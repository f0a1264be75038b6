"""Make and inspect an isolated environment: pip and importlib.metadata, run by the environment's own interpreter.

Standard library only. pip and the compilers that it starts belong to the worker's process group, so they end with it.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

from .protocol import Operation, Request, WorkerError, progress

HEARTBEAT_SECONDS = 1.0
MAX_LINE_CHARACTERS = 500
LEAST_FREE_BYTES = 1024**2  # with less, what failed failed for want of space
# Imports that would otherwise report themselves to their makers or look for a network.
QUIET = {"CI": "1", "OLIVE_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1", "NNCF_CI": "1"}
_MISSING = re.compile(r"(?:No matching distribution found for|satisfies the requirement) ([\w.\-+=!<>~]+)")
_UNREACHABLE = ("NewConnectionError", "ConnectTimeoutError", "Failed to establish", "Max retries", "name resolution")
_STEPS = ("Collecting", "Downloading", "Processing", "Using cached", "Building wheel", "Installing", "Looking in")


def create(request: Request) -> dict[str, Any]:
    """An empty environment with pip in the folder `folder`, which must not exist. Raises `no-venv`, `disk-full`."""
    try:
        import venv

        builder = venv.EnvBuilder(symlinks=os.name != "nt", with_pip=True)
        with _Heartbeat("making an environment"):
            builder.create(str(request["folder"]))
    except (ImportError, subprocess.CalledProcessError) as error:
        if shutil.disk_usage(Path(request["folder"]).parent).free < LEAST_FREE_BYTES:
            raise _no_space() from error
        hint = "install its venv module (Debian, Ubuntu: apt install python3-venv)"
        raise WorkerError("no-venv", f"This Python cannot make an environment: {hint}.") from error
    return {}


def install(request: Request) -> dict[str, Any]:
    """Install the pins of the file `requirements` with pip.

    `exact`: they are everything that is needed, nothing is added. `wheels`: a folder to take them from, without any
    index; else null. `build`: environment variables for packages that are compiled. `use_cache`: whether pip may take
    what it built before. `temporary`: where pip unpacks. Raises `no-wheels`, `no-network`, `disk-full`, `pip-failed`.
    """
    command = [sys.executable, "-I", "-m", "pip", *(["--isolated"] if request["wheels"] else []), "install"]
    command += ["--no-input", "--disable-pip-version-check", "--no-warn-script-location", "--progress-bar", "off"]
    command += ["--no-deps"] if request["exact"] else []
    command += ["--no-index", "--find-links", str(request["wheels"])] if request["wheels"] else []
    command += [] if request["use_cache"] else ["--no-cache-dir"]
    command += ["--requirement", str(request["requirements"])]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    environment |= {"TMPDIR": str(request["temporary"]), **request["build"]}
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None
    with _Heartbeat("starting pip", total=int(request["packages"])) as heartbeat:
        said = _follow(process.stdout, heartbeat)
    if process.wait() != 0:
        raise _refusal(said, process.returncode)
    return {}


def _follow(stream: IO[bytes], heartbeat: _Heartbeat) -> list[str]:
    """Copy pip's words to the log, and tell how many packages it has come to. Its last lines."""
    said: list[str] = []
    for raw in stream:
        with contextlib.suppress(OSError):  # the log's disk may be full
            os.write(2, raw)
        line = " ".join(raw.decode("utf-8", "replace").split())[:MAX_LINE_CHARACTERS]
        said = [*said[-60:], line]
        if line.startswith(_STEPS):
            heartbeat.text = line[:100]
            heartbeat.done += line.startswith(("Collecting", "Processing"))
    return said


def _refusal(said: list[str], status: int) -> WorkerError:
    words = "\n".join(said)
    if "No space left" in words:
        return _no_space()
    if any(part in words for part in _UNREACHABLE):
        return WorkerError("no-network", "The package index cannot be reached.")
    if missing := _MISSING.search(words):
        return WorkerError("no-wheels", f"pip finds no {missing[1]} for this system.")
    telling = [line for line in said if line.lower().startswith("error:")] or said[-1:] or [f"status {status}"]
    return WorkerError("pip-failed", f"pip could not install it: {telling[0].removeprefix('ERROR: ').rstrip('.')}.")


def _no_space() -> WorkerError:
    return WorkerError("disk-full", "No space is left to install it.")


def inspect(request: Request) -> dict[str, Any]:
    """What is installed here, and whether the modules `imports` load.

    Returns `python`, `packages` {normalized name: version} and `missing`: at most 20 of the files that were installed
    with them and that are gone. Raises `does-not-load`.
    """
    packages, missing = {}, []
    for found in importlib.metadata.distributions():
        packages[re.sub(r"[-_.]+", "-", str(found.metadata["Name"])).lower()] = found.version
        for file in found.files or ():
            if file.suffix != ".pyc" and not Path(str(found.locate_file(file))).exists():
                missing.append(str(file))
        progress(len(packages), len(packages) + 1, "looking at the packages")
    os.environ.update(QUIET)
    for name in request["imports"] if not missing else ():
        with _Heartbeat(f"loading {name}"):
            try:
                importlib.import_module(name)
            except Exception as error:
                raise WorkerError("does-not-load", f"{name} does not load: {type(error).__name__}: {error}.") from error
    version = ".".join(map(str, sys.version_info[:3]))
    return {"python": version, "packages": dict(sorted(packages.items())), "missing": missing[:20]}


class _Heartbeat:
    """Tell `done` of `total` and `text` every second, while what is waited for says nothing."""

    def __init__(self, text: str, total: int = 1) -> None:
        self.text, self.done, self.total = text, 0, total
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> _Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _beat(self) -> None:
        started = time.monotonic()
        while not self._over.wait(HEARTBEAT_SECONDS):
            waited = f"{self.text} ({time.monotonic() - started:.0f} s)"
            progress(min(self.done, self.total - 1), self.total, waited)


OPERATIONS: dict[str, Operation] = {"create": create, "install": install, "inspect": inspect}
