"""This machine as a HardwareProfile: every probe at once, each at most 2 s, none of them raising.

What drivers report is kept; what they don't (bandwidth, throughput, generation) comes from the knowledge base's row for
the chip, with its source. What could not be found out stays empty and is said in the notes.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from knowledge.base import GIB, advisor_home
from knowledge.match import chip_by_family, chips_named, family_of
from knowledge.records import Chip
from probes.cpu import CpuFinding, read_cpu
from probes.draft import Draft, cut
from probes.from_chip import gpu_of
from probes.gpu import GpuFinding, read_gpus
from probes.gpu_text import Card
from probes.memory import MemoryFinding, read_memory
from probes.npu import complete_by_cpu, read_npus
from probes.profile import CPU, GPU, HardwareProfile, MemoryPool, OperatingSystem
from probes.reader import LiveReader, Reader
from probes.system import SystemFinding, find_toolchains, read_disk, read_system

PROBE_SECONDS = 2.0
_MAIN = "ram"


def probe_machine(bench: bool = True, path: Path | None = None, reader: Reader | None = None) -> HardwareProfile:
    """The machine behind `reader`, by default this one. Never raises for what it can't find out.

    `bench` measures memory bandwidth (0.3 s; this machine only). `path` is the folder whose disk counts, by default the
    user's data folder. Installed toolchains belong to this machine and are left out for another reader.
    """
    live = reader is None
    source: Reader = LiveReader() if reader is None else reader
    works: dict[str, Callable[[], Any]] = {
        "cpu": lambda: read_cpu(source),
        "memory": lambda: read_memory(source),
        "gpu": lambda: read_gpus(source),
        "npu": lambda: read_npus(source),
        "system": lambda: read_system(source),
    }
    if live:
        works["disk"] = lambda: read_disk(source, path or advisor_home())
        works["toolchains"] = find_toolchains
    done, draft = _all_at_once(works), Draft()
    for name in works:
        if name not in done:
            draft.note(f"the {name} probe did not finish in {PROBE_SECONDS:g} s: what it would have told is missing")
        elif isinstance(done[name], Exception):
            kind = type(done.pop(name)).__name__
            draft.note(f"the {name} probe failed ({kind}): please report what `advisor doctor --raw` prints")
    cpu: CpuFinding = done.get("cpu") or CpuFinding(CPU())
    memory: MemoryFinding = done.get("memory") or MemoryFinding(None, None, None, None, "", "low")
    gpus: GpuFinding = done.get("gpu") or GpuFinding(())
    system: SystemFinding = done.get("system") or SystemFinding(OperatingSystem(), "", {})
    disk, disk_notes = done.get("disk", (None, ()))
    toolchains, toolchain_notes = done.get("toolchains", ((), ()))
    if cpu.chip is None:
        cpu = replace(cpu, chip=_soc_of(gpus.cards))
    _put_cpu(draft, cpu, memory)
    if memory.total_bytes:
        _put_memory(draft, memory, cpu, measured=live and bench)
    _put_gpus(draft, gpus, cpu)
    for found in complete_by_cpu(done.get("npu") or (), cpu.chip, cpu.cpu.model):
        draft.add_npu(found.npu, found.source, found.confidence)
    for key, told in system.sources.items():
        draft.say(key, *told)
    draft.note(*cpu.notes, *memory.notes, *gpus.notes, *system.notes, *disk_notes, *toolchain_notes)
    if disk and disk.total_bytes:
        draft.say("disk", "the file system's own figures", "high")
    if toolchains:
        draft.say("toolchains", "toolchain.json files and this interpreter's packages", "high")
    if cpu.chip:
        draft.say("chip", "the CPU's or board's name, matched to the knowledge base", "medium")
    profile = HardwareProfile(
        origin="probed",
        device=system.device,
        chip=cut(cpu.chip.name) if cpu.chip else "",
        os=system.os,
        cpu=draft.cpu,
        memory=tuple(draft.memory),
        gpus=tuple(draft.gpus),
        npus=tuple(draft.npus),
        toolchains=toolchains,
        notes=tuple(draft.notes),
        provenance=draft.provenance,
        **({"disk": disk} if disk else {}),
    )
    return profile.model_copy(update={"fingerprint": fingerprint(profile)})


def raw_probe_inputs() -> dict[str, Any]:
    """Everything that the probes read of this machine, as a document that ReplayReader replays. No host name in it."""
    reader = LiveReader()
    probe_machine(bench=False, reader=reader)
    return reader.recorded()


def fingerprint(profile: HardwareProfile) -> str:
    """A stable name of the hardware (not of the host): SHA-256 over CPU, cores, memory, GPUs, NPUs and OS family."""
    main = profile.main_memory
    parts = [
        profile.cpu.model,
        profile.cpu.physical_cores,
        profile.cpu.logical_cores,
        round(main.total_bytes / GIB * 4) if main else None,  # in quarters of a GiB: kernels keep a varying share
        sorted(f"{gpu.vendor} {gpu.name}" for gpu in profile.gpus),
        sorted(f"{npu.vendor} {npu.generation}" for npu in profile.npus),
        profile.os.family,
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _all_at_once(works: dict[str, Callable[[], Any]]) -> dict[str, Any]:
    """Each work in a thread of its own: the results, or exceptions, of those that end in time."""
    results: dict[str, Any] = {}

    def run(name: str, work: Callable[[], Any]) -> None:
        try:
            results[name] = work()
        except Exception as error:  # one probe's fault must not cost the others: it becomes a note
            results[name] = error

    threads = [threading.Thread(target=run, args=pair, daemon=True) for pair in works.items()]
    deadline = time.monotonic() + PROBE_SECONDS
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return dict(results)


def _put_cpu(draft: Draft, finding: CpuFinding, memory: MemoryFinding) -> None:
    cpu = finding.cpu
    for path, told in finding.sources.items():
        draft.say(f"cpu.{path}" if path else "cpu", *told)
    quota = memory.usable_cpus
    if quota is not None and (cpu.usable_cores is None or quota < cpu.usable_cores):
        cpu = cpu.model_copy(update={"usable_cores": quota})
        draft.say("cpu.usable_cores", "cgroup CPU quota", "high")
        draft.note(f"a control group (container) leaves {quota:g} CPUs' worth of time")
    if finding.chip and cpu.fp16_tflops is not None:
        draft.say("cpu.fp16_tflops", finding.chip.source, finding.chip.confidence)
    draft.cpu = cpu


def _put_memory(draft: Draft, memory: MemoryFinding, cpu: CpuFinding, *, measured: bool) -> None:
    assert memory.total_bytes is not None
    sheet = cpu.chip or (family_of(cpu.cpu.model) if cpu.cpu.model else None)
    read = None
    if measured:
        from probes.bandwidth import measure_bandwidth  # imported late: ctypes, only to measure

        cores = round(cpu.cpu.usable_cores or cpu.cpu.physical_cores or 1)
        read = measure_bandwidth(min(cores, cpu.cpu.physical_cores or cores), memory.available_bytes or 0)
        if read is None:
            draft.note("memory bandwidth could not be measured")
    unified = cpu.chip is not None and cpu.chip.kind in ("apple", "mobile")
    pool = MemoryPool(
        id=_MAIN,
        kind="unified" if unified else "ram",
        total_bytes=memory.total_bytes,
        available_bytes=memory.available_bytes,
        limit_bytes=memory.limit_bytes,
        bandwidth_gbs=sheet.bandwidth_gbs if sheet else None,
        measured_bandwidth_gbs=round(read.read_gbs, 2) if read else None,
    )
    at = draft.add_pool(pool, memory.source, memory.confidence)
    if memory.gpu_limit_bytes:
        draft.lend_gpu(memory.gpu_limit_bytes, "sysctl iogpu.wired_limit_mb")
    if sheet and sheet.bandwidth_gbs is not None:
        draft.say(f"{at}.bandwidth_gbs", f"data sheet, by the chip's name: {sheet.source}", sheet.confidence)
    if read:
        draft.say(f"{at}.measured_bandwidth_gbs", read.source, "medium")
        if read.copy_gbs:
            draft.note(f"measured bandwidth: {read.read_gbs:.1f} GB/s reading, {read.copy_gbs:.1f} GB/s copying")


def _put_gpus(draft: Draft, finding: GpuFinding, cpu: CpuFinding) -> None:
    host = cpu.chip
    for card in finding.cards:
        row = _row_of(card)
        if _is_integrated(card, row):
            row = host if host and gpu_of(host, _MAIN) else row
            _put_integrated(draft, card, row or _family_of_graphics(card, cpu.cpu))
        else:
            _put_card(draft, card, row)
    soc_gpu = gpu_of(host, _MAIN) if host and host.kind in ("sbc", "apple", "mobile") else None
    if host and soc_gpu and draft.memory and not any(gpu.pool == _MAIN for gpu in draft.gpus):
        _share_main_memory(draft)
        draft.add_gpu(soc_gpu, f"by the name of the chip: {host.source}", "medium")


def _soc_of(cards: tuple[Card, ...]) -> Chip | None:
    """The system on chip that a GPU's name tells of, where the CPU's name told nothing (GB10, Orin)."""
    rows = (_row_of(card) for card in cards)
    return next((row for row in rows if row and row.kind == "sbc" and row.confidence != "low"), None)


def _row_of(card: Card) -> Chip | None:
    """The chip's row by the GPU's name; of several that share the name the slowest, so as not to promise too much."""
    size = round(card.total_bytes / GIB) if card.total_bytes else None
    rows = [chip for chip in chips_named(card.name, memory_gib=size) if chip.kind != "npu"] if card.name else []
    if len({row.name for row in rows}) > 1:
        row = min(rows, key=lambda chip: chip.bandwidth_gbs or 0)
        return replace(row, confidence="low")
    return rows[0] if rows else None


def _family_of_graphics(card: Card, cpu: CPU) -> Chip | None:
    """The CPU's family, where the graphics are its own: drivers call them by the maker's name alone."""
    family = chip_by_family(cpu.model) if cpu.vendor == card.vendor else None
    return family if family and gpu_of(family, _MAIN) else None


def _is_integrated(card: Card, row: Chip | None) -> bool:
    """Whether the GPU computes from main memory. NVIDIA's unified machines report no memory of their own."""
    if card.kind != "unknown":
        return card.kind == "integrated"
    if row is not None:
        return row.kind != "gpu"
    return card.total_bytes is None


