"""Judge one option: walk the rules of each stage over its facts, computing memory, speed and quality in between."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from advisor.candidates import Option
from advisor.constraints import Constraints
from advisor.engines import engines_of
from advisor.memory import Budget, MemoryNeed, budget, memory_need
from advisor.offload import Split, split_model
from advisor.quality import Retention, predict_retention
from advisor.speed import PROMPT_TOKENS, CostModel, Interval, Work, ttft_ms
from knowledge.matrix import framework_named
from knowledge.records import ModelSpec
from knowledge.rules import Rule, RuleSet, describe, fill, words_for
from knowledge.weights import WeightSizes, weights
from probes.profile import HardwareProfile


@dataclass(frozen=True, slots=True)
class Taken:
    """A rule that was taken, over the facts it was taken on; its words are filled in when they are read."""

    rule: Rule
    facts: dict[str, Any]

    @property
    def text(self) -> str:
        return fill(self.rule.text, self.facts)

    @property
    def change(self) -> str:
        return fill(self.rule.change, self.facts)

    def trace(self) -> dict[str, str]:
        """The step of the path, as the document shows it."""
        rule = self.rule
        value = ", ".join(f"{name} = {words_for(name, self.facts.get(name))}" for name in rule.facts) or "always"
        return {"node": rule.node, "condition": describe(rule.when), "value": value, "branch": rule.id}


class Walk:
    """One pass over the nodes of a stage: of each node the first rule that holds is taken; a rejection ends it."""

    def __init__(self, rules: RuleSet, stage: str, facts: dict[str, Any]) -> None:
        self.taken: list[Taken] = []
        for _, group in rules.nodes[stage]:
            for rule in group:
                if rule.test(facts):
                    self.taken.append(Taken(rule, facts))
                    break
            if self.taken and self.taken[-1].rule.effect in ("reject", "ask", "stop"):
                break

    def first(self, effect: str) -> Taken | None:
        return next((t for t in self.taken if t.rule.effect == effect), None)

    def texts(self, effect: str) -> list[str]:
        return [t.text for t in self.taken if t.rule.effect == effect]


@dataclass(frozen=True, slots=True)
class Size:
    """What an option takes: its weights, its memory against the budget, its disk (bytes); how it is split between a GPU
    and main memory where the GPU's is too small."""

    weights: WeightSizes
    need: MemoryNeed
    budget: Budget
    disk: dict[str, int]
    split: Split | None = None

    @property
    def shortfall(self) -> int:
        """Bytes over the budget, 0 when it fits."""
        return max(0, self.need.total_bytes - self.budget.bytes)


@dataclass(slots=True)
class Judged:
    """An option that no rule rejected, with everything that was found out about it."""

    option: Option
    size: Size
    decode: Interval
    prefill: Interval
    ttft: Interval
    retention: Retention
    taken: list[Taken]
    notices: list[str] = field(default_factory=list)
    scores: dict[str, float] = field(default_factory=dict)
    pareto: bool = False

    @property
    def key(self) -> tuple[str, str, str, str]:
        return self.option.key

    @property
    def preference(self) -> float:
        return sum(t.rule.weight for t in self.taken)

    @property
    def warnings(self) -> list[str]:
        """What must be said first (`notices`), then the warnings of the rules taken."""
        return [*self.notices, *(t.text for t in self.taken if t.rule.effect == "warn")]

    @property
    def reasons(self) -> list[dict[str, str]]:
        told = (t for t in self.taken if t.rule.effect in ("reason", "prefer"))
        return [{"rule": t.rule.id, "text": t.text, "source": t.rule.source} for t in told]


@dataclass(frozen=True, slots=True)
class Lost:
    """An option that a rule rejected; `size` and `decode_tps` as far as they were known by then."""

    option: Option
    taken: Taken
    size: Size | None = None
    decode_tps: float | None = None

    @property
    def shortfall(self) -> int:
        return self.size.shortfall if self.size else 0


