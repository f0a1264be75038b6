"""The chip of a published measurement, from its columns `chip` and `device`: tolerant, and never an error.

`knowledge.match` asks when a name is unclear; a row of a table cannot be asked. The chip column is tried first, then
what the device says in brackets ("Pi CM5 (Nvidia RTX 3060)"), then the device itself; where several chips share the
name, the one with the row's memory, then the base part. "4x A40" and "A40 48GB * 4" are one chip, four times.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from knowledge.base import AdvisorError
from knowledge.match import chips_named, match_hardware
from knowledge.names import split_count
from knowledge.records import Chip

_LIMIT = 160
_VARIANT = re.compile(r"(?:rtx|gtx|rx)\s?\d+\s?(?:ti super|ti|super|xtx|xt)\b", re.IGNORECASE)
_APPLE = re.compile(r"\b(?:apple )?(m[1-9] ?(?:pro|max|ultra)?)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class SystemFacts:
    """`chip` None: nothing of that name is known. `count` cards or chips work together."""

    chip: Chip | None
    count: int = 1


@lru_cache(maxsize=4096)
def system_facts(device: str, chip: str, memory_gib: float | None = None) -> SystemFacts:
    """What the columns of a measurement name."""
    device, chip = (text[:_LIMIT].replace("\u2011", "-") for text in (device, chip))
    (device, devices), (chip, chips) = split_count(device), split_count(chip)
    count = max(devices, chips)
    for name in _names(device, chip):
        found = _resolve(name, memory_gib)
        if found and (found.bandwidth_gbs or found.fp16_tflops):
            return SystemFacts(found, count)
    return SystemFacts(None, count)


def _names(device: str, chip: str) -> list[str]:
    names = [chip]
    variant = _VARIANT.search(device)
    if variant and chip and chip.lower() in variant[0].lower():
        names.insert(0, variant[0])  # the device says "2080 Ti" where the chip says "RTX 2080"
    names += re.findall(r"\(([^)]*)\)", device)
    names += [device, re.sub(r"\([^)]*\)", " ", device)]
    apple = _APPLE.search(f"{device} {chip}")
    if apple:
        names.append(f"Apple {apple[1]}")
    return [name.strip() for name in names if len(name.strip()) > 1]


def _resolve(name: str, memory_gib: float | None) -> Chip | None:
    try:
        return match_hardware(name, memory_gib=memory_gib).chip
    except AdvisorError as error:
        if error.code != "ambiguous-device":
            return None
    shared = chips_named(name, memory_gib=memory_gib) or chips_named(name)
    return shared[0] if shared else None
