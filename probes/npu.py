"""The NPUs of a machine: by driver, by PCI id where the driver is missing, by Windows' device list, by the CPU's name.

Present hardware without a driver is said to be that (`driver-missing`), never left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from knowledge.chips import load_vendors, npu_generation, pci_devices
from knowledge.match import family_of
from knowledge.records import Chip
from probes.from_chip import npu_of, vendor_of
from probes.gpu import PCI, POWERSHELL
from probes.gpu_text import parse_registry_class, windows_pci_id
from probes.profile import NPU, Confidence, Vendor
from probes.reader import Reader, parse_json

ACCELERATORS = (
    *POWERSHELL,
    "Get-PnpDevice -Class ComputeAccelerator -PresentOnly | "
    "Select-Object FriendlyName,Status,InstanceId | ConvertTo-Json",
)
ACCELERATOR_CLASS = (
    "reg", "query", r"HKLM\SYSTEM\CurrentControlSet\Control\Class\{f01a9d53-3ff6-48d2-9f97-c8a7004be10c}", "/s",
)  # fmt: skip
# Kernel drivers of the accel class and their hardware.
_DRIVERS: dict[str, tuple[Vendor, str, str]] = {
    "intel_vpu": ("intel", "Intel NPU", ""),
    "amdxdna": ("amd", "AMD XDNA NPU", ""),
    "qaic": ("qualcomm", "Qualcomm Cloud AI 100", "Cloud AI 100"),
    "habanalabs": ("intel", "Habana Gaudi", "Gaudi"),
    "rocket": ("rockchip", "Rockchip NPU", "RKNPU"),
    "ethosu": ("arm", "Arm Ethos-U", "Ethos"),
    "ivpu": ("intel", "Intel NPU", ""),
}
_VENDOR_PREFIX: dict[str, Vendor] = {"8086": "intel", "1022": "amd", "17cb": "qualcomm"}


@dataclass(frozen=True)
class FoundNpu:
    npu: NPU
    source: str
    confidence: Confidence


def read_npus(reader: Reader) -> tuple[FoundNpu, ...]:
    """The NPUs that the system behind `reader` shows."""
    if reader.system == "windows":
        return tuple(_on_windows(reader))
    return tuple(_on_linux(reader)) if reader.system == "linux" else ()


def complete_by_cpu(found: tuple[FoundNpu, ...], chip: Chip | None, cpu_model: str) -> tuple[FoundNpu, ...]:
    """`found` with what only the CPU's name tells: generation and TOPS, or an NPU that no driver shows."""
    by_name = _by_cpu_name(chip, cpu_model)
    if by_name is None:
        return found
    if all(item.npu.vendor != by_name.npu.vendor for item in found):
        return (*found, by_name)
    return tuple(_complete(item, by_name) if item.npu.vendor == by_name.npu.vendor else item for item in found)


def _complete(item: FoundNpu, by_name: FoundNpu) -> FoundNpu:
    """What the driver does not say (generation, TOPS) from the CPU's name."""
    npu = item.npu
    generation = npu.generation or by_name.npu.generation
    tops = by_name.npu.tops if generation == by_name.npu.generation else npu.tops
    return replace(item, npu=npu.model_copy(update={"generation": generation, "tops": tops}))


def _on_linux(reader: Reader) -> list[FoundNpu]:
    found = []
    bound = set()
    for name in reader.names("/sys/class/accel"):
        root = f"/sys/class/accel/{name}/device"
        driver = reader.link(f"{root}/driver") or ""
        address = reader.link(root) or ""
        bound.add(address)
        ids = [(reader.text(f"{root}/{part}") or "").strip().removeprefix("0x") for part in ("vendor", "device")]
        known = pci_devices().get(":".join(ids))
        vendor, label, generation = _DRIVERS.get(driver, ("unknown", "", ""))
        npu = NPU(
            vendor=vendor if vendor != "unknown" else _VENDOR_PREFIX.get(ids[0], "unknown"),
            name=known.name if known else label or f"accelerator {name}"[:100],
            generation=known.generation if known else generation or _xdna(reader.text(f"{root}/vbnv") or ""),
            state="ready" if driver else "driver-missing",
            driver=driver[:100],
        )
        found.append(FoundNpu(npu, f"/sys/class/accel/{name}"[:100], "high"))
    found.extend(_unbound(reader, bound))
    if any(name.startswith("fastrpc-") for name in reader.names("/dev")):
        npu = NPU(vendor="qualcomm", name="Qualcomm Hexagon", state="ready", driver="fastrpc")
        found.append(FoundNpu(npu, "/dev/fastrpc-*", "medium"))
    return found


