"""Judge one option: walk the rules of each stage over its facts, computing memory, speed and quality in between."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from advisor.candidates import Option
from advisor.constraints import Constraints
from advisor.memory import Budget, MemoryNeed, budget, memory_need
from advisor.quality import Retention, predict_retention
from advisor.speed import PROMPT_TOKENS, UNKNOWN, CostModel, Interval, Work, ttft_ms
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
    """One pass over the nodes of a stage: of each node the first rule that holds is taken; a rejection ends the pass."""

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


@dataclass(slots=True)
class Judged:
    """An option with everything that was found out about it. `rejected` None: it survived."""

    option: Option
    rejected: Taken | None = None
    sizes: WeightSizes | None = None
    need: MemoryNeed | None = None
    budget: Budget | None = None
    disk: dict[str, int] = field(default_factory=dict)
    decode: Interval = UNKNOWN
    prefill: Interval = UNKNOWN
    ttft: Interval = UNKNOWN
    retention: Retention | None = None
    preference: float = 0.0
    taken: list[Taken] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    scores: dict[str, float] = field(default_factory=dict)
    pareto: bool = False

    @property
    def key(self) -> tuple[str, str, str, str]:
        o = self.option
        return o.spec.name, o.backend.framework, o.backend.backend, o.precision.name

    @property
    def warnings(self) -> list[str]:
        """What must be said first (`notices`), then the warnings of the rules taken."""
        return [*self.notices, *(t.text for t in self.taken if t.rule.effect == "warn")]

    @property
    def reasons(self) -> list[dict[str, str]]:
        told = (t for t in self.taken if t.rule.effect in ("reason", "prefer"))
        return [{"rule": t.rule.id, "text": t.text, "source": t.rule.source} for t in told]

    @property
    def shortfall(self) -> int:
        """Bytes over the budget, 0 when it fits."""
        return max(0, self.need.total_bytes - self.budget.bytes) if self.need and self.budget else 0


def judge(
    option: Option, request: Constraints, profile: HardwareProfile, rules: RuleSet, cost_model: CostModel, threads: int
) -> Judged:
    """Walk the three candidate stages; stop at the first rejection."""
    judged = Judged(option)
    facts = option.facts
    if not _pass(judged, Walk(rules, "static", facts)):
        return judged
    _size(judged, request, profile)
    assert judged.need and judged.budget
    total, usable = judged.need.total_bytes, judged.budget.bytes
    facts = facts | {
        "memory_ratio": judged.sizes.ratio if judged.sizes else None,
        "total_bytes": total,
        "budget_bytes": usable,
        "missing_bytes": max(0, total - usable),
        "memory_share": total / usable if usable else 9.9,
        "pool": judged.budget.pool,
        "disk_peak_bytes": judged.disk["peak_bytes"],
    }
    if not _pass(judged, Walk(rules, "fit", facts)):
        return judged
    _predict(judged, cost_model, threads)
    assert judged.retention
    facts = facts | {
        "decode_mid": judged.decode.mid,
        "ttft_mid": judged.ttft.mid,
        "retention_low": judged.retention.low,
        "retention_mid": judged.retention.mid,
    }
    _pass(judged, Walk(rules, "value", facts))
    return judged


def _pass(judged: Judged, walk: Walk) -> bool:
    """Take over what the walk found; False when it rejected."""
    judged.taken += walk.taken
    judged.preference += sum(taken.rule.weight for taken in walk.taken)
    judged.rejected = walk.first("reject")
    return judged.rejected is None


def _size(judged: Judged, request: Constraints, profile: HardwareProfile) -> None:
    option = judged.option
    sizes = weights(option.spec, option.precision, backend=option.backend.backend)
    judged.sizes = sizes
    judged.need = memory_need(
        option.spec, sizes, option.backend.framework, option.backend.backend, option.context, request.concurrency,
        request.kv_cache or "f16",
    )  # fmt: skip
    judged.budget = budget(profile, option.engine.pool, option.backend.backend, option.engine.kind)
    source = _source_bytes(option.spec)
    reference = 2 * option.spec.params
    quantized = option.precision.nominal_bits < 16
    judged.disk = {
        "download_bytes": 0 if option.spec.path else source,
        "peak_bytes": source + (reference if quantized else 0) + sizes.file_bytes,
        "artifact_bytes": sizes.file_bytes,
    }


def _source_bytes(spec: ModelSpec) -> int:
    stored = sum(t.stored_bytes or 0 for t in spec.tensors)
    return stored + spec.header_bytes if stored else 2 * spec.params


def _predict(judged: Judged, cost_model: CostModel, threads: int) -> None:
    option, sizes, need = judged.option, judged.sizes, judged.need
    assert sizes and need
    spec = option.spec
    share = spec.active_params / spec.params if spec.active_params else 1.0
    work = Work(
        spec, option.backend.framework, option.backend.backend, sizes.tensor_bytes * share, need.kv_bytes / 2,
        option.engine, threads,
    )  # fmt: skip
    judged.decode = cost_model.decode_tps(work)
    judged.prefill = cost_model.prefill_tps(work)
    judged.ttft = ttft_ms(judged.prefill, judged.decode, min(PROMPT_TOKENS, max(1, option.context // 2)))
    judged.retention = predict_retention(spec, option.precision, sizes.bits_per_weight)
