"""What can compute in a machine: its CPU, its GPUs and its NPUs as uniform records, derived from a HardwareProfile."""

from __future__ import annotations

from dataclasses import dataclass, replace

from advisor.case import USUAL_CORES, in_fast_cores
from knowledge.base import GIB
from probes.profile import CPU, HardwareProfile

_FEW = 4  # fast cores, below which they are too few to read memory at its full bandwidth


@dataclass(frozen=True, slots=True)
class Engine:
    """One thing that computes. `pool` is the memory pool it computes from; rates in 10^9 B/s, TFLOPS, TOPS. `part` is
    what it is soldered into, by the system's name: of integrated graphics and NPUs the processor.

    `measured` is true when the bandwidth was measured on this machine rather than taken from a data sheet; where it is
    assumed, it lies in `bandwidth_range_gbs`. `memory_gib` is all of the pool. `os` and `arch` are those of the machine
    it sits in. Of a CPU, `cores` are what all are worth in fast ones and `fast_cores` those that a runtime keeps busy;
    `usual_cores` stand in for a number that is not known. `others` are further cards of its generation, over which a
    model can be spread.
    """

    kind: str
    vendor: str
    name: str
    generation: str
    pool: str
    bandwidth_gbs: float | None
    fp16_tflops: float | None
    int8_tops: float | None
    measured: bool = False
    integrated: bool = True
    instruction_sets: frozenset[str] = frozenset()
    os: str | None = None
    arch: str = "unknown"
    usual_cores: int = USUAL_CORES
    others: tuple[Engine, ...] = ()
    bandwidth_range_gbs: tuple[float, float] | None = None
    memory_gib: float | None = None
    part: str = ""
    cores: float | None = None
    fast_cores: int | None = None

    @property
    def cards(self) -> tuple[Engine, ...]:
        """Itself and the further cards of its generation."""
        return (self, *self.others)

    @property
    def usual_threads(self) -> int:
        """What `default_threads` would be with the usual number of cores."""
        return max(1, self.usual_cores - 1)


def engines_of(profile: HardwareProfile) -> list[Engine]:
    """The CPU (always one, known or not), every kind of GPU, every NPU, in that order."""
    main = profile.main_memory
    pool = main.id if main else "ram"
    sheet = main.bandwidth_gbs if main else None
    measured = main.measured_bandwidth_gbs if main else None
    cpu = profile.cpu
    every = cpu.physical_cores or cpu.logical_cores
    engines = [
        Engine(
            "cpu", cpu.vendor, cpu.model or "CPU", "", pool, measured or sheet, cpu.fp16_tflops, None,
            measured=bool(measured), instruction_sets=frozenset(cpu.instruction_sets),
            usual_cores=cpu.usual_cores or USUAL_CORES, bandwidth_range_gbs=main.bandwidth_range_gbs if main else None,
            cores=in_fast_cores(cpu.vendor, every, cpu.performance_cores) if every else None,
            fast_cores=fast_cores(cpu),
        )
    ]  # fmt: skip
    engines += _gpus_of(profile)
    for npu in profile.npus:
        engines.append(
            Engine(
                "npu",
                npu.vendor,
                npu.name or f"{npu.vendor} NPU",
                npu.generation,
                pool,
                sheet or measured,
                None,
                npu.tops,
            )
        )
    total = {memory.id: memory.total_bytes / GIB for memory in profile.memory}
    return [
        replace(
            engine, os=profile.os.family, arch=cpu.arch, memory_gib=total.get(engine.pool),
            part=cpu.model if engine.integrated and cpu.model else engine.name,
        )
        for engine in engines
    ]  # fmt: skip


def _gpus_of(profile: HardwareProfile) -> list[Engine]:
    """One engine for each kind of GPU, in the pool that has most room; the largest card of a generation knows the
    others of it."""
    kinds: dict[tuple[str, str, str], Engine] = {}
    together: dict[tuple[str, str], list[Engine]] = {}
    for gpu in profile.gpus:
        memory = profile.pool(gpu.pool)
        bandwidth = gpu.bandwidth_gbs or (memory.bandwidth_gbs if memory else None)
        name, integrated = gpu.name or f"{gpu.vendor} GPU", gpu.kind == "integrated"
        rates = (bandwidth, gpu.fp16_tflops, gpu.int8_tops)
        engine = Engine("gpu", gpu.vendor, name, gpu.generation, gpu.pool, *rates, integrated=integrated)
        known = kinds.setdefault((gpu.vendor, name, gpu.kind), engine)
        if _room(profile, engine.pool) > _room(profile, known.pool):
            kinds[gpu.vendor, name, gpu.kind] = engine
        if not integrated:
            together.setdefault((gpu.vendor, gpu.generation or name), []).append(engine)
    others = {}
    for cards in together.values():
        first, *rest = sorted(cards, key=lambda card: -_room(profile, card.pool))
        others[first] = tuple(rest)
    return [replace(engine, others=others.get(engine, ())) for engine in kinds.values()]


def _room(profile: HardwareProfile, pool_id: str) -> int:
    pool = profile.pool(pool_id)
    return 0 if pool is None else pool.total_bytes if pool.available_bytes is None else pool.available_bytes


def fast_cores(cpu: CPU) -> int | None:
    """The cores that a runtime keeps busy: the fast ones of a hybrid, or half of all where those are only a few. None
    where their number is not known."""
    every = cpu.physical_cores or cpu.logical_cores
    fast = cpu.performance_cores
    if fast is None or every is None or fast >= _FEW:
        return fast or every
    return max(fast, every // 2)


def default_threads(profile: HardwareProfile) -> int | None:
    """Worker threads: one core is left to the rest of the machine (contended cores make spinning threads crawl).
    None where the number of cores is not known."""
    cores = fast_cores(profile.cpu)
    if cores is None:
        return None
    if profile.cpu.usable_cores:
        cores = min(cores, int(profile.cpu.usable_cores))
    return max(1, cores - 1)
