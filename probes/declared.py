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

from knowledge.base import EXIT_NEEDS_INPUT, GIB, AdvisorError, format_bytes
from knowledge.chips import load_vendors, npu_kit, systems_of
from knowledge.match import HardwareMatch, match_hardware
from knowledge.names import split_count
from knowledge.records import VendorLine
from probes.draft import Draft, cut, weakest
from probes.from_chip import HOST_KINDS, UNIFIED_KINDS, arch_of, cpu_of, gpu_of, npu_of, vendor_of
from probes.profile import CPU, GPU, NPU, Confidence, HardwareProfile, MemoryPool, OperatingSystem
from probes.sizes import has_one_pool, memory_of_card, sizes_of, sizes_sold

Family = Literal["linux", "windows", "macos", "android", "ios"]

_MAIN, _CARD = "ram", "vram0"
_CARD_VENDORS = ("nvidia", "amd", "intel")
_BETWEEN_PARTS = re.compile(r"(?:\s\+\s|[,;&])(?![^(]*\))")


@dataclass(frozen=True)
class _Said:
    """The user's statements, None where nothing was said; `os` may be filled in from what the parts usually run."""

    ram_bytes: int | None
    vram_bytes: int | None
    vendor: str | None
    os: Family | None
    target: str

    @property
    def maker(self) -> str | None:
        """The vendor, or Apple where the operating system leaves no other."""
        return self.vendor or ("apple" if self.os in ("macos", "ios") else None)

    @property
    def line(self) -> VendorLine | None:
        return load_vendors().get(self.maker or "")

    @property
    def why(self) -> str:
        """The source of what follows from `maker`."""
        return f"declared: --vendor {self.vendor}" if self.vendor else f"assumed: the usual hardware of {self.os}"

    @property
    def how_sure(self) -> Confidence:
        return "medium" if self.vendor else "low"


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
    said = _Said(ram_bytes, vram_bytes, vendor, _system(os, vendor, parts, draft), target)
    if host:
        _add_host(draft, host, _host_ram(said, host, draft))
    else:
        _add_unnamed_host(draft, said, parts)
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
    _add_unnamed_gpu(draft, said, parts, host)
    _add_unnamed_npu(draft, said, parts)
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
        raise _contradiction(f"{_label(hosts[0])} and {_label(hosts[1])} are two machines", "describe one of them")
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
    card_meant = vendor in _CARD_VENDORS and (vram_bytes is not None or target == "gpu")
    if card_named or not card_meant or not any(part.chip.kind in ("cpu", "igpu", "sbc") for part in parts):
        names = ", ".join(part.chip.name for part in parts)
        raise _contradiction(f"--vendor {vendor} and {names} exclude each other", "drop one of the two")


def _refuse_memory_of_its_own(host: HardwareMatch | None, parts: list[HardwareMatch], said_vendor: str | None) -> None:
    """`--vram` of a board or phone; of Macs and Jetsons people speak so, and mean the memory that they share."""
    if host is None or host.chip.kind not in ("sbc", "mobile") or host.chip.vendor == "nvidia":
        return
    if said_vendor not in _CARD_VENDORS and not any(part.chip.kind == "gpu" for part in parts):
        message = f"--vram and {_label(host)} exclude each other: its graphics have no memory of their own"
        raise _contradiction(message, "give its memory with --ram, or name the card in it with --chip")


def _system(os: Family | None, vendor: str | None, parts: list[HardwareMatch], draft: Draft) -> Family | None:
    """The operating system: declared, else the product's or the chip's only usual one, else None."""
    if os is not None:
        for part in parts:
            systems = systems_of(part.chip.vendor, part.chip.kind).systems
            if os not in systems and not (part.product and part.product.os == os):
                raise _contradiction(f"--os {os} does not run on {_label(part)}", f"it runs {' or '.join(systems)}")
        if vendor and not parts and os not in (systems := systems_of(vendor, "any").systems):
            message = f"--os {os} and --vendor {vendor} exclude each other"
            raise _contradiction(message, f"hardware of {vendor} runs {' or '.join(systems)}")
        draft.say("os.family", "declared: --os", "high")
        return os
    usual: list[tuple[str | None, str]] = []
    for part in parts:
        product_os = part.product.os if part.product else None
        usual.append((product_os or systems_of(part.chip.vendor, part.chip.kind).default_os, _label(part)))
    if vendor and not parts:
        usual.append((systems_of(vendor, "any").default_os, f"--vendor {vendor}"))
    for family, name in usual:
        if family:
            draft.say("os.family", f"assumed: the usual system of {name}", "medium")
            return cast(Family, family)
    return None


