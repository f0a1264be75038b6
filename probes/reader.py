"""The one seam between the probes and a machine: everything that they read goes through a Reader.

Contract: a Reader never raises and never blocks for long; what is not there is None or empty. `LiveReader` reads this
machine and keeps what it read, so that `advisor doctor --raw` on a user's machine becomes a fixture; `ReplayReader`
answers from such a fixture and from nothing else.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol, cast

FIXTURE_SCHEMA = "advisor.probe-inputs/1"
COMMAND_TIMEOUT_SECONDS = 1.8
_MAX_TEXT = 2**20


class Reader(Protocol):
    """What a probe may ask of a machine. `system` is linux, darwin or windows; `machine` as in `uname -m`."""

    system: str
    machine: str

    def text(self, path: str) -> str | None:
        """The file's text, at most 1 MiB; None where it cannot be read."""

    def names(self, path: str) -> list[str]:
        """The sorted names in a folder; empty where it cannot be read."""

    def link(self, path: str) -> str | None:
        """The last part of a symbolic link's target; None where there is none."""

    def run(self, *argv: str) -> str | None:
        """What a command printed on stdout within 1.8 s; None where it is missing, fails or takes longer."""

    def ask(self, library: str) -> Any:
        """What a Python library of `LIBRARIES` says, as JSON values; None where it is missing or fails."""

    def disk(self, path: str) -> tuple[int, int] | None:
        """Total and free bytes of the file system that holds `path`."""


class LiveReader:
    """Reads this machine. `inputs` holds everything read so far."""

    def __init__(self) -> None:
        self.system = platform.system().lower()
        self.machine = platform.machine()
        self.inputs: dict[str, dict[str, Any]] = {
            "files": {},
            "folders": {},
            "links": {},
            "commands": {},
            "libraries": {},
        }

    def text(self, path: str) -> str | None:
        return cast(str | None, self._keep("files", path, lambda: _read_text(path)))

    def names(self, path: str) -> list[str]:
        return self._keep("folders", path, lambda: sorted(entry.name for entry in Path(path).iterdir())) or []

    def link(self, path: str) -> str | None:
        return cast(str | None, self._keep("links", path, lambda: Path(path).readlink().name))

    def run(self, *argv: str) -> str | None:
        return cast(str | None, self._keep("commands", " ".join(argv), lambda: _run(argv)))

    def ask(self, library: str) -> Any:
        return self._keep("libraries", library, LIBRARIES[library])

    def disk(self, path: str) -> tuple[int, int] | None:
        usage = None
        with contextlib.suppress(OSError):
            usage = shutil.disk_usage(path)
        return (usage.total, usage.free) if usage else None

    def recorded(self) -> dict[str, Any]:
        """The fixture document of everything read so far, without what was not there or nobody else needs to know."""
        found = {
            kind: {key: _shareable(key, value) for key, value in read.items() if value is not None and value != []}
            for kind, read in self.inputs.items()
        }
        return {"schema": FIXTURE_SCHEMA, "system": self.system, "machine": self.machine, **found}

    def _keep(self, kind: str, key: str, read: Callable[[], Any]) -> Any:
        value = None
        # A probe may meet any fault of a driver, a library or a file system: the value is then unknown.
        with contextlib.suppress(Exception):
            value = read()
        self.inputs[kind][key] = value
        return value


class ReplayReader:
    """Answers from a fixture. Folders are those of the fixture's files and links where they are not given."""

    def __init__(self, fixture: dict[str, Any]) -> None:
        self.system = str(fixture.get("system", "linux"))
        self.machine = str(fixture.get("machine", ""))
        self._files: dict[str, str] = fixture.get("files", {})
        self._folders: dict[str, list[str]] = fixture.get("folders", {})
        self._links: dict[str, str] = fixture.get("links", {})
        self._commands: dict[str, str] = fixture.get("commands", {})
        self._libraries: dict[str, Any] = fixture.get("libraries", {})

    def text(self, path: str) -> str | None:
        return self._files.get(path)

    def names(self, path: str) -> list[str]:
        if path in self._folders:
            return sorted(self._folders[path])
        return sorted(_children(path, (*self._files, *self._folders, *self._links)))

    def link(self, path: str) -> str | None:
        return self._links.get(path)

    def run(self, *argv: str) -> str | None:
        return self._commands.get(" ".join(argv))

    def ask(self, library: str) -> Any:
        return self._libraries.get(library)

    def disk(self, path: str) -> tuple[int, int] | None:
        return None


