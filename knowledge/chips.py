"""The chips, products, chip families and vendors that the knowledge base knows, read from CSV on first use.

Contract: the loaders return the rows of `data/{chips,devices,chip_families,vendors,systems}.csv` in file order, cached;
each row carries its source. No row is interpreted here beyond splitting lists, so that a wrong figure is mended in the
data.
"""

from __future__ import annotations

import re
from functools import cache
from typing import cast

from knowledge.records import (
    Chip,
    ChipFamily,
    Confidence,
    NpuKit,
    PciDevice,
    Product,
    SystemsOfChip,
    Unserved,
    VendorLine,
)
from knowledge.tables import read_rows

_NPU_WORDS = re.compile(r"NPU|XDNA|Hexagon|RKNPU|edge TPU|APU|ANE|Hailo|Edge TPU|Metis|RK182x")
_APPLE = re.compile(r"\b[ma]\d+")


def _list(text: str) -> tuple[str, ...]:
    return tuple(text.split("|")) if text else ()


def _sizes(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split("|")) if text else ()


def _number(text: str) -> float | None:
    return float(text) if text else None


@cache
def load_chips() -> tuple[Chip, ...]:
    """Every row of data/chips.csv."""
    return tuple(
        Chip(
            name=row["chip"],
            vendor=row["vendor"],
            kind=row["kind"],  # type: ignore[arg-type]  # checked by the data's own tests
            bandwidth_gbs=_number(row["bandwidth_gbs"]),
            fp16_tflops=_number(row["fp16_tflops"]),
            int8_tops=_number(row["int8_tops"]),
            npu_tops=_number(row["npu_tops"]),
            memory_gib=_sizes(row["memory_gib"]),
            cores=row["cores"],
            isa=_list(row["isa"]),
            generation=row["generation"],
            unified_memory=row["unified_memory"] == "yes",
            tdp_w=_number(row["tdp_w"]),
            confidence=cast(Confidence, row["confidence"]),
            source=row["source"],
            year=int(row["year"]) if row["year"] else None,
            aliases=_list(row["aliases"]),
            note=row["note"],
            fp16_acc16_tflops=_number(row["fp16_acc16_tflops"]),
            fp32_tflops=_number(row["fp32_tflops"]),
            bandwidth_min_gbs=_number(row["bandwidth_min_gbs"]),
            bandwidth_max_gbs=_number(row["bandwidth_max_gbs"]),
            memory_type=row["memory_type"],
        )
        for row in read_rows("chips.csv")
    )


@cache
def load_products() -> tuple[Product, ...]:
    """Every row of data/devices.csv: boards, laptops, phones and servers."""
    return tuple(
        Product(
            name=row["device"],
            aliases=_list(row["aliases"]),
            chips=_list(row["chips"]),
            memory_gib=_sizes(row["memory_gib"]),
            os=row["os"] or None,  # type: ignore[arg-type]  # checked by the data's own tests
            confidence=cast(Confidence, row["confidence"]),
            source=row["source"],
        )
        for row in read_rows("devices.csv")
    )


@cache
def load_unserved() -> tuple[Unserved, ...]:
    """Every row of data/unserved.csv: names that are understood and that nothing can be planned for."""
    return tuple(
        Unserved(re.compile(row["pattern"]), row["outcome"] == "ask", row["text"], row["hint"], row["source"])
        for row in read_rows("unserved.csv")
    )


@cache
def load_npu_kits() -> tuple[NpuKit, ...]:
    """Every row of data/npu_kits.csv."""
    return tuple(
        NpuKit(
            row["generation"], row["vendor"], row["kit"], row["language_models"] == "yes", row["text"], row["source"]
        )
        for row in read_rows("npu_kits.csv")
    )


def npu_kit(vendor: str, generation: str) -> NpuKit | None:
    """What serves an NPU that the frameworks do not, or None where that is not known."""
    fits = [row for row in load_npu_kits() if generation.startswith(row.generation)]
    return next((row for row in fits if row.vendor == vendor), next(iter(fits), None))


