"""Make and inspect an isolated environment: pip and importlib.metadata, run by the environment's own interpreter.

Standard library only. pip and the compilers that it starts belong to the worker's process group, so they end with it.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path
from typing import IO, Any

from .protocol import Operation, Request, WorkerError, progress

HEARTBEAT_SECONDS = 1.0
MAX_LINE_CHARACTERS = 500
MAX_ARCHIVED_BYTES = 64 * 1024**2
LEAST_FREE_BYTES = 1024**2  # with less, what failed failed for want of space
# Imports that would otherwise report themselves to their makers or look for a network.
QUIET = {"CI": "true", "OLIVE_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1", "NNCF_CI": "1"}
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

    `exact`: they are everything that is needed, nothing is added. `target`: the folder that they go to; null: where the
    environment's packages lie. `wheels`: a folder to take them from, without any index; else null. `build`: environment
    variables for packages that are compiled. `use_cache`: whether pip may take what it built before. `temporary`: where
    pip unpacks. Raises `no-wheels`, `no-network`, `disk-full`, `pip-failed`.
    """
    options = ["--no-warn-script-location"]
    options += ["--no-deps"] if request["exact"] else []
    options += ["--target", str(request["target"])] if request["target"] else []
    options += ["--no-index", "--find-links", str(request["wheels"])] if request["wheels"] else []
    options += [] if request["use_cache"] else ["--no-cache-dir"]
    options += ["--requirement", str(request["requirements"])]
    settings = {"TMPDIR": str(request["temporary"]), **request["build"]}
    _pip(["install", *options], settings, packages=int(request["packages"]), isolated=bool(request["wheels"]))
    return {}


def _pip(arguments: list[str], settings: dict[str, str], *, packages: int, isolated: bool = False) -> None:
    """Run pip with these environment variables; `isolated` from the user's own settings of it."""
    command = [sys.executable, "-I", "-m", "pip", *(["--isolated"] if isolated else []), *arguments]
    command += ["--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    process = subprocess.Popen(
        command,
        env=environment | settings,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    with _Heartbeat("starting pip", total=packages) as heartbeat:
        said = _follow(process.stdout, heartbeat)
    if process.wait() != 0:
        raise _refusal(said, process.returncode)


def extract(request: Request) -> dict[str, Any]:
    """Put `members` (files, and folders that end in /) under `top` of a source archive into the new folder `place`.

    The archive is the one of `package` at `version` with `sha256`: from the folder `wheels`, else by pip, which checks
    the hash before it looks into it. Returns `files`. Raises `no-wheels`, `no-network`, `disk-full`, `pip-failed`,
    `wrong-archive`.
    """
    archive = _archive(request)
    progress(0, 2, "checking the source archive")
    with archive.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != request["sha256"]:
            raise WorkerError("wrong-archive", f"{archive.name} is not the archive that was pinned.")
    place, count, size = Path(request["place"]), 0, 0
    wanted = tuple(f"{request['top']}/{member}" for member in request["members"])
    progress(1, 2, "unpacking the source archive")
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            path = member.name.partition("/")[2]
            inside = any(path == one or (one.endswith("/") and path.startswith(one)) for one in wanted)
            if not inside or not member.isfile() or ".." in path.split("/"):
                continue
            size += member.size
            content = tar.extractfile(member)
            if size > MAX_ARCHIVED_BYTES or content is None:
                raise WorkerError("wrong-archive", f"{archive.name} holds more than was expected.")
            target = place / path.removeprefix(f"{request['top']}/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content.read())
            count += 1
    return {"files": count}


def _archive(request: Request) -> Path:
    package, version = str(request["package"]), str(request["version"])
    if request["wheels"]:
        folder = Path(request["wheels"])
    else:
        folder = Path(request["temporary"]) / "archive"
        folder.mkdir()
        pinned = Path(request["temporary"]) / "archive.txt"
        pinned.write_text(f"{package}=={version} --hash=sha256:{request['sha256']}\n", encoding="utf-8")
        options = ["--no-deps", "--no-binary", package, "--dest", str(folder), "--requirement", str(pinned)]
        _pip(["download", *options], {"TMPDIR": str(request["temporary"])}, packages=1)
    name = package.replace("-", "[-_]")
    found = [path for path in folder.iterdir() if re.fullmatch(rf"{name}-{re.escape(version)}\.tar\.gz", path.name)]
    if not found:
        raise WorkerError("no-wheels", f"There is no source archive of {package} {version}.")
    return found[0]


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


OPERATIONS: dict[str, Operation] = {"create": create, "install": install, "extract": extract, "inspect": inspect}
