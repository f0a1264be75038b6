"""Judge one option: walk the rules of each stage over its facts, computing memory, speed and quality in between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from advisor.candidates import Option
from advisor.constraints import Constraints
from advisor.engines import engines_of
from advisor.limits import largest_tensor_bytes, reference_bytes, size_facts
from advisor.memory import Budget, MemoryNeed, budget, memory_need, with_tower
from advisor.offload import Split, split_model
from advisor.quality import Retention, predict_retention
from advisor.speed import PROMPT_TOKENS, CostModel, Interval, Work, ttft_ms
from advisor.walk import Taken, in_order
from knowledge.matrix import Backend
from knowledge.native import published_bytes
from knowledge.records import ModelSpec, Precision
from knowledge.serving import modalities
from knowledge.weights import WeightSizes, weights
from probes.profile import HardwareProfile


@dataclass(frozen=True, slots=True)
class Size:
    """What an option takes: its weights, its memory against the budget, its disk, its largest allocation (bytes); how
    it is split between GPUs and main memory where one GPU's is too small."""

    weights: WeightSizes
    need: MemoryNeed
    budget: Budget
    disk: dict[str, int]
    largest_bytes: int
    split: Split | None = None

    @property
    def shortfall(self) -> int:
        """Bytes over the budget, 0 when it fits."""
        return max(0, self.need.total_bytes - self.budget.bytes)


@dataclass(slots=True, eq=False)
class Judged:
    """An option that no rule rejected, with everything that was found out about it."""

    option: Option
    size: Size
    decode: Interval
    prefill: Interval
    ttft: Interval
    retention: Retention
    taken: Sequence[Taken]
    notices: list[str] = field(default_factory=list)
    scores: dict[str, float] = field(default_factory=dict)
    axes: tuple[float, ...] = ()
    pareto: bool = False

    @property
    def key(self) -> tuple[str, str, str, str]:
        return self.option.key

    @property
    def path(self) -> list[Taken]:
        """The rules taken, as the tree has them."""
        return in_order(self.taken)

    @property
    def preference(self) -> float:
        return sum(t.rule.weight for t in self.taken)

    @property
    def warnings(self) -> list[str]:
        """What must be said first (`notices`), then the warnings of the rules taken."""
        return [*self.notices, *(t.text for t in self.path if t.rule.effect == "warn")]

    @property
    def reasons(self) -> list[dict[str, str]]:
        told = (t for t in self.path if t.rule.effect in ("reason", "prefer"))
        return [{"rule": t.rule.id, "text": t.text, "source": t.rule.source} for t in told]


@dataclass(frozen=True, slots=True)
class Lost:
    """What a rule rejected: an option, or a model on a backend at whatever precision (`option` None). `size` and
    `decode_tps` as far as they were known by then."""

    backend: Backend
    spec: ModelSpec
    taken: Taken
    option: Option | None = None
    size: Size | None = None
    decode_tps: float | None = None

    @property
    def shortfall(self) -> int:
        return self.size.shortfall if self.size else 0

    @property
    def key(self) -> tuple[str, str, str, str]:
        precision = self.option.precision.name if self.option else ""
        return self.spec.name, self.backend.framework, self.backend.backend, precision


