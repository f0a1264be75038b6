"""The operating system, the power supply, the disk, the machine's own name, and the frameworks that are installed.

Host names and user names are never read.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from knowledge.base import AdvisorError, advisor_home, exists, printable, read_json
from probes.draft import cut
from probes.profile import Confidence, Disk, OperatingSystem, Toolchain
from probes.reader import Reader, ask_mapping

# Framework -> (its import package, its distribution).
FRAMEWORKS = {
    "llama.cpp": ("llama_cpp", "llama-cpp-python"),
    "openvino": ("openvino", "openvino"),
    "olive": ("olive", "olive-ai"),
    "mlx": ("mlx_lm", "mlx-lm"),
}
HELPERS = {"export"}  # isolated environments that run no model
_CONTAINER_WORDS = re.compile(r"docker|kubepods|containerd|libpod|lxc|garden")
# File systems that hold no file above 4 GiB.
_SMALL_FILES = ("vfat", "msdos")
_DMI_BLANKS = ("", "To Be Filled By O.E.M.", "System Product Name", "Default string", "None", "Not Specified")


@dataclass(frozen=True)
class SystemFinding:
    """`sources` maps dotted profile paths to (source, confidence)."""

    os: OperatingSystem
    device: str
    sources: dict[str, tuple[str, Confidence]]
    notes: tuple[str, ...] = ()


def read_system(reader: Reader) -> SystemFinding:
    """The operating system and the product name of the machine behind `reader`."""
    if reader.system == "darwin":
        return _macos(reader)
    if reader.system == "windows":
        return _windows(reader)
    return _linux(reader)


def _linux(reader: Reader) -> SystemFinding:
    release = parse_os_release(reader.text("/etc/os-release") or "")
    version = reader.text("/proc/version") or ""
    android = bool(ask_mapping(reader, "platform").get("android")) or reader.text("/system/build.prop") is not None
    wsl = "microsoft" in version.lower()
    power = _linux_power(reader)
    system = OperatingSystem(
        family="android" if android else "linux",
        name="Android" if android else cut(release.get("NAME", "")),
        version=cut(release.get("VERSION_ID", "")),
        kernel=cut((reader.text("/proc/sys/kernel/osrelease") or "").strip()),
        wsl=wsl,
        container=_in_container(reader),
        power=power,
    )
    notes = ["WSL2 gives Linux half of the PC's memory by default: .wslconfig changes it"] if wsl else []
    sources: dict[str, tuple[str, Confidence]] = {"os": ("/etc/os-release and /proc", "high")}
    if power:
        sources["os.power"] = ("/sys/class/power_supply", "high")
    device, told = _linux_device(reader)
    if device:
        sources["device"] = (told, "high")
    return SystemFinding(system, device, sources, tuple(notes))


def parse_os_release(text: str) -> dict[str, str]:
    """The assignments of /etc/os-release, unquoted."""
    pairs = re.findall(r"^([A-Z_]+)=(.*?)\s*$", text, re.MULTILINE)
    return {key: value.strip("\"'") for key, value in pairs}


def _in_container(reader: Reader) -> bool:
    marked = any(reader.text(path) is not None for path in ("/.dockerenv", "/run/.containerenv"))
    return marked or bool(_CONTAINER_WORDS.search(reader.text("/proc/self/cgroup") or ""))


def _linux_power(reader: Reader) -> Literal["mains", "battery"] | None:
    """From the mains adapter if there is one, else from what the battery does; None on a machine without either."""
    root = "/sys/class/power_supply"
    battery: Literal["mains", "battery"] | None = None
    for name in reader.names(root):
        kind = (reader.text(f"{root}/{name}/type") or "").strip()
        if kind == "Mains":
            return "mains" if (reader.text(f"{root}/{name}/online") or "").strip() == "1" else "battery"
        if kind == "Battery" and (reader.text(f"{root}/{name}/scope") or "").strip() != "Device":
            status = (reader.text(f"{root}/{name}/status") or "").strip()
            battery = "battery" if status == "Discharging" else "mains" if status else None
    return battery


def _linux_device(reader: Reader) -> tuple[str, str]:
    board = (reader.text("/proc/device-tree/model") or "").strip("\0 \n")
    if board:
        return cut(printable(board)), "/proc/device-tree/model"
    maker = (reader.text("/sys/class/dmi/id/sys_vendor") or "").strip()
    product = (reader.text("/sys/class/dmi/id/product_name") or "").replace("_", " ").strip()
    if product in _DMI_BLANKS:
        return "", ""
    named = product if maker in _DMI_BLANKS or product.startswith(maker) else f"{maker} {product}"
    return cut(printable(named)), "/sys/class/dmi/id"


def _macos(reader: Reader) -> SystemFinding:
    values = dict(re.findall(r"^([\w.]+): (.*?)\s*$", reader.run("sysctl", "-a") or "", re.MULTILINE))
    rosetta = values.get("sysctl.proc_translated") == "1"
    drawing = re.search(r"Now drawing from '(AC|Battery) Power'", reader.run("pmset", "-g", "batt") or "")
    power: Literal["mains", "battery"] | None = None
    if drawing:
        power = "mains" if drawing[1] == "AC" else "battery"
    system = OperatingSystem(
        family="macos",
        name="macOS",
        version=cut(values.get("kern.osproductversion", "")),
        kernel=cut(values.get("kern.osrelease", "")),
        rosetta=rosetta,
        power=power,
    )
    notes = ["this Python runs translated by Rosetta: install an arm64 Python, MLX needs one"] if rosetta else []
    sources: dict[str, tuple[str, Confidence]] = {"os": ("sysctl and pmset", "high")}
    device = cut(values.get("hw.model", ""))
    if device:
        sources["device"] = ("sysctl hw.model", "high")
    return SystemFinding(system, device, sources, tuple(notes))


def _windows(reader: Reader) -> SystemFinding:
    said = ask_mapping(reader, "platform")
    plugged = ask_mapping(reader, "psutil").get("plugged")
    system = OperatingSystem(
        family="windows",
        name="Windows",
        version=cut(str(said.get("release", ""))),
        kernel=cut(str(said.get("version", ""))),
        power=None if plugged is None else "mains" if plugged else "battery",
    )
    return SystemFinding(system, "", {"os": ("Python's platform module and psutil", "high")})


def read_disk(reader: Reader, path: Path) -> tuple[Disk, tuple[str, ...]]:
    """The file system that holds `path` (or its nearest existing parent), in bytes."""
    there = next((folder for folder in (path, *path.parents) if folder.exists()), path)
    usage = reader.disk(str(there))
    kind = filesystem_of(reader.text("/proc/self/mountinfo") or "", str(there.resolve()))
    notes = (f"{kind} holds no file above 4 GiB: larger models must be split",) if kind in _SMALL_FILES else ()
    if usage is None:
        return Disk(), ()
    return Disk(path=cut(str(path)), total_bytes=usage[0], free_bytes=usage[1], filesystem=kind), notes


def filesystem_of(mountinfo: str, path: str) -> str:
    """The type of the file system that holds `path`, by the longest mount point of /proc/self/mountinfo."""
    best, kind = "", ""
    for line in mountinfo.splitlines():
        fields, _, rest = line.partition(" - ")
        parts = fields.split()
        if len(parts) < 5 or not rest.split():
            continue
        mount = parts[4].replace("\\040", " ")
        if (path == mount or path.startswith(mount.rstrip("/") + "/")) and len(mount) >= len(best):
            best, kind = mount, rest.split()[0]
    return cut(kind)


def find_toolchains() -> tuple[tuple[Toolchain, ...], tuple[str, ...]]:
    """Frameworks that can run: isolated environments under ADVISOR_HOME, then this interpreter. And notes on bad ones.

    Nothing is imported: an environment says what it is in its `toolchain.json`, a package by its metadata.
    """
    found, notes = [], []
    home = advisor_home() / "toolchains"
    for file in sorted(home.glob("*/toolchain.json")) if exists(home) else ():
        try:
            document = read_json(file, "toolchain description", limit_bytes=2**16)
            if document["framework"] not in HELPERS:
                found.append(_isolated(document))
        except (AdvisorError, KeyError, TypeError, ValueError):
            notes.append(f"{file.parent.name}/toolchain.json is not readable: that toolchain is left out")
    for framework, (package, distribution) in FRAMEWORKS.items():
        if importlib.util.find_spec(package) is not None:
            version = _version(distribution)
            found.append(Toolchain(framework=framework, version=version, kind="current", python=cut(sys.executable)))
    return tuple(found), tuple(notes)


def _isolated(document: dict[str, object]) -> Toolchain:
    framework = str(document["framework"])
    if framework not in FRAMEWORKS:
        raise ValueError(framework)
    return Toolchain(
        framework=framework,
        version=cut(str(document.get("version", ""))),
        kind="isolated",
        python=cut(str(document["python"])),
    )


def _version(distribution: str) -> str:
    import importlib.metadata  # imported late: 20 ms, and only where a framework is installed

    try:
        return cut(importlib.metadata.version(distribution))
    except importlib.metadata.PackageNotFoundError:
        return ""