@cache
def load_families() -> tuple[ChipFamily, ...]:
    """Every row of data/chip_families.csv, in order: the first pattern that fits a name decides."""
    return tuple(
        ChipFamily(
            pattern=row["pattern"],
            family=row["family"],
            vendor=row["vendor"],
            kind=row["kind"],  # type: ignore[arg-type]  # checked by the data's own tests
            generation=row["generation"],
            isa=_list(row["isa"]),
            bandwidth_gbs=_number(row["bandwidth_gbs"]),
            fp16_tflops=_number(row["fp16_tflops"]),
            int8_tops=_number(row["int8_tops"]),
            usual_cores=int(row["usual_cores"]) if row["usual_cores"] else None,
            confidence=cast(Confidence, row["confidence"]),
            source=row["source"],
        )
        for row in read_rows("chip_families.csv")
    )


@cache
def load_vendors() -> dict[str, VendorLine]:
    """Every row of data/vendors.csv by vendor."""
    return {
        row["vendor"]: VendorLine(
            vendor=row["vendor"],
            label=row["label"],
            arch=row["arch"],
            unified_memory=row["unified_memory"] == "yes",
            gpu=row["gpu"],
            npu=row["npu"],
            npu_generation=row["npu_generation"],
            source=row["source"],
        )
        for row in read_rows("vendors.csv")
    }


def systems_of(vendor: str, kind: str) -> SystemsOfChip:
    """The row of data/systems.csv for a chip of `vendor` and `kind`; kind `any` where only the vendor is known."""
    rows = _systems()
    return rows.get((vendor, kind)) or rows.get(("any", kind)) or rows[("any", "any")]


@cache
def _systems() -> dict[tuple[str, str], SystemsOfChip]:
    return {
        (row["vendor"], row["kind"]): SystemsOfChip(
            vendor=row["vendor"],
            kind=row["kind"],
            systems=_list(row["systems"]),
            default_os=row["default_os"] or None,
            assumed_ram_gib=_number(row["assumed_ram_gib"]),
            source=row["source"],
        )
        for row in read_rows("systems.csv")
    }


@cache
def arm_cores() -> dict[tuple[str, str], tuple[str, str]]:
    """(implementer, part) as in /proc/cpuinfo -> (core name, vendor), from data/arm_parts.csv."""
    return {(row["implementer"], row["part"]): (row["core"], row["vendor"]) for row in read_rows("arm_parts.csv")}


@cache
def pci_devices() -> dict[str, PciDevice]:
    """ "vendor:device" in lower-case hexadecimal -> what it is, from data/pci_ids.csv."""
    return {
        row["id"]: PciDevice(row["id"], row["engine"], row["name"], row["kind"], row["generation"], row["source"])
        for row in read_rows("pci_ids.csv")
    }


def gpu_generation(chip: Chip) -> str:
    """The GPU part of `generation` ("Xe2" of "Xe2; NPU 4000"); empty for a bare CPU or NPU."""
    if chip.kind in ("cpu", "npu"):
        return ""
    parts = [part for part in chip.generation.split("; ") if not _NPU_WORDS.match(part)]
    return parts[0] if parts and parts[0] != "no GPU" else ""


def apple_generation(name: str) -> str:
    """The part of an Apple chip's name that tells its GPU's generation: `m3` of "Apple M3 Max"; empty if none."""
    found = _APPLE.search(name.lower())
    return found[0] if found else ""


def npu_generation(chip: Chip | ChipFamily) -> str:
    """The NPU part of `generation` ("NPU 4000", "XDNA2", "Hexagon v75"); `ANE` for Apple; empty where there is none."""
    if chip.vendor == "apple":
        return "ANE"
    return next((part for part in chip.generation.split("; ") if _NPU_WORDS.match(part)), "")


def usual_npu_tops(generation: str) -> float | None:
    """10^12 operations a second in 8 bits of NPUs of this generation (`npu_generation`), for chips whose maker does not
    publish any; None where nothing is known."""
    return _npu_rates().get(generation)


@cache
def _npu_rates() -> dict[str, float]:
    return {row["generation"]: float(row["tops"]) for row in read_rows("npu_rates.csv")}
