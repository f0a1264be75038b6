"""Main memory: total, available, and what a container leaves of it (cgroup v1 and v2, memory and CPU quota).

Each reader has a parser that is a pure function of text. Swap never counts. A container's use is credited for the page
cache that the kernel can drop (inactive_file). The limit is the smallest of the group and all its parents.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from probes.profile import Confidence
from probes.reader import Reader, ask_mapping, count_in

# At or above this a v1 limit means "none": the kernel rounds 2^63 down to pages.
_NO_LIMIT_BYTES = 2**60


@dataclass(frozen=True)
class GroupLimits:
    """What the control groups leave: bytes that may be used in all, bytes left now, CPUs' worth of time."""

    limit_bytes: int | None = None
    left_bytes: int | None = None
    cpus: float | None = None


@dataclass(frozen=True)
class MemoryFinding:
    """Main memory in bytes; `limit_bytes` and `usable_cpus` are a container's, None where nothing limits, and
    `gpu_limit_bytes` what the user lets the GPU of a Mac take, None where nothing was set."""

    total_bytes: int | None
    available_bytes: int | None
    limit_bytes: int | None
    usable_cpus: float | None
    source: str
    confidence: Confidence
    notes: tuple[str, ...] = ()
    gpu_limit_bytes: int | None = None


def read_memory(reader: Reader) -> MemoryFinding:
    """Main memory of the machine behind `reader`; unknown values are None."""
    total, available, source = _system_memory(reader)
    limits = read_group_limits(reader) if reader.system == "linux" else GroupLimits()
    limit = limits.limit_bytes if limits.limit_bytes and total and limits.limit_bytes < total else None
    if limit is not None and limits.left_bytes is not None and available is not None:
        available = min(available, limits.left_bytes)
    notes = []
    if limit is not None:
        notes.append("a control group (container) limits the memory of this process: the limit is planned with")
    source = f"{source}; cgroup" if limit is not None else source
    gpu = _wired_limit(reader) if reader.system == "darwin" else None
    return MemoryFinding(total, available, limit, limits.cpus, source, "high" if total else "low", tuple(notes), gpu)


def _wired_limit(reader: Reader) -> int | None:
    """What `sysctl iogpu.wired_limit_mb` was set to, in bytes; 0 stands for the system's own choice."""
    found = re.search(r"^iogpu\.wired_limit_mb: (\d{1,9})$", reader.run("sysctl", "-a") or "", re.MULTILINE)
    return int(found[1]) * 1024**2 or None if found else None


def _system_memory(reader: Reader) -> tuple[int | None, int | None, str]:
    if reader.system == "linux":
        total, available = parse_meminfo(reader.text("/proc/meminfo") or "")
        if total:
            return total, available, "/proc/meminfo"
    if reader.system == "darwin":
        text = reader.run("sysctl", "-a") or ""
        total = int(found[1]) if (found := re.search(r"^hw\.memsize: (\d+)", text, re.MULTILINE)) else None
        if total:
            return total, parse_vm_stat(reader.run("vm_stat") or ""), "sysctl and vm_stat"
    said = ask_mapping(reader, "psutil")
    return count_in(said.get("total_bytes")), count_in(said.get("available_bytes")), "psutil"


def parse_meminfo(text: str) -> tuple[int | None, int | None]:
    """Total and available bytes of /proc/meminfo; without MemAvailable (before Linux 3.14) free + buffers + cached."""
    values = {name: int(kib) * 1024 for name, kib in re.findall(r"^(\w+):\s+(\d{1,15}) kB", text, re.MULTILINE)}
    available = values.get("MemAvailable")
    if available is None and "MemFree" in values:
        available = values["MemFree"] + values.get("Buffers", 0) + values.get("Cached", 0)
    return values.get("MemTotal"), available


def parse_vm_stat(text: str) -> int | None:
    """Bytes that macOS can hand out: free, inactive, speculative and purgeable pages of `vm_stat`."""
    page = int(found[1]) if (found := re.search(r"page size of (\d{1,7}) bytes", text)) else 4096
    pages = {name: int(count) for name, count in re.findall(r"^Pages ([\w ]+):\s+(\d{1,15})\.", text, re.MULTILINE)}
    return page * sum(pages.get(name, 0) for name in ("free", "inactive", "speculative", "purgeable")) or None