def _share_main_memory(draft: Draft) -> None:
    draft.memory[0] = draft.memory[0].model_copy(update={"kind": "unified"})


def _put_integrated(draft: Draft, card: Card, row: Chip | None) -> None:
    if not draft.memory:
        draft.note(f"{card.name}: main memory is unknown, so this integrated GPU is left out")
        return
    # Linux (GTT) and Windows share half of main memory by default; a bigger carve-out is the pool that counts.
    shared = card.shared_bytes or draft.memory[0].total_bytes // 2
    pool = _MAIN
    if card.total_bytes and card.total_bytes > shared:
        pool = _vram_pool(draft, card, card.total_bytes, row)
    else:
        _share_main_memory(draft)
        if card.shared_bytes:
            draft.lend_gpu(card.shared_bytes, "sysfs mem_info_gtt_total")
        if card.total_bytes:
            size = card.total_bytes / GIB
            draft.note(f"{card.name}: {size:.1f} GiB are carved out for graphics; it computes from the shared memory")
    _put_gpu(draft, card, row, pool, "integrated")


def _put_card(draft: Draft, card: Card, row: Chip | None) -> None:
    total = card.total_bytes
    if total is None and row and row.memory_gib:
        total = round(min(row.memory_gib) * GIB)
        draft.note(f"{card.name}: no source told its memory; the data sheet's {min(row.memory_gib):g} GB are used")
    if total is None:
        draft.note(f"{card.name}: a graphics card whose memory no source told: it is left out")
        return
    _put_gpu(draft, card, row, _vram_pool(draft, card, total, row), "discrete")


