"""Parsers of what drivers and tools print about GPUs: pure functions of text, each yielding `Card` records.

A memory of None means that the tool named none: unified memory, or unknown. It never means that there is no GPU.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from probes.profile import Confidence, Vendor
from probes.reader import count_in, parse_json

NVIDIA_QUERY = "name,memory.total,memory.free,compute_cap,driver_version,pci.bus_id"
MIB = 2**20

# Software rasterizers that present themselves as a GPU.
_SOFTWARE = re.compile(
    r"llvmpipe|lavapipe|swiftshader|softpipe|software rasterizer|basic (?:render|display)", re.IGNORECASE
)
_VENDOR_WORDS: tuple[tuple[str, Vendor], ...] = (
    ("nvidia", "nvidia"), ("geforce", "nvidia"), ("quadro", "nvidia"), ("radeon", "amd"), ("amd", "amd"),
    ("advanced micro", "amd"), ("intel", "intel"), ("adreno", "qualcomm"), ("qualcomm", "qualcomm"),
    ("apple", "apple"), ("mali", "arm"), ("immortalis", "arm"), ("v3d", "broadcom"), ("videocore", "broadcom"),
)  # fmt: skip
_DRM_DRIVERS: dict[str, tuple[Vendor, str]] = {
    "v3d": ("broadcom", "VideoCore"), "vc4": ("broadcom", "VideoCore"), "panfrost": ("arm", "Mali"),
    "panthor": ("arm", "Mali"), "lima": ("arm", "Mali"), "msm": ("qualcomm", "Adreno"), "asahi": ("apple", "Apple GPU"),
}  # fmt: skip
PCI_VENDORS: dict[str, Vendor] = {"10de": "nvidia", "1002": "amd", "8086": "intel"}


@dataclass(frozen=True)
class Card:
    """A GPU as one source sees it; `bus` is the PCI address in lower case, empty where it is not said."""

    vendor: Vendor
    name: str = ""
    kind: Literal["discrete", "integrated", "unknown"] = "unknown"
    generation: str = ""
    driver: str = ""
    total_bytes: int | None = None
    free_bytes: int | None = None
    shared_bytes: int | None = None
    bus: str = ""
    pci_id: str = ""
    source: str = ""
    confidence: Confidence = "high"


def is_software(name: str) -> bool:
    """True for a renderer that computes on the CPU."""
    return bool(_SOFTWARE.search(name))


def vendor_in(name: str) -> Vendor:
    """The vendor that a GPU's name tells of."""
    low = name.lower()
    return next((vendor for word, vendor in _VENDOR_WORDS if word in low), "unknown")


def bus_address(text: str) -> str:
    """A PCI address in the kernel's form: "00000000:01:00.0" as "0000:01:00.0"."""
    found = re.search(r"([0-9a-f]{2}:[0-9a-f]{2}\.[0-7])\s*$", text.lower())
    return f"0000:{found[1]}" if found else ""


def parse_nvml(entries: Any) -> list[Card]:
    """What NVIDIA's library (or gputil) says: a list of objects with name, driver, total_bytes..."""
    return [
        Card(
            vendor="nvidia",
            name=str(entry.get("name", ""))[:400],
            generation=f"cc {entry['compute_capability']}" if entry.get("compute_capability") else "",
            driver=str(entry.get("driver", ""))[:400],
            total_bytes=count_in(entry.get("total_bytes")),
            free_bytes=count_in(entry.get("free_bytes")),
            bus=bus_address(str(entry.get("bus", ""))),
        )
        for entry in (entries if isinstance(entries, list) else ())
        if isinstance(entry, dict)
    ]


def parse_nvidia_smi(text: str) -> list[Card]:
    """`nvidia-smi --query-gpu=... --format=csv,nounits`: the header names the columns, "[N/A]" is unified memory."""
    lines = [[part.strip() for part in line.split(",")] for line in text.splitlines() if "," in line]
    if not lines or "name" not in lines[0]:
        return []
    header = [name.split(" [")[0] for name in lines[0]]
    cards = []
    for values in lines[1:]:
        row = dict(zip(header, values, strict=False))
        name, capability, driver = row.get("name", ""), row.get("compute_cap", ""), row.get("driver_version", "")
        if name and not name.startswith("["):
            cards.append(
                Card(
                    vendor="nvidia",
                    name=name[:400],
                    generation=f"cc {capability}" if re.fullmatch(r"\d{1,2}\.\d", capability) else "",
                    driver=driver if re.fullmatch(r"[\d.]{3,20}", driver) else "",
                    total_bytes=_mib(row.get("memory.total", "")),
                    free_bytes=_mib(row.get("memory.free", "")),
                    bus=bus_address(row.get("pci.bus_id", "")),
                )
            )
    return cards


def _mib(text: str) -> int | None:
    found = re.fullmatch(r"(\d{1,9})(?: MiB)?", text)
    return int(found[1]) * MIB or None if found else None


def parse_nvidia_information(text: str) -> Card | None:
    """/proc/driver/nvidia/gpus/*/information: model and bus address; None for a GPU that the driver can't start."""
    values = dict(re.findall(r"^([\w ]+?):\s*(.*?)\s*$", text, re.MULTILINE))
    if values.get("Model", "Unknown") == "Unknown":
        return None
    return Card(vendor="nvidia", name=values["Model"][:400], bus=bus_address(values.get("Bus Location", "")))