def judge(
    option: Option, request: Constraints, profile: HardwareProfile, cost_model: CostModel, threads: int | None
) -> Judged | Lost:
    """Find out about an option what costs least first; the first rejection ends it. Its speed is asked for last."""
    if rejected := option.level.rejected:
        return Lost(option.backend, option.spec, rejected, option)
    size = _size(option, request, profile)
    total, usable = size.need.total_bytes, size.budget.bytes
    sized = option.level.deeper(
        {
            "memory_ratio": size.weights.ratio,
            "total_bytes": total,
            "budget_bytes": usable,
            "missing_bytes": size.shortfall,
            "memory_share": total / usable if usable else 9.9,
            "pool": size.budget.pool,
            "gpu_lent_bytes": size.budget.gpu_bytes,
            "lend_more": _lend_more(size),
            "gpu_layers": size.split.gpu_layers if size.split and size.split.ram_share else None,
            "cpu_expert_layers": size.split.cpu_expert_layers if size.split else None,
            "cards": size.split.cards if size.split and size.split.cards > 1 else None,
            "disk_peak_bytes": size.disk["peak_bytes"],
            **size_facts(option.spec, option.backend.framework, size.weights, size.largest_bytes, size.disk, profile),
        }
    )
    if rejected := sized.rejected:
        return Lost(option.backend, option.spec, rejected, option, size)
    retention = _retention(option.spec, option.precision, size.weights.bits_per_weight, option.backend.method)
    good = sized.deeper({"retention_low": retention.low, "retention_mid": retention.mid})
    if rejected := good.rejected:
        return Lost(option.backend, option.spec, rejected, option, size)
    decode, prefill = speeds(option, size, threads, option.context // 2, cost_model)
    prompt = min(PROMPT_TOKENS, max(1, option.context // 2))
    ttft = ttft_ms(prefill, decode, prompt)
    fast = good.last({"decode_mid": decode.mid, "ttft_mid": ttft.mid, "ttft_prompt": prompt})
    if rejected := fast.rejected:
        return Lost(option.backend, option.spec, rejected, option, size, decode.mid)
    return Judged(option, size, decode, prefill, ttft, retention, fast.taken)


def _lend_more(size: Size) -> str | None:
    """How to let the GPU take as much of a shared memory as the option needs; None where that is no matter."""
    usable, total = size.budget, size.need.total_bytes
    reachable = usable.gpu_bytes is not None and usable.gpu_bytes < total <= usable.pool_bytes
    return usable.more or None if reachable else None


_retention = lru_cache(maxsize=16384)(predict_retention)


def _size(option: Option, request: Constraints, profile: HardwareProfile) -> Size:
    spec, backend, usable = option.spec, option.backend, option.place.usable
    kv_type = request.kv_cache or "f16"
    asked = (spec, option.precision, backend.framework, backend.backend, option.context, request.concurrency, kv_type)
    sizes, need, disk, largest = needs_of(*asked)
    if request.use_case == "vision":
        need = with_tower(need, spec)
    split = None
    if need.total_bytes > usable.bytes and option.place.cards:
        on_cpu = memory_need(spec, sizes, backend.framework, "cpu", option.context, request.concurrency, kv_type)
        cpu = engines_of(profile)[0]
        # only a model that was asked for goes into main memory, too: of a catalogue there are others that fit
        ram = budget(profile, cpu.pool, "cpu") if request.model is not None else None
        split = split_model(spec, sizes, need, on_cpu, option.place.cards, ram, cpu)
    if split:
        need, usable = split.need, split.budget
    return Size(sizes, need, usable, disk, largest, split)


@lru_cache(maxsize=32768)
def needs_of(
    spec: ModelSpec, precision: Precision, framework: str, backend: str, context: int, concurrency: int, kv_type: str
) -> tuple[WeightSizes, MemoryNeed, dict[str, int], int]:
    """Weights, memory, disk and the largest allocation, which are the same on every machine."""
    sizes = weights(spec, precision, backend=backend)
    need = memory_need(spec, sizes, framework, backend, context, concurrency, kv_type)
    source = _source_bytes(spec)
    reference = reference_bytes(spec, framework) if precision.nominal_bits < 16 else 0
    disk = {
        "download_bytes": 0 if spec.path else source,
        "peak_bytes": sizes.file_bytes if spec.source_framework else source + reference + sizes.file_bytes,
        "artifact_bytes": sizes.file_bytes,
    }
    return sizes, need, disk, largest_tensor_bytes(spec, sizes, need)


def _source_bytes(spec: ModelSpec) -> int:
    stored = sum(t.stored_bytes or 0 for t in spec.tensors)
    return stored + spec.header_bytes if stored else published_bytes(spec)


def speeds(
    option: Option, size: Size, threads: int | None, filled: int, cost_model: CostModel
) -> tuple[Interval, Interval]:
    """Decode and prefill with `filled` tokens in the context; of a split model, both parts one after the other."""
    if option.spec.is_encoder:
        nobody = Interval(None, None, None, "unknown: nobody has published how fast encoders run on such hardware")
        return nobody, nobody
    decode, prefill = _rates(option, size, threads, filled, cost_model)
    modality = modalities()[option.spec.modality]
    unknown = Interval(None, None, None, f"not counted in tokens: this model {modality.words}")
    return decode if modality.writes else unknown, prefill if modality.reads_prompt else unknown


def _rates(
    option: Option, size: Size, threads: int | None, filled: int, cost_model: CostModel
) -> tuple[Interval, Interval]:
    parts = _parts(work_of(option, size, threads, filled), size.split)
    return (
        _in_turn([cost_model.decode_tps(part) for part in parts]),
        _in_turn([cost_model.prefill_tps(part) for part in parts]),
    )


def _parts(work: Work, split: Split | None) -> list[Work]:
    """What each engine does of a split model, one after the other: the cards by their memory, as llama.cpp deals, then
    the CPU."""
    if split is None:
        return [work]
    on_gpus = _part(work, 1 - split.ram_share)
    cards = split.cards_of(work.engine)
    if len({card.name for card in cards}) == 1:
        parts = [replace(on_gpus, cards=len(cards))]
    else:
        room = sum(split.rooms.values())
        parts = [replace(_part(on_gpus, split.rooms[card.pool] / room), engine=card) for card in cards]
    on_cpu = replace(_part(work, split.ram_share), engine=split.cpu, backend="cpu")
    return [*parts, on_cpu] if split.ram_share else parts


def _part(work: Work, share: float) -> Work:
    """This share of a model's work."""
    spec = work.spec
    part = replace(spec, params=max(1, round(share * spec.params)), active_params=round(share * spec.active_params))
    return replace(
        work, spec=part, active_weight_bytes=share * work.active_weight_bytes, kv_bytes=share * work.kv_bytes
    )


def _in_turn(parts: Sequence[Interval]) -> Interval:
    """The rate of parts that wait for each other; unknown where one is."""
    if len(parts) == 1:
        return parts[0]
    ends = ([part.low for part in parts], [part.mid for part in parts], [part.high for part in parts])
    low, mid, high = (1 / sum(1 / one for one in end if one) if all(end) else None for end in ends)
    return Interval(low, mid, high, "in turn: " + "; ".join(dict.fromkeys(part.basis for part in parts)))


def work_of(option: Option, size: Size, threads: int | None, filled: int) -> Work:
    """What one token costs with `filled` tokens in the context: the active share of the weights, and their cache."""
    spec, row = option.spec, option.backend
    share = spec.active_params / spec.params if spec.active_params else 1.0
    active, cache = size.weights.tensor_bytes * share, size.need.kv_bytes * filled / option.context
    return Work(spec, row.framework, row.backend, option.precision.name, active, cache, option.engine, threads)