def read_group_limits(reader: Reader) -> GroupLimits:
    """The limits of this process's control groups, walking up to each hierarchy's mount."""
    groups = parse_proc_cgroup(reader.text("/proc/self/cgroup") or "")
    mounts = parse_cgroup_mounts(reader.text("/proc/self/mountinfo") or "")
    limit = left = None
    cpus = None
    for controller, path in groups.items():
        if controller not in ("", "memory", "cpu") or controller not in mounts:
            continue
        for folder in _ladder(*mounts[controller], path):
            if controller in ("", "memory"):
                here, used = _memory_of(reader, folder, v2=controller == "")
                if here is not None:
                    limit = here if limit is None else min(limit, here)
                    room = max(0, here - (used or 0))
                    left = room if left is None else min(left, room)
            if controller in ("", "cpu"):
                share = _cpus_of(reader, folder, v2=controller == "")
                cpus = share if cpus is None else min(cpus, share or cpus)
    return GroupLimits(limit, left, cpus)


def parse_proc_cgroup(text: str) -> dict[str, str]:
    """/proc/self/cgroup: controller -> path; the empty controller is cgroup v2's one hierarchy."""
    groups: dict[str, str] = {}
    for line in text.splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3:
            groups.update(dict.fromkeys(parts[1].split(","), parts[2]))
    return groups


def parse_cgroup_mounts(text: str) -> dict[str, tuple[str, str]]:
    """/proc/self/mountinfo: controller -> (mount point, the part of the hierarchy that is mounted there)."""
    mounts: dict[str, tuple[str, str]] = {}
    for line in text.splitlines():
        fields, _, rest = line.partition(" - ")
        parts, kind = fields.split(), rest.split()
        if len(parts) < 5 or not kind:
            continue
        if kind[0] == "cgroup2":
            mounts[""] = (parts[4], parts[3])
        elif kind[0] == "cgroup":
            mounts.update(dict.fromkeys(kind[-1].split(","), (parts[4], parts[3])))
    return mounts


def _ladder(mount: str, mounted: str, path: str) -> list[str]:
    """The folders from the group up to the mount. A container sees its own group as the mount's root."""
    below = path[len(mounted) :] if mounted != "/" and path.startswith(mounted) else path
    parts = [part for part in below.split("/") if part and part != ".."][:64]
    return ["/".join([mount, *parts[:depth]]) for depth in range(len(parts), -1, -1)]


def _memory_of(reader: Reader, folder: str, *, v2: bool) -> tuple[int | None, int | None]:
    """Limit and use (page cache that can be dropped taken out) of one group, in bytes; None where unlimited."""
    limit = _bytes(reader.text(f"{folder}/{'memory.max' if v2 else 'memory.limit_in_bytes'}"))
    if limit is None or limit >= _NO_LIMIT_BYTES:
        return None, None
    used = _bytes(reader.text(f"{folder}/{'memory.current' if v2 else 'memory.usage_in_bytes'}")) or 0
    cache = "inactive_file" if v2 else "total_inactive_file"
    found = re.search(rf"^{cache} (\d{{1,19}})$", reader.text(f"{folder}/memory.stat") or "", re.MULTILINE)
    return limit, max(0, used - (int(found[1]) if found else 0))


def _bytes(text: str | None) -> int | None:
    clean = (text or "").strip()
    return int(clean) if clean.isdecimal() and len(clean) < 21 else None


def _cpus_of(reader: Reader, folder: str, *, v2: bool) -> float | None:
    """CPUs' worth of time that one group may use; None where unlimited."""
    if v2:
        return parse_cpu_quota(reader.text(f"{folder}/cpu.max") or "")
    quota = (reader.text(f"{folder}/cpu.cfs_quota_us") or "").strip()
    period = (reader.text(f"{folder}/cpu.cfs_period_us") or "").strip()
    return parse_cpu_quota(f"{quota} {period}")


def parse_cpu_quota(text: str) -> float | None:
    """ "200000 100000" (microseconds of each period) as 2.0 CPUs; None for "max" or -1."""
    found = re.fullmatch(r"\s*(\d{1,15})\s+(\d{1,15})\s*", text)
    return int(found[1]) / int(found[2]) if found and int(found[1]) and int(found[2]) else None