def _host_ram(said: _Said, host: HardwareMatch, draft: Draft) -> _Size:
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
        draft.note(f"{_label(host)} has no memory of its own for graphics: --vram is taken as its unified memory")
        return _Size(said.vram_bytes, "declared: --vram of a machine with unified memory", "medium")
    if len(fits) == 1:
        return _Size(round(fits[0] * GIB), host.product.source if host.product else host.chip.source, host.confidence)
    smallest = min(fits) if fits else systems_of(host.chip.vendor, host.chip.kind).assumed_ram_gib or 8
    known = f"{_label(host)} is sold with {sizes_sold(fits)}" if fits else "the smallest common fit"
    draft.note(f"RAM was not given: {smallest:g} GB is assumed ({known}); give --ram")
    return _Size(round(smallest * GIB), "assumed: the smallest common fit", "low")


def _lend(draft: Draft, vram_bytes: int, label: str) -> None:
    """--vram of a machine with one memory is what its GPU may take of it."""
    if vram_bytes > draft.memory[0].total_bytes:
        raise _contradiction(f"--vram and the memory of {label}, which is less, exclude each other", "give less")
    if vram_bytes < draft.memory[0].total_bytes:
        draft.lend_gpu(vram_bytes, "declared: --vram")
        draft.note(f"{label} has one memory for CPU and GPU: --vram is what the GPU may take of it")


def _declared_size(option: str, size_bytes: int, match: HardwareMatch, fits: tuple[float, ...], draft: Draft) -> _Size:
    """A declared size, refused where the name says another, and noted where the part is not sold with it."""
    shown = format_bytes(size_bytes)
    if match.memory_gib is not None and round(match.memory_gib * GIB) != size_bytes:
        message = f"{option} {shown} and the {match.memory_gib:g} GB in the name exclude each other"
        raise _contradiction(message, "give the size once")
    if fits and size_bytes / GIB not in fits:
        draft.note(f"{_label(match)} is sold with {sizes_sold(fits)}: {shown} is planned as declared")
    return _Size(size_bytes, f"declared: {option}", "high")


def _label(match: HardwareMatch) -> str:
    return match.product.name if match.product else match.chip.name


def _add_host(draft: Draft, host: HardwareMatch, ram: _Size) -> None:
    chip = host.chip
    draft.set_cpu(cpu_of(chip), chip.source, host.confidence)
    if chip.usual_cores:
        draft.say("cpu.usual_cores", f"assumed: {chip.source}", "low")
        draft.note(f"the number of cores is not known: the {chip.usual_cores} that are usual are assumed")
    kind: Literal["unified", "ram"] = "unified" if chip.kind in UNIFIED_KINDS else "ram"
    pool = MemoryPool(id=_MAIN, kind=kind, total_bytes=ram.bytes, bandwidth_gbs=chip.bandwidth_gbs)
    path = draft.add_pool(pool, ram.source, ram.confidence)
    slow, fast = chip.bandwidth_min_gbs, chip.bandwidth_max_gbs
    if chip.bandwidth_gbs is not None:
        draft.say(f"{path}.bandwidth_gbs", chip.source, host.confidence)
    if slow and fast and fast > slow:
        fitted = f"{slow:g} to {fast:g} GB/s by the board"
        draft.note(f"memory bandwidth of {chip.name}: {fitted}; {chip.bandwidth_gbs:g} GB/s is used")
    if gpu := gpu_of(chip, _MAIN):
        draft.add_gpu(gpu, chip.source, host.confidence)
    if npu := npu_of(chip):
        draft.add_npu(npu, chip.source, host.confidence)


