"""The GPUs of a machine, by NVIDIA's library, sysfs, the Windows registry and CIM, or macOS's system profiler.

Order for NVIDIA: nvidia-ml-py, gputil, nvidia-smi, /proc. AMD and Intel by sysfs. Two sources that disagree are both
named in the notes. A GPU without memory of its own is still a GPU; a software renderer never is one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from knowledge.chips import pci_devices
from probes.gpu_text import (
    NVIDIA_QUERY,
    PCI_VENDORS,
    Card,
    bus_address,
    card_of_drm_driver,
    parse_kfd_target,
    parse_nvidia_information,
    parse_nvidia_smi,
    parse_nvidia_version,
    parse_nvml,
    parse_registry_class,
    parse_system_profiler,
    parse_video_controllers,
    parse_vulkan_summary,
    registry_memory,
    vendor_in,
    windows_pci_id,
)  # fmt: skip
from probes.reader import Reader

PCI = "/sys/bus/pci/devices"
POWERSHELL = ("powershell", "-NoProfile", "-NonInteractive", "-Command")
VIDEO_CONTROLLERS = (
    *POWERSHELL,
    "Get-CimInstance Win32_VideoController | Select-Object Name,AdapterRAM,DriverVersion,PNPDeviceID | ConvertTo-Json",
)
DISPLAY_CLASS = (
    "reg", "query", r"HKLM\SYSTEM\CurrentControlSet\Control\Class\{4d36e968-e325-11ce-bfc1-08002be10318}", "/s",
)  # fmt: skip
_NVIDIA_SMI = ("nvidia-smi", f"--query-gpu={NVIDIA_QUERY}", "--format=csv,nounits")
_WSL_NVIDIA_SMI = ("/usr/lib/wsl/lib/nvidia-smi", *_NVIDIA_SMI[1:])
# Two reports of one card's memory closer than this are the same: drivers keep some of it for themselves.
_SAME_MEMORY = 0.1


@dataclass(frozen=True)
class GpuFinding:
    cards: tuple[Card, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _PciDisplay:
    address: str
    pci_id: str
    driver: str


def read_gpus(reader: Reader) -> GpuFinding:
    """The GPUs of the machine behind `reader`, discrete ones first."""
    if reader.system == "darwin":
        cards = parse_system_profiler(reader.run("system_profiler", "-json", "SPDisplaysDataType") or "")
        return GpuFinding(tuple(replace(card, source="system_profiler") for card in cards))
    if reader.system == "windows":
        return _on_windows(reader)
    return _on_linux(reader)


def _on_linux(reader: Reader) -> GpuFinding:
    notes: list[str] = []
    displays = _pci_displays(reader)
    nvidia = [display for display in displays if display.pci_id.startswith("10de:")]
    cards: list[Card] = []
    if nvidia or reader.text("/proc/driver/nvidia/version") or _maybe_nvidia(reader):
        cards = read_nvidia(reader, notes)
        _cross_check_nvidia(reader, cards, nvidia, notes)
    for display in displays:
        vendor = PCI_VENDORS.get(display.pci_id[:4])
        if vendor in ("amd", "intel"):
            if display.driver in ("amdgpu", "radeon", "i915", "xe"):
                cards.append(_sysfs_card(reader, display))
            else:
                notes.append(f"GPU {display.pci_id} is present, but no driver is bound to it: it is left out")
    cards.extend(_platform_cards(reader))
    if not cards:
        listed = parse_vulkan_summary(reader.run("vulkaninfo", "--summary") or "")
        cards = [replace(card, source="vulkaninfo") for card in listed]
    return GpuFinding(tuple(sorted(cards, key=lambda card: card.kind == "integrated")), tuple(notes))


def _maybe_nvidia(reader: Reader) -> bool:
    """Where no PCI device shows: under WSL2 and on Jetson."""
    compatible = reader.text("/proc/device-tree/compatible") or ""
    return "nvidia,tegra" in compatible or "nvidia-smi" in reader.names("/usr/lib/wsl/lib")


def _pci_displays(reader: Reader) -> list[_PciDisplay]:
    found = []
    for address in reader.names(PCI):
        if (reader.text(f"{PCI}/{address}/class") or "").startswith("0x03"):
            ids = [(reader.text(f"{PCI}/{address}/{name}") or "").strip() for name in ("vendor", "device")]
            pci_id = ":".join(part.removeprefix("0x") for part in ids)
            found.append(_PciDisplay(address, pci_id, reader.link(f"{PCI}/{address}/driver") or ""))
    return found


def read_nvidia(reader: Reader, notes: list[str]) -> list[Card]:
    """NVIDIA's GPUs by the first source that answers."""
    if cards := parse_nvml(reader.ask("nvml")):
        return [replace(card, source="nvidia-ml-py") for card in cards]
    if cards := parse_nvml(reader.ask("gputil")):
        notes.append("NVIDIA's own library did not answer: gputil did")
        return [replace(card, source="gputil", confidence="medium") for card in cards]
    for command in (_NVIDIA_SMI, _WSL_NVIDIA_SMI):
        if cards := parse_nvidia_smi(reader.run(*command) or ""):
            return [replace(card, source="nvidia-smi") for card in cards]
    return _proc_nvidia(reader)