def _shareable(key: str, value: Any) -> Any:
    """`value` without serial numbers and without the mounts that probes do not need: they can name people."""
    if key == "/proc/self/mountinfo":
        kept = [line for line in value.splitlines() if " - cgroup" in line or line.split()[4:5] == ["/"]]
        return "\n".join(kept) + "\n"
    if key == "/dev":
        return [name for name in value if name.startswith(("fastrpc", "accel", "dxg", "kfd", "nvidia"))]
    if key == "/proc/cpuinfo":
        return "\n".join(line for line in value.splitlines() if not line.startswith("Serial")) + "\n"
    return value


def _children(folder: str, paths: Iterable[str]) -> set[str]:
    prefix = folder.rstrip("/") + "/"
    return {path[len(prefix) :].split("/", 1)[0] for path in paths if path.startswith(prefix)}


def _read_text(path: str) -> str:
    with Path(path).open("rb") as file:
        return file.read(_MAX_TEXT).decode("utf-8", errors="replace")


def _run(argv: tuple[str, ...]) -> str | None:
    """Runs without a shell, without input, in an environment that speaks English; output beyond 1 MiB is cut."""
    done = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=COMMAND_TIMEOUT_SECONDS,
        env={**os.environ, "LC_ALL": "C"},
        check=False,
    )
    text = done.stdout[:_MAX_TEXT].decode("utf-8", errors="replace")
    return text if done.returncode == 0 or text.strip() else None


def _nvml() -> list[dict[str, Any]]:
    """One entry per NVIDIA GPU by NVIDIA's own library; memory None where the driver has none to report."""
    import pynvml  # imported late: only where an NVIDIA driver is seen

    pynvml.nvmlInit()
    try:
        driver = _string(pynvml.nvmlSystemGetDriverVersion())
        return [_nvml_device(pynvml, index, driver) for index in range(pynvml.nvmlDeviceGetCount())]
    finally:
        pynvml.nvmlShutdown()


def _nvml_device(pynvml: Any, index: int, driver: str) -> dict[str, Any]:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    entry: dict[str, Any] = {"name": _string(pynvml.nvmlDeviceGetName(handle)), "driver": driver}
    with contextlib.suppress(pynvml.NVMLError):  # not supported on unified memory
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        entry |= {"total_bytes": int(memory.total), "free_bytes": int(memory.free)}
    with contextlib.suppress(pynvml.NVMLError):
        entry["compute_capability"] = "{}.{}".format(*pynvml.nvmlDeviceGetCudaComputeCapability(handle))
    with contextlib.suppress(pynvml.NVMLError):
        entry["bus"] = _string(pynvml.nvmlDeviceGetPciInfo(handle).busId)
    return entry


def _string(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _gputil() -> list[dict[str, Any]]:
    import GPUtil  # imported late, and only where NVIDIA's own library has failed

    mib = 2**20
    return [
        {
            "name": gpu.name,
            "driver": gpu.driver,
            "total_bytes": round(gpu.memoryTotal * mib),
            "free_bytes": round(gpu.memoryFree * mib),
        }
        for gpu in GPUtil.getGPUs()
        if gpu.memoryTotal == gpu.memoryTotal  # NaN where the driver says N/A
    ]


def _psutil() -> dict[str, Any]:
    import psutil  # imported late: only where /proc does not answer

    memory = psutil.virtual_memory()
    battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    return {
        "total_bytes": memory.total,
        "available_bytes": memory.available,
        "physical_cores": psutil.cpu_count(logical=False),
        "logical_cores": psutil.cpu_count(),
        "plugged": battery.power_plugged if battery else None,
    }


def _cpuinfo() -> dict[str, Any]:
    import cpuinfo  # imported late: it starts processes and takes a second

    known = cpuinfo.get_cpu_info()
    return {key: known.get(key) for key in ("brand_raw", "vendor_id_raw", "arch", "count", "flags")}


def _affinity() -> int | None:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def _platform() -> dict[str, Any]:
    return {
        "release": platform.release(),
        "version": platform.version(),
        "mac": platform.mac_ver()[0],
        "python": platform.python_version(),
        "android": hasattr(sys, "getandroidapilevel"),
    }


LIBRARIES: dict[str, Callable[[], Any]] = {
    "nvml": _nvml,
    "gputil": _gputil,
    "psutil": _psutil,
    "cpuinfo": _cpuinfo,
    "affinity": _affinity,
    "platform": _platform,
}


def ask_mapping(reader: Reader, library: str) -> dict[str, Any]:
    """What a library says, if it says an object; else an empty one."""
    said = reader.ask(library)
    return said if isinstance(said, dict) else {}


def count_in(value: object) -> int | None:
    """`value` if it is a positive whole number that a size or a count can be; else None."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= 2**60 else None


def parse_json(text: str | None) -> Any:
    """The JSON document in `text`, or None."""
    if not text:
        return None
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(text)
    return None