def parse_nvidia_version(text: str) -> str:
    """The driver's version in /proc/driver/nvidia/version."""
    found = re.search(r"^NVRM version:.*?\s(\d{2,4}\.\d[\d.]*)\s", text, re.MULTILINE)
    return found[1] if found else ""


def parse_kfd_target(text: str) -> str:
    """`gfx_target_version` of an AMD KFD topology node as the compiler's name: 110000 is gfx1100, 90010 is gfx90a."""
    found = re.search(r"^gfx_target_version (\d{5,6})$", text, re.MULTILINE)
    if not found:
        return ""
    major, minor, step = int(found[1]) // 10000, int(found[1]) // 100 % 100, int(found[1]) % 100
    return f"gfx{major}{minor:x}{step:x}"


def parse_video_controllers(text: str) -> list[Card]:
    """`Get-CimInstance Win32_VideoController | ConvertTo-Json`: one object or a list.

    AdapterRAM is a 32-bit number: from 4 GB on it is meaningless, so sizes of 4 GB less a few pages are dropped.
    """
    document = parse_json(text)
    cards = []
    for entry in document if isinstance(document, list) else [document]:
        if not isinstance(entry, dict) or not isinstance(entry.get("Name"), str) or is_software(entry["Name"]):
            continue
        memory = count_in(entry.get("AdapterRAM"))
        cards.append(
            Card(
                vendor=vendor_in(entry["Name"]),
                name=entry["Name"][:400],
                driver=str(entry.get("DriverVersion") or "")[:100],
                total_bytes=memory if memory and memory < 4 * 2**30 - 2 * MIB else None,
                pci_id=windows_pci_id(str(entry.get("PNPDeviceID") or "")),
                confidence="medium",
            )
        )
    return cards


def windows_pci_id(device_id: str) -> str:
    r"""`PCI\VEN_8086&DEV_7D55&...` as 8086:7d55."""
    found = re.search(r"VEN_([0-9A-F]{4})&DEV_([0-9A-F]{4})", device_id.upper())
    return f"{found[1]}:{found[2]}".lower() if found else ""


def parse_registry_class(text: str) -> list[dict[str, str]]:
    r"""`reg query HKLM\...\Control\Class\{...} /s`: the values of each numbered subkey, names as printed."""
    devices: list[dict[str, str]] = []
    current: dict[str, str] | None = None
    for line in text.splitlines():
        if line.startswith("HKEY_"):
            numbered = re.search(r"\\\d{4}\s*$", line)
            current = {} if numbered else None
            if current is not None:
                devices.append(current)
        elif current is not None and (found := re.match(r"\s{2,}(\S.*?)\s{2,}REG_(\w+)\s*(.*?)\s*$", line)):
            current[found[1]] = found[3]
    return devices


def registry_memory(device: dict[str, str]) -> int | None:
    """The display adapter's memory: the 64-bit value, else the 32-bit one (which wraps at 4 GB)."""
    for name in ("HardwareInformation.qwMemorySize", "HardwareInformation.MemorySize"):
        text = device.get(name, "")
        if re.fullmatch(r"0x[0-9a-fA-F]{1,15}", text) and (size := int(text, 16)):
            return size
    return None


def parse_system_profiler(text: str) -> list[Card]:
    """`system_profiler -json SPDisplaysDataType`: Apple's GPUs (with their cores) and the cards of Intel Macs."""
    document = parse_json(text)
    displays: Any = document.get("SPDisplaysDataType") if isinstance(document, dict) else None
    cards = []
    for entry in displays if isinstance(displays, list) else ():
        if not isinstance(entry, dict):
            continue
        name = str(entry.get("sppci_model") or entry.get("_name") or "")
        cores = entry.get("sppci_cores")
        vram = re.match(r"(\d{1,7}) (MB|GB)", str(entry.get("spdisplays_vram") or ""))
        maker = vendor_in(name)
        cards.append(
            Card(
                vendor=maker,
                name=name[:400],
                kind="integrated" if maker in ("apple", "intel") else "discrete",
                generation=f"{cores}-core GPU" if cores else "",
                total_bytes=int(vram[1]) * {"MB": MIB, "GB": 1024 * MIB}[vram[2]] if vram else None,
                driver="Metal" if "mtl" in str(entry.get("spdisplays_mtlgpufamilysupport", "")).lower() else "",
            )
        )
    return cards


def parse_vulkan_summary(text: str) -> list[Card]:
    """`vulkaninfo --summary`: hardware devices only; a CPU device (llvmpipe) is the CPU."""
    cards = []
    for block in re.split(r"^GPU\d+:\s*$", text, flags=re.MULTILINE)[1:]:
        values: dict[str, str] = dict(re.findall(r"^\s+(\w+)\s+= (.*?)\s*$", block, re.MULTILINE))
        name, kind = values.get("deviceName", ""), values.get("deviceType", "")
        if not name or "CPU" in kind or is_software(name):
            continue
        cards.append(
            Card(
                vendor=vendor_in(name),
                name=name[:400],
                kind="integrated" if "INTEGRATED" in kind else "discrete" if "DISCRETE" in kind else "unknown",
                driver=values.get("driverInfo", values.get("driverName", ""))[:100],
                confidence="medium",
            )
        )
    return cards


def card_of_drm_driver(driver: str) -> Card | None:
    """The GPU that a platform DRM driver is for (no PCI id on boards and phones)."""
    known = _DRM_DRIVERS.get(driver)
    return Card(vendor=known[0], name=known[1], kind="integrated", driver=driver) if known else None
