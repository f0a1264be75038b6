"""What a described machine has besides the parts that were named: its host, its graphics, its NPU, as far as vendor,
system and sizes tell. Pure; every value says that it is assumed, or from which statement it follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from knowledge.base import EXIT_NEEDS_INPUT, GIB, AdvisorError
from knowledge.chips import load_vendors
from knowledge.match import HardwareMatch
from knowledge.records import VendorLine
from knowledge.tables import read_document
from probes.draft import Draft
from probes.from_chip import instruction_sets, vendor_of
from probes.profile import CPU, GPU, NPU, Confidence, MemoryPool
from probes.sizes import has_one_pool

Family = Literal["linux", "windows", "macos", "android", "ios"]

MAIN, _CARD = "ram", "vram0"
CARD_VENDORS = ("nvidia", "amd", "intel")


@dataclass(frozen=True)
class Said:
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


def add_unnamed_host(draft: Draft, said: Said, parts: list[HardwareMatch]) -> None:
    """A machine whose CPU was not named: what the vendor or the system implies of it, else unknown."""
    line = said.line
    unified = bool(line and line.unified_memory)
    card_named = _is_card_named(parts)
    has_card = card_named or (not unified and (said.vram_bytes is not None or said.maker == "nvidia"))
    if line and not parts and not has_card and line.arch != "unknown":
        cpu = CPU(vendor=vendor_of(line.vendor), arch=line.arch)  # type: ignore[arg-type]  # checked by the data's tests
        draft.set_cpu(cpu, f"{said.why}; {line.source}", said.how_sure)
    elif said.os == "android":
        draft.set_cpu(CPU(arch="arm64"), "assumed: the usual processor of an Android phone", "low")
    elif card_named and (said.ram_bytes or 0) <= _usual_host()["most_gib"] * GIB:
        _add_usual_host(draft, said.ram_bytes)
        return
    elif has_card:
        draft.set_cpu(CPU(arch="x86_64"), "assumed: the usual host of a graphics card", "low")
        draft.note("the CPU was not named: an x86-64 host is assumed; name it with --chip 'CPU + GPU'")
    if said.ram_bytes is not None:
        shared = unified or (said.target == "gpu" and not has_card)
        pool = MemoryPool(id=MAIN, kind="unified" if shared else "ram", total_bytes=said.ram_bytes)
        draft.add_pool(pool, "declared: --ram", "high")
    elif unified and said.vram_bytes is not None:
        pool = MemoryPool(id=MAIN, kind="unified", total_bytes=said.vram_bytes)
        draft.add_pool(pool, "declared: --vram of a machine with unified memory", "medium")


@cache
def _usual_host() -> dict[str, Any]:
    return read_document("usual_host.toml")


def _add_usual_host(draft: Draft, ram_bytes: int | None) -> None:
    """The processor beside a card that was named: the usual one, with the range of what its memory may reach."""
    host = _usual_host()
    usual, (slow, fast) = host["bandwidth_gbs"], host["bandwidth_range_gbs"]
    sets = instruction_sets(tuple(host["isa"].split("|")), "x86_64")
    cpu = CPU(arch="x86_64", usual_cores=host["usual_cores"], instruction_sets=sets)
    draft.set_cpu(cpu, f"assumed: the usual host of a graphics card; {host['source']}", "low")
    draft.note(
        f"the CPU was not named: an x86-64 host with {host['usual_cores']} cores and {usual:g} GB/s of memory "
        f"bandwidth ({slow:g} to {fast:g}) is assumed; name it with --chip 'CPU + GPU'"
    )
    if ram_bytes is not None:
        pool = MemoryPool(
            id=MAIN, kind="ram", total_bytes=ram_bytes, bandwidth_gbs=usual, bandwidth_range_gbs=(slow, fast)
        )
        path = draft.add_pool(pool, "declared: --ram", "high")
        draft.say(f"{path}.bandwidth_gbs", f"assumed: {host['source']}", "low")


def add_unnamed_gpu(draft: Draft, said: Said, parts: list[HardwareMatch], host: HardwareMatch | None) -> None:
    """A GPU that only `--vram`, `--vendor` or `--target gpu` tells of."""
    if _is_card_named(parts):
        return
    if host and has_one_pool(host.chip) and (said.vendor not in CARD_VENDORS or said.maker == host.chip.vendor):
        if said.vram_bytes is not None:
            _lend(draft, said.vram_bytes, label(host))
        return
    line = said.line
    unified = bool(line and line.unified_memory)
    foreign = said.maker in CARD_VENDORS and (host is None or said.maker != vendor_of(host.chip.vendor))
    if said.vram_bytes is not None and (host or not unified):
        known = line if host is None or said.vendor in CARD_VENDORS else None
        draft.add_pool(MemoryPool(id=_CARD, kind="vram", total_bytes=said.vram_bytes), "declared: --vram", "high")
        vendor = vendor_of(known.vendor) if known else "unknown"
        card = GPU(vendor=vendor, name=known.gpu if known else "", kind="discrete", pool=_CARD)
        draft.add_gpu(card, f"declared: --vram{f', --vendor {said.vendor}' if known else ''}", "high")
        if not known:
            draft.note("whose graphics card has that memory was not said: name it with --chip, or its --vendor")
    elif foreign and said.maker == "nvidia":
        if said.target == "gpu":
            raise memory_unknown("How much memory the NVIDIA GPU has was not said.")
        draft.note("the memory of the NVIDIA GPU was not said, so it is left out: give --vram")
    elif foreign and host:
        raise memory_unknown(f"How much memory the graphics card of {said.maker} has was not said.")
    elif not host and draft.memory and (unified or said.target == "gpu"):
        vendor = vendor_of(said.maker) if said.maker else "unknown"
        gpu = GPU(vendor=vendor, name=line.gpu if line else "", kind="integrated", pool=MAIN)
        draft.add_gpu(gpu, said.why if said.maker else "declared: --target gpu", said.how_sure)


def add_unnamed_npu(draft: Draft, said: Said, parts: list[HardwareMatch]) -> None:
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


def _is_card_named(parts: list[HardwareMatch]) -> bool:
    return any(part.chip.kind == "gpu" for part in parts)


def _lend(draft: Draft, vram_bytes: int, name: str) -> None:
    """--vram of a machine with one memory is what its GPU may take of it."""
    if vram_bytes > draft.memory[0].total_bytes:
        raise contradiction(f"--vram and the memory of {name}, which is less, exclude each other", "give less")
    if vram_bytes < draft.memory[0].total_bytes:
        draft.lend_gpu(vram_bytes, "declared: --vram")
        draft.note(f"{name} has one memory for CPU and GPU: --vram is what the GPU may take of it")


def label(match: HardwareMatch) -> str:
    return match.product.name if match.product else match.chip.name


def contradiction(message: str, hint: str) -> AdvisorError:
    return AdvisorError("contradiction", f"{message}.", hint)


def memory_unknown(message: str) -> AdvisorError:
    return AdvisorError("memory-unknown", message, "give it with --vram", EXIT_NEEDS_INPUT)