def judge(
    option: Option,
    request: Constraints,
    profile: HardwareProfile,
    rules: RuleSet,
    cost_model: CostModel,
    threads: int | None,
) -> Judged | Lost:
    """Walk the three candidate stages; the first rejection ends it."""
    static = Walk(rules, "static", option.facts)
    if rejected := static.first("reject"):
        return Lost(option, rejected)
    size = _size(option, request, profile)
    total, usable = size.need.total_bytes, size.budget.bytes
    facts = option.facts | {
        "memory_ratio": size.weights.ratio,
        "total_bytes": total,
        "budget_bytes": usable,
        "missing_bytes": size.shortfall,
        "memory_share": total / usable if usable else 9.9,
        "pool": size.budget.pool,
        "gpu_layers": size.split.gpu_layers if size.split else None,
        "cpu_expert_layers": size.split.cpu_expert_layers if size.split else None,
        "model_layers": option.spec.layers,
        "disk_peak_bytes": size.disk["peak_bytes"],
    }
    fit = Walk(rules, "fit", facts)
    if rejected := fit.first("reject"):
        return Lost(option, rejected, size)
    decode, prefill = speeds(option, size, threads, option.context // 2, cost_model)
    ttft = ttft_ms(prefill, decode, min(PROMPT_TOKENS, max(1, option.context // 2)))
    retention = predict_retention(option.spec, option.precision, size.weights.bits_per_weight, option.backend.method)
    facts = facts | {
        "decode_mid": decode.mid,
        "ttft_mid": ttft.mid,
        "retention_low": retention.low,
        "retention_mid": retention.mid,
    }
    value = Walk(rules, "value", facts)
    if rejected := value.first("reject"):
        return Lost(option, rejected, size, decode.mid)
    return Judged(option, size, decode, prefill, ttft, retention, [*static.taken, *fit.taken, *value.taken])


def _size(option: Option, request: Constraints, profile: HardwareProfile) -> Size:
    spec, framework, backend = option.spec, option.backend.framework, option.backend.backend
    sizes = weights(spec, option.precision, backend=backend)
    kv_type = request.kv_cache or "f16"
    need = memory_need(spec, sizes, framework, backend, option.context, request.concurrency, kv_type)
    usable = budget(profile, option.engine.pool, backend, option.engine.kind)
    source = _source_bytes(spec)
    reference = 2 * spec.params if option.precision.nominal_bits < 16 else 0
    disk = {
        "download_bytes": 0 if spec.path else source,
        "peak_bytes": source + reference + sizes.file_bytes,
        "artifact_bytes": sizes.file_bytes,
    }
    split = None
    if need.total_bytes > usable.bytes and _may_split(option, request, profile):
        on_cpu = memory_need(spec, sizes, framework, "cpu", option.context, request.concurrency, kv_type)
        cpu = engines_of(profile)[0]
        split = split_model(spec, sizes, need, on_cpu, usable, budget(profile, cpu.pool, "cpu"), cpu)
    if split:
        need, usable = split.need, split.budget
    return Size(sizes, need, usable, disk, split)


def _may_split(option: Option, request: Constraints, profile: HardwareProfile) -> bool:
    """Only a model that was asked for: of a catalogue there are others that fit."""
    pool = profile.pool(option.engine.pool)
    own_memory = option.engine.kind == "gpu" and pool is not None and pool.kind == "vram"
    return own_memory and request.model is not None and framework_named(option.backend.framework).offloads


def _source_bytes(spec: ModelSpec) -> int:
    stored = sum(t.stored_bytes or 0 for t in spec.tensors)
    return stored + spec.header_bytes if stored else 2 * spec.params


def speeds(
    option: Option, size: Size, threads: int | None, filled: int, cost_model: CostModel
) -> tuple[Interval, Interval]:
    """Decode and prefill with `filled` tokens in the context; of a split model, both parts one after the other."""
    work = work_of(option, size, threads, filled)
    if size.split is None:
        return cost_model.decode_tps(work), cost_model.prefill_tps(work)
    share = size.split.ram_share
    gpu_part = _part(work, 1 - share)
    cpu_part = replace(_part(work, share), engine=size.split.cpu, backend="cpu")
    return (
        _in_turn(cost_model.decode_tps(gpu_part), cost_model.decode_tps(cpu_part)),
        _in_turn(cost_model.prefill_tps(gpu_part), cost_model.prefill_tps(cpu_part)),
    )


def _part(work: Work, share: float) -> Work:
    """This share of a model's work."""
    spec = work.spec
    part = replace(spec, params=max(1, round(share * spec.params)), active_params=round(share * spec.active_params))
    return replace(
        work, spec=part, active_weight_bytes=share * work.active_weight_bytes, kv_bytes=share * work.kv_bytes
    )


def _in_turn(one: Interval, other: Interval) -> Interval:
    """The rate of two parts that wait for each other; unknown where one is."""
    low, mid, high = (
        1 / (1 / a + 1 / b) if a and b else None
        for a, b in ((one.low, other.low), (one.mid, other.mid), (one.high, other.high))
    )
    return Interval(low, mid, high, f"GPU and CPU in turn: {one.basis}; {other.basis}")


def work_of(option: Option, size: Size, threads: int | None, filled: int) -> Work:
    """What one token costs with `filled` tokens in the context: the active share of the weights, and their cache."""
    spec, row = option.spec, option.backend
    share = spec.active_params / spec.params if spec.active_params else 1.0
    active, cache = size.weights.tensor_bytes * share, size.need.kv_bytes * filled / option.context
    return Work(spec, row.framework, row.backend, option.precision.name, active, cache, option.engine, threads)