def _vram_pool(draft: Draft, card: Card, total: int, row: Chip | None) -> str:
    pool_id = f"vram{sum(pool.kind == 'vram' for pool in draft.memory)}"
    bandwidth = row.bandwidth_gbs if row else None
    pool = MemoryPool(
        id=pool_id, kind="vram", total_bytes=total, available_bytes=card.free_bytes, bandwidth_gbs=bandwidth
    )
    told = card.source if card.total_bytes else f"data sheet: {row.source if row else ''}"
    at = draft.add_pool(pool, told, card.confidence if card.total_bytes else "low")
    if row and bandwidth is not None:
        draft.say(f"{at}.bandwidth_gbs", f"data sheet, by the GPU's name: {row.source}", row.confidence)
    return pool_id


def _put_gpu(draft: Draft, card: Card, row: Chip | None, pool: str, kind: Literal["discrete", "integrated"]) -> None:
    sheet = gpu_of(row, pool) if row else None
    main = draft.memory[0].bandwidth_gbs if pool == _MAIN else None
    bandwidth = main or (sheet.bandwidth_gbs if sheet else None)
    known_by_bus = "[" in card.name and sheet is not None and row is not None and row.confidence != "low"
    family = family_of(card.name) if card.name else None
    generation = card.generation or (sheet.generation if sheet else "") or (family.generation if family else "")
    gpu = GPU(
        vendor=card.vendor,
        name=sheet.name if known_by_bus and sheet else cut(card.name),
        kind=kind,
        pool=pool,
        generation=cut(generation.split("; ")[0]),
        driver=cut(card.driver),
        bandwidth_gbs=bandwidth,
        fp16_tflops=sheet.fp16_tflops if sheet else None,
        fp16_acc16_tflops=sheet.fp16_acc16_tflops if sheet else None,
        int8_tops=sheet.int8_tops if sheet else None,
    )
    at = draft.add_gpu(gpu, card.source, card.confidence)
    if row:
        for name in ("bandwidth_gbs", "fp16_tflops", "fp16_acc16_tflops", "int8_tops"):
            if getattr(gpu, name) is not None:
                draft.say(f"{at}.{name}", f"data sheet, by the GPU's name: {row.source}", row.confidence)
    if main is not None:
        draft.say(f"{at}.bandwidth_gbs", "that of the memory it shares with the CPU", "medium")
    if gpu.generation and not card.generation:
        draft.say(f"{at}.generation", "by the GPU's name", "medium")
