"""A hardware profile from what the user says of a machine (`--ram --vram --chip --device --vendor --os --target`).

Contract: pure. Nothing of the machine that this runs on is read, so a plan for another machine cannot be tinted by it.
Every value has its provenance: `declared` (high), the knowledge base's row (its confidence), or `assumed` (low, and
said in `notes`). Two statements that exclude each other are AdvisorError `contradiction`, naming both.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Literal, cast

from knowledge.base import GIB, AdvisorError, format_bytes
from knowledge.chips import load_vendors, npu_kit, systems_of
from knowledge.match import HardwareMatch, match_hardware
from knowledge.names import split_count
from probes.draft import Draft, cut, weakest
from probes.from_chip import HOST_KINDS, UNIFIED_KINDS, arch_of, cpu_of, gpu_of, npu_of, vendor_of
from probes.profile import Confidence, HardwareProfile, MemoryPool, OperatingSystem
from probes.sizes import has_one_pool, memory_of_card, sizes_of, sizes_sold
from probes.unnamed import (
    CARD_VENDORS,
    MAIN,
    Family,
    Said,
    add_unnamed_gpu,
    add_unnamed_host,
    add_unnamed_npu,
    contradiction,
    label,
    memory_unknown,
)

_BETWEEN_PARTS = re.compile(r"(?:\s\+\s|[,;&])(?![^(]*\))")


@dataclass(frozen=True)
class _Size:
    bytes: int
    source: str
    confidence: Confidence


def declared_profile(
    *,
    ram_bytes: int | None = None,
    vram_bytes: int | None = None,
    chip: str | None = None,
    device: str | None = None,
    vendor: str | None = None,
    os: Family | None = None,
    target: str = "auto",
    power: Literal["mains", "battery"] | None = None,
) -> HardwareProfile:
    """The machine that the arguments describe; None means not said.

    Raises AdvisorError: `unknown-chip`, `ambiguous-device` (exit 3), `contradiction`, `memory-unknown` (exit 3: a GPU
    of unknown memory was asked for).
    """
    draft = Draft()
    parts = _parts(chip, device, ram_bytes, vram_bytes, draft)
    cards = [part.chip for part in parts if part.chip.kind == "gpu"]
    host = _only_host(parts)
    _refuse_foreign_vendor(vendor, parts, vram_bytes, target)
    if vram_bytes is not None:
        _refuse_memory_of_its_own(host, parts, vendor)
    said = Said(ram_bytes, vram_bytes, vendor, _system(os, vendor, parts, draft), target)
    if host:
        _add_host(draft, host, _host_ram(said, host, draft))
    else:
        add_unnamed_host(draft, said, parts)
    for part in parts:
        if part.chip.kind == "gpu":
            said_of_it = memory_of_card(vram_bytes, part.chip, cards)
            if said_of_it != vram_bytes:
                draft.note(
                    f"--vram is taken as that of all {len(cards)} cards, or of another than the {part.chip.name}"
                )
            _add_card(draft, part, said_of_it)
        elif part.chip.kind == "npu" and (npu := npu_of(part.chip)):
            draft.add_npu(npu, part.chip.source, part.confidence)
            if kit := npu_kit(npu.vendor, npu.generation):
                draft.note(f"none of the four frameworks uses the {part.chip.name}; {kit.kit} does: {kit.text}")
        draft.note(*part.notes)
    add_unnamed_gpu(draft, said, parts, host)
    add_unnamed_npu(draft, said, parts)
    if ram_bytes or vram_bytes:
        draft.note("declared memory sizes are binary: 8GB means 8 GiB")
    if power:
        draft.say("os.power", "declared: --power", "high")
    product = next((part.product for part in parts if part.product), None)
    if device or product:
        draft.say("device", "declared: --device" if device else "declared: --chip", "high")
    if parts:
        draft.say("chip", "the name matched to the knowledge base", weakest(part.confidence for part in parts))
    return HardwareProfile(
        origin="declared",
        device=cut(product.name if product else device or ""),
        chip=cut(" + ".join(part.chip.name for part in parts)),
        os=OperatingSystem(family=said.os, power=power),
        cpu=draft.cpu,
        memory=tuple(draft.memory),
        gpus=tuple(draft.gpus),
        npus=tuple(draft.npus),
        notes=tuple(draft.notes),
        provenance=draft.provenance,
    )


def _parts(
    chip: str | None, device: str | None, ram_bytes: int | None, vram_bytes: int | None, draft: Draft
) -> list[HardwareMatch]:
    """What the texts name, the device first: each chip once, cards as often as they are named. A text may join several
    with " + " or a comma."""
    found: dict[str, HardwareMatch] = {}
    counts: Counter[str] = Counter()
    for option, text in (("--device", device), ("--chip", chip)):
        if text is None:
            continue
        named: Counter[str] = Counter()
        for part in [part for part in _BETWEEN_PARTS.split(text) if part.strip()] or [text]:
            name, count = split_count(part)
            try:
                match = _named(name, ram_bytes, vram_bytes)
            except AdvisorError as error:
                if option == "--chip" or chip is None or error.code not in ("unknown-chip", "ambiguous-device"):
                    raise
                draft.note(f"the device {name!r} is no one machine of the knowledge base: --chip describes it")
                continue
            found.setdefault(match.chip.name, match)
            named[match.chip.name] += count
        counts |= named
        twice = [name for name, count in named.items() if count > 1 and found[name].chip.kind != "gpu"]
        draft.note(*(f"{named[name]} of {name} were named: one is planned for" for name in twice))
    return [match for name, match in found.items() for _ in range(counts[name] if match.chip.kind == "gpu" else 1)]


def _named(text: str, ram_bytes: int | None, vram_bytes: int | None) -> HardwareMatch:
    """The match for one name, with the declared memory telling its variants apart (VRAM for a card, else RAM)."""
    ram, vram = (size / GIB if size else None for size in (ram_bytes, vram_bytes))
    try:
        match = match_hardware(text)
    except AdvisorError as error:
        if error.code != "ambiguous-device" or (ram is None and vram is None):
            raise
        match = match_hardware(text, memory_gib=ram if vram is None else vram)
        if match.chip.kind == "gpu" and vram is None:
            raise
    size = vram if match.chip.kind == "gpu" else ram
    return match_hardware(text, memory_gib=size) if size is not None and match.memory_gib is None else match


def _only_host(parts: list[HardwareMatch]) -> HardwareMatch | None:
    hosts = [part for part in parts if part.chip.kind in HOST_KINDS]
    if len(hosts) > 1:
        raise contradiction(f"{label(hosts[0])} and {label(hosts[1])} are two machines", "describe one of them")
    return hosts[0] if hosts else None


def _refuse_foreign_vendor(vendor: str | None, parts: list[HardwareMatch], vram_bytes: int | None, target: str) -> None:
    """A vendor that none of the named parts has contradicts them, unless it means a graphics card beside the chip."""
    makers = {vendor_of(part.chip.vendor) for part in parts}
    if vendor is None or not parts or vendor in makers:
        return
    if vendor == "arm" and any(arch_of(part.chip) == "arm64" for part in parts):
        return
    if vendor == "other" and not makers & set(load_vendors()) - {"other"}:
        return
    card_named = any(part.chip.kind == "gpu" for part in parts)
    card_meant = vendor in CARD_VENDORS and (vram_bytes is not None or target == "gpu")
    if card_named or not card_meant or not any(part.chip.kind in ("cpu", "igpu", "sbc") for part in parts):
        names = ", ".join(part.chip.name for part in parts)
        raise contradiction(f"--vendor {vendor} and {names} exclude each other", "drop one of the two")


def _refuse_memory_of_its_own(host: HardwareMatch | None, parts: list[HardwareMatch], said_vendor: str | None) -> None:
    """`--vram` of a board or phone; of Macs and Jetsons people speak so, and mean the memory that they share."""
    if host is None or host.chip.kind not in ("sbc", "mobile") or host.chip.vendor == "nvidia":
        return
    if said_vendor not in CARD_VENDORS and not any(part.chip.kind == "gpu" for part in parts):
        message = f"--vram and {label(host)} exclude each other: its graphics have no memory of their own"
        raise contradiction(message, "give its memory with --ram, or name the card in it with --chip")


def _system(os: Family | None, vendor: str | None, parts: list[HardwareMatch], draft: Draft) -> Family | None:
    """The operating system: declared, else the product's or the chip's only usual one, else None."""
    if os is not None:
        for part in parts:
            systems = systems_of(part.chip.vendor, part.chip.kind).systems
            if os not in systems and not (part.product and part.product.os == os):
                raise contradiction(f"--os {os} does not run on {label(part)}", f"it runs {' or '.join(systems)}")
        if vendor and not parts and os not in (systems := systems_of(vendor, "any").systems):
            message = f"--os {os} and --vendor {vendor} exclude each other"
            raise contradiction(message, f"hardware of {vendor} runs {' or '.join(systems)}")
        draft.say("os.family", "declared: --os", "high")
        return os
    usual: list[tuple[str | None, str]] = []
    for part in parts:
        product_os = part.product.os if part.product else None
        usual.append((product_os or systems_of(part.chip.vendor, part.chip.kind).default_os, label(part)))
    if vendor and not parts:
        usual.append((systems_of(vendor, "any").default_os, f"--vendor {vendor}"))
    for family, name in usual:
        if family:
            draft.say("os.family", f"assumed: the usual system of {name}", "medium")
            return cast(Family, family)
    return None


def _host_ram(said: Said, host: HardwareMatch, draft: Draft) -> _Size:
    """The size of main memory: declared, in the name, the only fitted size, or the smallest as an assumption."""
    fits = sizes_of(host)
    if said.ram_bytes is not None:
        return _declared_size("--ram", said.ram_bytes, host, fits, draft)
    if host.memory_gib is not None:
        return _Size(round(host.memory_gib * GIB), "declared: the size in the name", "high")
    if said.vram_bytes is not None and has_one_pool(host.chip):
        if enough := [size for size in fits if size * GIB > said.vram_bytes and host.chip.kind == "igpu"]:
            draft.note(f"RAM was not given: {min(enough):g} GB is assumed, of which --vram is the GPU's; give --ram")
            return _Size(round(min(enough) * GIB), "assumed: the smallest fit above --vram", "low")
        draft.note(f"{label(host)} has no memory of its own for graphics: --vram is taken as its unified memory")
        return _Size(said.vram_bytes, "declared: --vram of a machine with unified memory", "medium")
    if len(fits) == 1:
        return _Size(round(fits[0] * GIB), host.product.source if host.product else host.chip.source, host.confidence)
    smallest = min(fits) if fits else systems_of(host.chip.vendor, host.chip.kind).assumed_ram_gib or 8
    known = f"{label(host)} is sold with {sizes_sold(fits)}" if fits else "the smallest common fit"
    draft.note(f"RAM was not given: {smallest:g} GB is assumed ({known}); give --ram")
    return _Size(round(smallest * GIB), "assumed: the smallest common fit", "low")


def _declared_size(option: str, size_bytes: int, match: HardwareMatch, fits: tuple[float, ...], draft: Draft) -> _Size:
    """A declared size, refused where the name says another, and noted where the part is not sold with it."""
    shown = format_bytes(size_bytes)
    if match.memory_gib is not None and round(match.memory_gib * GIB) != size_bytes:
        message = f"{option} {shown} and the {match.memory_gib:g} GB in the name exclude each other"
        raise contradiction(message, "give the size once")
    if fits and size_bytes / GIB not in fits:
        draft.note(f"{label(match)} is sold with {sizes_sold(fits)}: {shown} is planned as declared")
    return _Size(size_bytes, f"declared: {option}", "high")


def _add_host(draft: Draft, host: HardwareMatch, ram: _Size) -> None:
    chip = host.chip
    draft.set_cpu(cpu_of(chip), chip.source, host.confidence)
    if chip.usual_cores:
        draft.say("cpu.usual_cores", f"assumed: {chip.source}", "low")
        draft.note(f"the number of cores is not known: the {chip.usual_cores} that are usual are assumed")
    kind: Literal["unified", "ram"] = "unified" if chip.kind in UNIFIED_KINDS else "ram"
    pool = MemoryPool(id=MAIN, kind=kind, total_bytes=ram.bytes, bandwidth_gbs=chip.bandwidth_gbs)
    path = draft.add_pool(pool, ram.source, ram.confidence)
    slow, fast = chip.bandwidth_min_gbs, chip.bandwidth_max_gbs
    if chip.bandwidth_gbs is not None:
        draft.say(f"{path}.bandwidth_gbs", chip.source, host.confidence)
    if slow and fast and fast > slow:
        fitted = f"{slow:g} to {fast:g} GB/s by the board"
        draft.note(f"memory bandwidth of {chip.name}: {fitted}; {chip.bandwidth_gbs:g} GB/s is used")
    if gpu := gpu_of(chip, MAIN):
        draft.add_gpu(gpu, chip.source, host.confidence)
    if npu := npu_of(chip):
        draft.add_npu(npu, chip.source, host.confidence)


def _add_card(draft: Draft, part: HardwareMatch, vram_bytes: int | None) -> None:
    chip, fits = part.chip, part.chip.memory_gib
    if vram_bytes is not None:
        size = _declared_size("--vram", vram_bytes, part, fits, draft)
    elif part.memory_gib is not None:
        size = _Size(round(part.memory_gib * GIB), "declared: the size in the name", "high")
    elif len(fits) == 1:
        size = _Size(round(fits[0] * GIB), chip.source, part.confidence)
    elif fits:
        draft.note(f"{chip.name} is sold with {sizes_sold(fits)}: {min(fits):g} GB is assumed; give --vram")
        size = _Size(round(min(fits) * GIB), "assumed: the smallest size that it is sold with", "low")
    else:
        raise memory_unknown(f"How much memory the {chip.name} has is not known.")
    name = f"vram{sum(pool.kind == 'vram' for pool in draft.memory)}"
    pool = MemoryPool(id=name, kind="vram", total_bytes=size.bytes, bandwidth_gbs=chip.bandwidth_gbs)
    path = draft.add_pool(pool, size.source, size.confidence)
    if chip.bandwidth_gbs is not None:
        draft.say(f"{path}.bandwidth_gbs", chip.source, part.confidence)
    if gpu := gpu_of(chip, name):
        draft.add_gpu(gpu, chip.source, part.confidence)