def _proc_nvidia(reader: Reader) -> list[Card]:
    root = "/proc/driver/nvidia/gpus"
    driver = parse_nvidia_version(reader.text("/proc/driver/nvidia/version") or "")
    texts = (reader.text(f"{root}/{bus}/information") or "" for bus in reader.names(root))
    cards = (parse_nvidia_information(text) for text in texts)
    return [replace(card, driver=driver, source="/proc/driver/nvidia", confidence="medium") for card in cards if card]


def _cross_check_nvidia(reader: Reader, cards: list[Card], displays: list[_PciDisplay], notes: list[str]) -> None:
    if displays and not cards:
        names = ", ".join(display.pci_id for display in displays)
        notes.append(f"NVIDIA GPU {names} is present, but its driver does not answer: it is left out")
    elif displays and len(displays) != len(cards):
        notes.append(
            f"{cards[0].source} sees {len(cards)} NVIDIA GPUs, the PCI bus {len(displays)}: the former is used"
        )
    if cards and cards[0].source != "/proc/driver/nvidia":
        proc = {card.bus: card.name for card in _proc_nvidia(reader)}
        for card in cards:
            other = proc.get(card.bus)
            if card.bus and other and other != card.name:
                notes.append(f"{card.source} calls the GPU {card.name}, the driver {other}: the former is used")


def _sysfs_card(reader: Reader, display: _PciDisplay) -> Card:
    """An AMD or Intel GPU with a driver: memory by sysfs, name and kind by PCI id, generation by the driver."""
    root = f"{PCI}/{display.address}"
    known = pci_devices().get(display.pci_id)
    vram = _number(reader.text(f"{root}/mem_info_vram_total"))
    used = _number(reader.text(f"{root}/mem_info_vram_used"))
    local = [
        _number(reader.text(f"{root}/drm/{name}/lmem_total_bytes"))
        for name in reader.names(f"{root}/drm")
        if name.startswith("card")
    ]
    vendor = PCI_VENDORS[display.pci_id[:4]]
    first_bus = display.address.startswith("0000:00:")
    guess: Literal["discrete", "integrated"] = "integrated" if first_bus else "discrete"
    total = vram or max((size for size in local if size), default=None)
    return Card(
        vendor=vendor,
        name=(reader.text(f"{root}/product_name") or "").strip()
        or (known.name if known else f"{vendor} {display.pci_id}"),
        kind=known.kind if known else guess,  # type: ignore[arg-type]  # checked by the data's own tests
        generation=_kfd_generation(reader, display.pci_id) or (known.generation if known else ""),
        driver=display.driver,
        total_bytes=total,
        free_bytes=total - used if total and used is not None and used <= total else None,
        shared_bytes=_number(reader.text(f"{root}/mem_info_gtt_total")),
        bus=bus_address(display.address),
        pci_id=display.pci_id,
        source="sysfs",
        confidence="high" if known else "medium",
    )


