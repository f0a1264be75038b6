"""The CPU: vendor, model, cores and instruction sets, from /proc, sysctl, the Windows registry or py-cpuinfo.

Each reader has a parser that is a pure function of text. `read_cpu` never raises; what nobody says stays unknown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import cast

from knowledge.chips import arm_cores
from knowledge.match import chips_named, family_of
from knowledge.records import Chip, ChipFamily
from probes.draft import cut
from probes.from_chip import HOST_KINDS, core_counts, instruction_sets, vendor_of
from probes.profile import CPU, Confidence, Vendor
from probes.reader import Reader, ask_mapping, count_in

# Kernel and py-cpuinfo flag -> the profile's word.
_X86_FLAGS = {
    "sse4_2": "sse4_2", "avx": "avx", "avx2": "avx2", "f16c": "f16c", "fma": "fma", "avx512f": "avx512",
    "avx512_vnni": "avx512_vnni", "avx512vnni": "avx512_vnni", "avx_vnni": "avx_vnni", "avx512_bf16": "bf16",
    "amx_tile": "amx",
}  # fmt: skip
_ARM_FLAGS = {
    "asimd": "neon", "neon": "neon", "asimddp": "dotprod", "i8mm": "i8mm", "sve": "sve", "sve2": "sve2",
    "bf16": "bf16", "sme": "sme",
}  # fmt: skip
_MAC_FLAGS = {
    "FEAT_DotProd": "dotprod", "FEAT_I8MM": "i8mm", "FEAT_BF16": "bf16", "FEAT_SME": "sme", "AdvSIMD": "neon",
    "neon": "neon",
}  # fmt: skip
_MAC_X86 = {"AVX1.0": "avx", "AVX2": "avx2", "FMA": "fma", "F16C": "f16c", "SSE4.2": "sse4_2", "AVX512F": "avx512"}
_X86_VENDORS = {"GenuineIntel": "intel", "AuthenticAMD": "amd"}
_ARCHES = {
    "x86_64": "x86_64", "amd64": "x86_64", "arm64": "arm64", "aarch64": "arm64", "armv7l": "armv7", "armv6l": "armv7",
    "riscv64": "riscv64",
}  # fmt: skip
# Cores of at least this share of the fastest core's capacity count as performance cores (arm64 cpu_capacity).
_FAST_CAPACITY = 0.6

REGISTRY_CPU = ("reg", "query", r"HKLM\HARDWARE\DESCRIPTION\System\CentralProcessor\0")


@dataclass(frozen=True)
class CpuText:
    """What one source says of the CPU; empty or None where it says nothing."""

    vendor: Vendor = "unknown"
    model: str = ""
    physical_cores: int | None = None
    performance_cores: int | None = None
    logical_cores: int | None = None
    instruction_sets: tuple[str, ...] = ()


@dataclass(frozen=True)
class CpuFinding:
    """The CPU, the chip's row where its name is known, and how each part is known (path below `cpu` -> source)."""

    cpu: CPU
    chip: Chip | None = None
    sources: dict[str, tuple[str, Confidence]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_cpu(reader: Reader) -> CpuFinding:
    """The CPU of the machine behind `reader`."""
    arch = _ARCHES.get(reader.machine.lower(), "other" if reader.machine else "unknown")
    sources: dict[str, tuple[str, Confidence]] = {"arch": ("platform.machine()", "high")}
    known, source = _ask_system(reader)
    if not known.model and not known.instruction_sets:
        known, source = _py_cpuinfo(reader), "py-cpuinfo"
    if known != CpuText():
        sources[""] = (source, "high")
    chip = _chip(reader, known.model)
    known, sources = _fill_from_chip(known, chip, sources)
    if reader.system == "darwin" and "sysctl.proc_translated: 1" in (reader.run("sysctl", "-a") or ""):
        arch = "arm64"
    usable = _possible(count_in(reader.ask("affinity")))
    if usable:
        sources["usable_cores"] = ("scheduler affinity of this process", "high")
    cpu = CPU(
        vendor=known.vendor,
        arch=arch,  # type: ignore[arg-type]  # one of the profile's words by construction
        model=cut(known.model),
        physical_cores=_possible(known.physical_cores),
        performance_cores=_possible(known.performance_cores),
        logical_cores=_possible(known.logical_cores),
        usable_cores=float(usable) if usable else None,
        instruction_sets=known.instruction_sets,
        fp16_tflops=chip.fp16_tflops if chip and chip.kind == "cpu" else None,
    )
    return CpuFinding(cpu, chip, sources)


def _possible(cores: int | None) -> int | None:
    return cores if cores and 1 <= cores <= 4096 else None


def _ask_system(reader: Reader) -> tuple[CpuText, str]:
    if reader.system == "darwin":
        return parse_sysctl(reader.run("sysctl", "-a") or ""), "sysctl"
    if reader.system == "windows":
        known = parse_registry(reader.run(*REGISTRY_CPU) or "")
        counted = ask_mapping(reader, "psutil")
        physical, logical = count_in(counted.get("physical_cores")), count_in(counted.get("logical_cores"))
        return replace(known, physical_cores=physical, logical_cores=logical), "Windows registry; psutil for the cores"
    known = parse_proc_cpuinfo(reader.text("/proc/cpuinfo") or "")
    return _with_topology(reader, known), "/proc/cpuinfo and sysfs topology"


def parse_proc_cpuinfo(text: str) -> CpuText:
    """Linux /proc/cpuinfo of x86 and ARM. Physical cores by (physical id, core id); ARM cores are all physical."""
    blocks = [_fields(block) for block in re.split(r"\n\s*\n", text) if ":" in block]
    cpus = [block for block in blocks if "processor" in block and block["processor"].isdecimal()]
    if not cpus:
        return CpuText()
    first = cpus[0]
    flags = (first.get("flags") or first.get("features") or blocks[-1].get("features", "")).split()
    if "cpu implementer" in first:
        names = dict.fromkeys(_arm_name(block) for block in cpus if "cpu implementer" in block)
        model = " + ".join(name for name in names if name)
        maker = arm_cores().get((first["cpu implementer"].lower(), first.get("cpu part", "").lower()))
        return CpuText(
            vendor=vendor_of(maker[1]) if maker else "unknown",
            model=first.get("model name", "") or model,
            physical_cores=len(cpus),
            logical_cores=len(cpus),
            instruction_sets=_words(flags, _ARM_FLAGS),
        )
    cores = {(block.get("physical id"), block.get("core id")) for block in cpus if "core id" in block}
    return CpuText(
        vendor=cast(Vendor, _X86_VENDORS.get(first.get("vendor_id", ""), "unknown")),
        model=" ".join(first.get("model name", first.get("uarch", "")).split()),
        physical_cores=len(cores) or None,
        logical_cores=len(cpus),
        instruction_sets=_words(flags, _X86_FLAGS if "vendor_id" in first else _ARM_FLAGS),
    )


def _fields(block: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in block.splitlines() if ":" in line)
    return {key.strip().lower(): value.strip() for key, _, value in pairs}


def _arm_name(block: dict[str, str]) -> str:
    known = arm_cores().get((block["cpu implementer"].lower(), block.get("cpu part", "").lower()))
    return known[0] if known else ""


def _words(flags: list[str], known: dict[str, str]) -> tuple[str, ...]:
    return tuple(sorted({known[flag] for flag in flags if flag in known}))


def parse_sysctl(text: str) -> CpuText:
    """macOS `sysctl -a` (or any part of it): Apple silicon and Intel."""
    values = _fields(text)
    model = values.get("machdep.cpu.brand_string", "")
    optional = [
        name
        for line in text.splitlines()
        if (found := re.match(r"hw\.optional\.(?:arm\.)?(\w+): 1\b", line)) and (name := found[1])
    ]
    features = f"{values.get('machdep.cpu.features', '')} {values.get('machdep.cpu.leaf7_features', '')}".split()
    levels = int(values.get("hw.nperflevels", "1")) if values.get("hw.nperflevels", "1").isdecimal() else 1
    return CpuText(
        vendor="apple" if model.startswith("Apple") else "intel" if "Intel" in model else "unknown",
        model=model,
        physical_cores=_int(values.get("hw.physicalcpu")),
        performance_cores=_int(values.get("hw.perflevel0.physicalcpu")) if levels > 1 else None,
        logical_cores=_int(values.get("hw.logicalcpu")),
        instruction_sets=tuple(sorted({*_words(optional, _MAC_FLAGS), *_words(features, _MAC_X86)})),
    )


def _int(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() else None


def parse_registry(text: str) -> CpuText:
    """`reg query` of the CentralProcessor key: the brand string and the vendor."""
    values = dict(re.findall(r"^\s+(\S+)\s+REG_\w+\s+(.*?)\s*$", text, re.MULTILINE))
    vendors = {**_X86_VENDORS, "Qualcomm Technologies Inc": "qualcomm"}
    return CpuText(
        vendor=cast(Vendor, vendors.get(values.get("VendorIdentifier", ""), "unknown")),
        model=" ".join(values.get("ProcessorNameString", "").split()),
    )


def _py_cpuinfo(reader: Reader) -> CpuText:
    said = ask_mapping(reader, "cpuinfo")
    told = said.get("flags")
    flags = [str(flag).lower() for flag in told] if isinstance(told, list) else []
    return CpuText(
        vendor=cast(Vendor, _X86_VENDORS.get(str(said.get("vendor_id_raw")), "unknown")),
        model=str(said.get("brand_raw") or ""),
        logical_cores=count_in(said.get("count")),
        instruction_sets=_words(flags, {**_ARM_FLAGS, **_X86_FLAGS}),
    )


def _with_topology(reader: Reader, known: CpuText) -> CpuText:
    """Cores by sysfs where /proc has no core ids, and the performance cores of hybrids."""
    root = "/sys/devices/system/cpu"
    online = parse_cpu_list(reader.text(f"{root}/online") or "")
    siblings = {cpu: reader.text(f"{root}/cpu{cpu}/topology/thread_siblings_list") for cpu in sorted(online)}
    cores = {cpu: min(parse_cpu_list(text), default=cpu) for cpu, text in siblings.items() if text}
    physical = known.physical_cores or len(set(cores.values())) or None
    fast = parse_cpu_list(reader.text("/sys/devices/cpu_core/cpus") or "")
    if fast:
        performance = len({cores.get(cpu, cpu) for cpu in fast})
    else:
        capacities = [int(text) for cpu in sorted(online) if (text := _capacity(reader, root, cpu)).isdecimal()]
        quick = sum(capacity >= _FAST_CAPACITY * max(capacities, default=0) for capacity in capacities)
        performance = quick if 0 < quick < len(capacities) else 0
    return replace(
        known,
        physical_cores=physical,
        performance_cores=performance or None,
        logical_cores=known.logical_cores or len(online) or None,
    )


def _capacity(reader: Reader, root: str, cpu: int) -> str:
    return (reader.text(f"{root}/cpu{cpu}/cpu_capacity") or "").strip()


def parse_cpu_list(text: str) -> set[int]:
    """The kernel's list format, "0-3,8" as {0, 1, 2, 3, 8}; at most 8192 CPUs."""
    cpus: set[int] = set()
    for first, last in re.findall(r"(\d+)(?:-(\d+))?", text[:4096]):
        low, high = int(first), int(last or first)
        if low <= high < 8192:
            cpus.update(range(low, high + 1))
    return cpus


def _chip(reader: Reader, model: str) -> Chip | None:
    """The chip's row by the CPU's name, else by the board's device tree or the phone's properties.

    Of rows that share a name, the one fitted with the installed memory; else, where they are of one vendor and
    generation, the slowest: no more is promised than is sure. None where the name is shared more widely or unknown.
    """
    memory_gib = _installed_gib(reader)
    texts = [model]
    if reader.system == "linux":
        texts.append((reader.text("/proc/device-tree/model") or "").strip("\0 \n"))
        texts.extend((reader.text("/proc/device-tree/compatible") or "").split("\0"))
        texts.append((reader.text("/sys/class/dmi/id/product_name") or "").replace("_", " ").strip())
    if reader.text("/system/build.prop") is not None:
        texts.append((reader.run("getprop", "ro.soc.model") or "").strip())
    for text in filter(None, texts):
        kinds = HOST_KINDS if text == model else ("sbc", "mobile", "igpu")
        named = [chip for chip in chips_named(text, memory_gib=memory_gib) if chip.kind in kinds]
        if len({chip.vendor for chip in named}) == 1 and _one_machine(named):
            return min(named, key=lambda chip: (chip.bandwidth_gbs or 0, chip.kind != "cpu"))
    return None


def _one_machine(chips: list[Chip]) -> bool:
    """Whether rows that share a name are variants of one chip: one generation, one vendor's line, or one speed."""
    return (
        len({chip.generation for chip in chips}) == 1
        or all(chip.kind == "apple" for chip in chips)
        or len({chip.bandwidth_gbs for chip in chips}) == 1
    )


def _installed_gib(reader: Reader) -> float | None:
    """The installed size: the system's total rounded up to what memory is sold in."""
    if reader.system == "darwin":
        found = re.search(r"^hw\.memsize: (\d+)", reader.run("sysctl", "-a") or "", re.MULTILINE)
        total = int(found[1]) / 2**30 if found else 0.0
    else:
        found = re.search(r"MemTotal:\s+(\d+) kB", reader.text("/proc/meminfo") or "")
        total = int(found[1]) / 2**20 if found else 0.0
    sold = (0.5, 1, 2, 3, 4, 6, 8, 12, 16, 18, 24, 32, 36, 48, 64, 96, 128, 192, 256, 512)
    return next((float(size) for size in sold if size >= total * 0.999), None) if total else None


def _fill_from_chip(
    known: CpuText, chip: Chip | None, sources: dict[str, tuple[str, Confidence]]
) -> tuple[CpuText, dict[str, tuple[str, Confidence]]]:
    """What the system does not say (cores of a hybrid on Windows, flags), from the chip's row or family."""
    filled = dict(sources)
    row: Chip | ChipFamily | None = chip or (family_of(known.model) if known.model else None)
    if row is None:
        return known, filled
    told: tuple[str, Confidence] = (cut(f"by the CPU's name: {row.source}"), row.confidence)
    if chip and known.physical_cores is not None:
        physical, performance = core_counts(chip.cores)
        if known.performance_cores is None and physical == known.physical_cores and performance:
            known = replace(known, performance_cores=performance)
            filled["performance_cores"] = told
    if not known.instruction_sets and row.isa:
        arch = "x86_64" if row.vendor in ("intel", "amd") else "arm64"
        known = replace(known, instruction_sets=instruction_sets(row.isa, arch))
        filled["instruction_sets"] = told
    if known.vendor == "unknown" or row.kind in ("sbc", "mobile"):
        known = replace(known, vendor=vendor_of(row.vendor))
        filled["vendor"] = told
    return known, filled