def _xdna(vbnv: str) -> str:
    """`RyzenAI-npu5` as XDNA2; npu1 is XDNA1."""
    found = re.search(r"RyzenAI-npu(\d)", vbnv)
    return "" if not found else "XDNA1" if found[1] == "1" else "XDNA2"


def _unbound(reader: Reader, bound: set[str]) -> list[FoundNpu]:
    """NPUs on the PCI bus that no accel device stands for."""
    found = []
    for address in reader.names(PCI):
        if address in bound or not re.match(r"0x(?:12|1180|0b40)", reader.text(f"{PCI}/{address}/class") or ""):
            continue
        ids = [
            (reader.text(f"{PCI}/{address}/{part}") or "").strip().removeprefix("0x") for part in ("vendor", "device")
        ]
        known = pci_devices().get(":".join(ids))
        if known is None or known.engine != "npu":
            continue
        driver = reader.link(f"{PCI}/{address}/driver") or ""
        npu = NPU(
            vendor=_VENDOR_PREFIX.get(ids[0], "other"),
            name=known.name,
            generation=known.generation,
            state="ready" if driver else "driver-missing",
            driver=driver[:100],
        )
        found.append(FoundNpu(npu, f"PCI device {':'.join(ids)}", "high"))
    return found


def _on_windows(reader: Reader) -> list[FoundNpu]:
    devices = parse_accelerators(reader.run(*ACCELERATORS) or "")
    drivers = {
        device.get("DriverDesc"): device for device in parse_registry_class(reader.run(*ACCELERATOR_CLASS) or "")
    }
    if not devices:
        devices = [(name, "", values.get("MatchingDeviceId", "")) for name, values in drivers.items() if name]
    found = []
    for name, status, instance in devices:
        npu = npu_of_pnp(name, status, instance)
        driver = drivers.get(name, {}).get("DriverVersion", "")[:100]
        source = "Get-PnpDevice -Class ComputeAccelerator" if status else "Windows registry, ComputeAccelerator class"
        found.append(FoundNpu(npu.model_copy(update={"driver": driver}), source, "high" if status else "medium"))
    return found


def parse_accelerators(text: str) -> list[tuple[str, str, str]]:
    """Get-PnpDevice as JSON (one object or a list), or its table: (name, status, instance id) of each device."""
    document = parse_json(text)
    if document is None:
        rows = re.findall(
            r"^(OK|Error|Unknown|Degraded)\s+ComputeAccelerator\s+(.+?)\s{2,}(\S+)\s*$", text, re.MULTILINE
        )
        return [(name, status, instance) for status, name, instance in rows]
    entries = document if isinstance(document, list) else [document]
    return [
        (str(entry["FriendlyName"]), str(entry.get("Status") or ""), str(entry.get("InstanceId") or ""))
        for entry in entries
        if isinstance(entry, dict) and entry.get("FriendlyName")
    ]


def npu_of_pnp(name: str, status: str, instance: str) -> NPU:
    """An NPU by its Windows device name and PCI id."""
    pci_id = windows_pci_id(instance)
    known = pci_devices().get(pci_id)
    low = name.lower()
    vendor: Vendor = _VENDOR_PREFIX.get(pci_id[:4], "unknown")
    if vendor == "unknown":
        words: tuple[tuple[str, Vendor], ...] = (
            ("intel", "intel"), ("hexagon", "qualcomm"), ("snapdragon", "qualcomm"), ("npu compute accelerator", "amd"),
        )  # fmt: skip
        vendor = next((maker for word, maker in words if word in low), "unknown")
    return NPU(
        vendor=vendor,
        name=name[:400],
        generation=known.generation if known else "",
        state="ready" if status in ("OK", "") else "driver-missing",
    )


def _by_cpu_name(chip: Chip | None, cpu_model: str) -> FoundNpu | None:
    """The NPU that the CPU's name tells of: present in the silicon, its driver unseen."""
    if chip is not None:
        npu = npu_of(chip)
        return FoundNpu(npu, f"by the CPU's name: {chip.name}", "medium") if npu else None
    family = family_of(cpu_model) if cpu_model else None
    if family is None or not (generation := npu_generation(family)):
        return None
    vendor = vendor_of(family.vendor)
    line = load_vendors().get(vendor)
    npu = NPU(vendor=vendor, name=line.npu if line else "", generation="" if generation == "NPU" else generation)
    return FoundNpu(npu, f"by the CPU's name: {family.family}", "medium")