def _kfd_generation(reader: Reader, pci_id: str) -> str:
    root = "/sys/class/kfd/kfd/topology/nodes"
    if not re.fullmatch(r"1002:[0-9a-f]{4}", pci_id):
        return ""
    device = int(pci_id[5:], 16)
    for node in reader.names(root):
        text = reader.text(f"{root}/{node}/properties") or ""
        if re.search(rf"^device_id {device}$", text, re.MULTILINE):
            return parse_kfd_target(text)
    return ""


def _number(text: str | None) -> int | None:
    clean = (text or "").strip()
    return int(clean) if clean.isdecimal() and len(clean) < 19 else None


def _platform_cards(reader: Reader) -> list[Card]:
    """GPUs of boards and phones: DRM devices that are on no PCI bus, one per driver."""
    root = "/sys/class/drm"
    cards: dict[str, Card] = {}
    for name in reader.names(root):
        if not re.fullmatch(r"(?:card|renderD)\d+", name) or bus_address(reader.link(f"{root}/{name}/device") or ""):
            continue
        if card := card_of_drm_driver(reader.link(f"{root}/{name}/device/driver") or ""):
            cards.setdefault(card.name, replace(card, source="sysfs", confidence="medium"))
    return list(cards.values())


def _on_windows(reader: Reader) -> GpuFinding:
    """Which adapters are present by CIM, their memory by the registry's 64-bit value, NVIDIA by its own library."""
    notes: list[str] = []
    registry = parse_registry_class(reader.run(*DISPLAY_CLASS) or "")
    listed = parse_video_controllers(reader.run(*VIDEO_CONTROLLERS) or "")
    if not listed:
        listed = [_registry_card(device) for device in registry if vendor_in(device.get("DriverDesc", "")) != "unknown"]
    nvidia = read_nvidia(reader, notes) if any(card.vendor == "nvidia" for card in listed) else []
    cards = list(nvidia)
    for card in listed:
        if card.vendor == "nvidia" and nvidia:
            continue
        size = next((registry_memory(device) for device in registry if device.get("DriverDesc") == card.name), None)
        known = pci_devices().get(card.pci_id)
        kind = known.kind if known else _kind_by_name(card.name)
        if size and card.total_bytes and kind == "discrete" and abs(size - card.total_bytes) > _SAME_MEMORY * size:
            notes.append(f"{card.name}: the registry says {size} bytes, CIM {card.total_bytes}: the registry is used")
        cards.append(
            replace(
                card,
                kind=kind,  # type: ignore[arg-type]  # checked by the data's own tests
                generation=known.generation if known else "",
                total_bytes=size or card.total_bytes,
                source="Windows registry (qwMemorySize) and CIM" if size else "CIM Win32_VideoController",
                confidence="high" if size else "medium",
            )
        )
    return GpuFinding(tuple(sorted(cards, key=lambda card: card.kind == "integrated")), tuple(notes))


def _registry_card(device: dict[str, str]) -> Card:
    name = device["DriverDesc"]
    return Card(
        vendor=vendor_in(name),
        name=name[:400],
        driver=device.get("DriverVersion", "")[:100],
        pci_id=windows_pci_id(device.get("MatchingDeviceId", "")),
    )


def _kind_by_name(name: str) -> Literal["discrete", "integrated", "unknown"]:
    """Integrated graphics have no model number of a card in their name."""
    if re.search(r"\bRX \d|\bPro W\d|Arc\(TM\) (?:Pro )?[AB]\d{2,3}M?\b|GeForce|RTX|Quadro", name, re.IGNORECASE):
        return "discrete"
    if re.search(
        r"Radeon(?:\(TM\))? (?:\d{3}M|\d{4}S|Graphics)|Iris|UHD|Intel.*Graphics|Adreno|Arc\(TM\)", name, re.IGNORECASE
    ):
        return "integrated"
    return "unknown"