def _add_unnamed_host(draft: Draft, said: _Said, parts: list[HardwareMatch]) -> None:
    """A machine whose CPU was not named: what the vendor or the system implies of it, else unknown."""
    line = said.line
    unified = bool(line and line.unified_memory)
    has_card = any(part.chip.kind == "gpu" for part in parts) or (
        not unified and (said.vram_bytes is not None or said.maker == "nvidia")
    )
    if line and not parts and not has_card and line.arch != "unknown":
        cpu = CPU(vendor=vendor_of(line.vendor), arch=line.arch)  # type: ignore[arg-type]  # checked by the data's tests
        draft.set_cpu(cpu, f"{said.why}; {line.source}", said.how_sure)
    elif said.os == "android":
        draft.set_cpu(CPU(arch="arm64"), "assumed: the usual processor of an Android phone", "low")
    elif has_card:
        draft.set_cpu(CPU(arch="x86_64"), "assumed: the usual host of a graphics card", "low")
        draft.note("the CPU was not named: an x86-64 host is assumed; name it with --chip 'CPU + GPU'")
    if said.ram_bytes is not None:
        shared = unified or (said.target == "gpu" and not has_card)
        pool = MemoryPool(id=_MAIN, kind="unified" if shared else "ram", total_bytes=said.ram_bytes)
        draft.add_pool(pool, "declared: --ram", "high")
    elif unified and said.vram_bytes is not None:
        pool = MemoryPool(id=_MAIN, kind="unified", total_bytes=said.vram_bytes)
        draft.add_pool(pool, "declared: --vram of a machine with unified memory", "medium")


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
        raise _memory_unknown(f"How much memory the {chip.name} has is not known.")
    name = f"vram{sum(pool.kind == 'vram' for pool in draft.memory)}"
    pool = MemoryPool(id=name, kind="vram", total_bytes=size.bytes, bandwidth_gbs=chip.bandwidth_gbs)
    path = draft.add_pool(pool, size.source, size.confidence)
    if chip.bandwidth_gbs is not None:
        draft.say(f"{path}.bandwidth_gbs", chip.source, part.confidence)
    if gpu := gpu_of(chip, name):
        draft.add_gpu(gpu, chip.source, part.confidence)


def _add_unnamed_gpu(draft: Draft, said: _Said, parts: list[HardwareMatch], host: HardwareMatch | None) -> None:
    """A GPU that only `--vram`, `--vendor` or `--target gpu` tells of."""
    if any(part.chip.kind == "gpu" for part in parts):
        return
    if host and has_one_pool(host.chip) and (said.vendor not in _CARD_VENDORS or said.maker == host.chip.vendor):
        if said.vram_bytes is not None:
            _lend(draft, said.vram_bytes, _label(host))
        return
    line = said.line
    unified = bool(line and line.unified_memory)
    foreign = said.maker in _CARD_VENDORS and (host is None or said.maker != vendor_of(host.chip.vendor))
    if said.vram_bytes is not None and (host or not unified):
        known = line if host is None or said.vendor in _CARD_VENDORS else None
        draft.add_pool(MemoryPool(id=_CARD, kind="vram", total_bytes=said.vram_bytes), "declared: --vram", "high")
        vendor = vendor_of(known.vendor) if known else "unknown"
        card = GPU(vendor=vendor, name=known.gpu if known else "", kind="discrete", pool=_CARD)
        draft.add_gpu(card, f"declared: --vram{f', --vendor {said.vendor}' if known else ''}", "high")
        if not known:
            draft.note("whose graphics card has that memory was not said: name it with --chip, or its --vendor")
    elif foreign and said.maker == "nvidia":
        if said.target == "gpu":
            raise _memory_unknown("How much memory the NVIDIA GPU has was not said.")
        draft.note("the memory of the NVIDIA GPU was not said, so it is left out: give --vram")
    elif foreign and host:
        raise _memory_unknown(f"How much memory the graphics card of {said.maker} has was not said.")
    elif not host and draft.memory and (unified or said.target == "gpu"):
        vendor = vendor_of(said.maker) if said.maker else "unknown"
        gpu = GPU(vendor=vendor, name=line.gpu if line else "", kind="integrated", pool=_MAIN)
        draft.add_gpu(gpu, said.why if said.maker else "declared: --target gpu", said.how_sure)


def _add_unnamed_npu(draft: Draft, said: _Said, parts: list[HardwareMatch]) -> None:
    """The NPU that `--target npu` asks for when no chip was named; Apple's is in every machine."""
    line = said.line
    if parts or (said.target != "npu" and said.maker != "apple"):
        return
    if line is None:
        draft.add_npu(NPU(), "declared: --target npu; whose it is was not said", "low")
    elif line.npu:
        npu = NPU(vendor=vendor_of(line.vendor), name=line.npu, generation=line.npu_generation)
        draft.add_npu(npu, f"{said.why}; {line.source}", said.how_sure)
    else:
        draft.note(f"{line.label} makes no NPU of its own: its GPUs do that work")


def _contradiction(message: str, hint: str) -> AdvisorError:
    return AdvisorError("contradiction", f"{message}.", hint)


def _memory_unknown(message: str) -> AdvisorError:
    return AdvisorError("memory-unknown", message, "give it with --vram", EXIT_NEEDS_INPUT)
