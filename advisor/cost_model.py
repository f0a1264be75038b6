"""The learned cost model, evaluated: physics times what was learned of engines, times a small forest, with intervals.

    log value = log physics(case) + effect of the engine + trees(features) ;  interval = value x exp(quantile x spread)

The effect of an engine is what measurements on it, and on engines like it, lie above physics: kriging over the
engines that were measured. The spread comes from trees of their own, fitted to the errors on held-out chips and models
with the evidence as a feature, and is scaled to cover 90 % of them (conformal). Trained by executors.training; the
exported arrays are evaluated in pure Python, so that a plan imports nothing for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from advisor import physics
from advisor.case import Case
from advisor.cost_features import features
from knowledge.names import compact

TARGET_OF = {"decode_tps": "decode", "prefill_tps": "prompt", "ttft_ms": "first", "peak_mem_gb": "memory"}
LEVEL = 0.9
_MAX_SPREAD = 2.3  # in logarithms: a factor of ten
_CPU_REACH = 0.4  # instead of Scale.reach: CPUs differ in more than bandwidth, rate and generation
_CORES_OF_USUAL = (0.5, 2.0)  # of the cores that a family usually has, what most of its parts lie between
_X86_VENDORS = ("amd", "intel")
_NPU_GENERATION = 1.5  # instead of Scale.generation: too few NPUs are published to set each apart


@dataclass(frozen=True, slots=True)
class Estimate:
    """low <= mid <= high at LEVEL, in the metric's unit. `evidence` is 0 (nothing like it was measured) to 1."""

    low: float
    mid: float
    high: float
    evidence: float
    nearest: str
    measurements: int


Node = float | list[Any]
"""A leaf's value; or a feature's index, the threshold up to which the first branch holds, and both branches."""


@dataclass(frozen=True, slots=True)
class Trees:
    """Decision trees whose leaves add up, from `base` on: as their JSON has them, since most are never asked."""

    base: float
    trees: Sequence[Node]

    def predict(self, row: Sequence[float]) -> float:
        total = self.base
        for node in self.trees:
            while isinstance(node, list):
                node = node[2] if row[node[0]] <= node[1] else node[3]
            total += node
        return total

    def as_json(self) -> dict[str, Any]:
        """What `trees_from` reads."""
        return {"base": self.base, "trees": list(self.trees)}


def trees_from(document: dict[str, Any]) -> Trees:
    """Trees of their JSON."""
    return Trees(document["base"], document["trees"])


@dataclass(frozen=True, slots=True)
class Traits:
    """What makes two engines alike: see `likeness`."""

    chip: str
    backend: str
    family: str
    runtime: str
    vendor: str
    kind: str
    generation: str
    bandwidth: float
    rate: float
    low_bits: float


def backend_of(case: Case) -> str:
    """What software computes with: of an NPU its vendor's compiler, whatever runtime asks it. Phones' NPUs reach far
    more of their memory's bandwidth than those of laptops and cars."""
    if case.backend != "npu" or not case.vendor:
        return case.backend
    return f"{case.vendor} mobile npu" if case.engine_kind == "mobile" else f"{case.vendor} npu"


def parameters_key(target: str, case: Case) -> str:
    """Which of the physics' parameters are a case's: of decode, CPUs of x86 reach more of their memory's bandwidth."""
    if target == "memory":
        return f"{case.runtime} {case.backend}"
    if target == "decode" and case.backend == "cpu" and case.vendor in _X86_VENDORS:
        return "x86 cpu"
    return backend_of(case)


def traits_of(case: Case) -> Traits:
    family = "llama.cpp" if case.runtime in ("ollama", "lmstudio") else case.runtime
    return Traits(
        compact(case.chip) or "?", backend_of(case), family, case.runtime, case.vendor, case.engine_kind,
        case.generation, math.log(case.bandwidth), math.log(case.rate), math.log(case.low_bit_ratio),
    )  # fmt: skip


def group_of(case: Case) -> str:
    """Whose errors are alike, as far as the width of an interval goes."""
    return f"{case.runtime} {case.engine_kind}"


class Scale(NamedTuple):
    """How engines' effects vary: standard deviations of what engines of a kind share and of what is each one's own; how
    many times further apart bandwidths and rates may be (CPUs: _CPU_REACH); how much another generation sets apart
    (NPUs: _NPU_GENERATION)."""

    shared: float
    own: float
    reach: float = 1.0
    generation: float = 0.7


def likeness(one: Traits, other: Traits, scale: Scale) -> float:
    """The covariance of two engines' effects. Engines of different backends tell nothing of one another."""
    if one.backend != other.backend:
        return 0.0
    reach = _CPU_REACH if one.backend == "cpu" else scale.reach
    apart = _NPU_GENERATION if one.backend.endswith("npu") else scale.generation
    distance = (
        ((one.bandwidth - other.bandwidth) / (1.2 * reach)) ** 2
        + ((one.rate - other.rate) / (1.2 * reach)) ** 2
        + ((one.low_bits - other.low_bits) / (0.7 * reach)) ** 2
        + 1.5 * (one.vendor != other.vendor)
        + apart * (one.generation != other.generation)
        + 0.7 * (one.kind != other.kind)
    )
    shared = scale.shared**2 * math.exp(-0.5 * distance)
    own = scale.own**2 if one.chip == other.chip else 0.0
    software = (1.0 if one.family == other.family else 0.7) * (1.0 if one.runtime == other.runtime else 0.85)
    return software * (shared + own)


@dataclass(frozen=True, slots=True)
class Unit:
    """Measured with one runtime and backend on one chip: `weight` is its share in every prediction by likeness."""

    traits: Traits
    name: str
    weight: float
    models: int
    rows: int


@dataclass(slots=True)
class Target:
    """One trained target: the logarithm of seconds (`decode`, `prompt`, `first` token) or of GiB (`memory`).

    `quantiles` are how many spreads below and above the prediction LEVEL of the errors lie: by `group_of`, of all
    errors together (`any`), and the widest of them for groups that are `unmeasured`."""

    name: str
    parameters: dict[str, list[float]]
    units: list[Unit]
    scale: Scale
    trees: Trees
    spread: Trees
    quantiles: dict[str, tuple[float, float]]
    _effects: dict[Traits, tuple[float, float, str, int]] = field(default_factory=dict)

    def physics(self, case: Case, metric: str) -> float:
        """The logarithm of what physics alone says."""
        known = self.parameters
        parameters = known.get(parameters_key(self.name, case)) or known.get(case.backend)
        if self.name == "memory":
            return math.log(physics.memory_gib(case, parameters or known["any"]))
        parameters = parameters or known["vulkan"]
        if self.name == "decode":
            return math.log(physics.decode_seconds(case, parameters))
        return math.log(physics.prompt_seconds(case, metric, parameters))

    def reach(self, case: Case) -> tuple[float, float]:
        """How many spreads the interval reaches down and up."""
        return self.quantiles.get(group_of(case)) or self.quantiles["unmeasured"]

    def effect(self, traits: Traits) -> tuple[float, float, str, int]:
        """The engine's effect, the evidence for it, the unit most like it and its measurements."""
        found = self._effects.get(traits)
        if found is None:
            if len(self._effects) > 4096:
                self._effects.clear()
            found = self._effects[traits] = self._krige(traits)
        return found

    def _krige(self, traits: Traits) -> tuple[float, float, str, int]:
        total, best, nearest = 0.0, 0.0, None
        whole = self.scale.shared**2 + self.scale.own**2
        for unit in self.units:
            if unit.traits.backend != traits.backend:
                continue
            alike = likeness(traits, unit.traits, self.scale)
            total += alike * unit.weight
            evidence = alike / whole * unit.models / (unit.models + 0.7)
            if evidence > best:
                best, nearest = evidence, unit
        return total, best, nearest.name if nearest else "", nearest.rows if nearest else 0

    def predict(self, case: Case, metric: str) -> tuple[float, float, float, str, int]:
        """The logarithm, its spread, the evidence, what is nearest and how often that was measured."""
        effect, evidence, nearest, rows = self.effect(traits_of(case))
        values = features(case, metric)
        mean = self.physics(case, metric) + effect + self.trees.predict(values)
        values.append(evidence)
        spread = min(_MAX_SPREAD, math.exp(self.spread.predict(values)))
        return mean, spread, evidence, nearest, rows


@dataclass(slots=True)
class CostPredictor:
    """The targets of the learned model, each loaded when it is first asked for (by `load`, given from above)."""

    targets: dict[str, Target]

    def estimate(self, case: Case, metric: str) -> Estimate:
        """The interval of `metric` (a key of TARGET_OF) for `case`."""
        target = self.targets[TARGET_OF[metric]]
        mean, spread, evidence, nearest, rows = target.predict(case, metric)
        below, above = target.reach(case)
        shares = _CORES_OF_USUAL if case.assumed_cores else ()
        others = [replace(case, rate=share * case.rate) for share in shares]
        others += [replace(case, bandwidth=bandwidth) for bandwidth in case.bandwidth_range]
        means = [mean, *(target.predict(other, metric)[0] for other in others)]
        ends = [value_of(log, case, metric) for log in (min(means) - below * spread, mean, max(means) + above * spread)]
        return Estimate(min(ends), ends[1], max(ends), evidence, nearest, rows)


def value_of(log: float, case: Case, metric: str) -> float:
    """The metric's value from the logarithm of its target."""
    amount = math.exp(max(-30.0, min(30.0, log)))
    if metric == "decode_tps":
        return 1.0 / amount
    if metric == "prefill_tps":
        return case.prompt_tokens(metric) / amount
    return amount * 1e3 if metric == "ttft_ms" else amount


def log_of(value: float, case: Case, metric: str) -> float:
    """The inverse of `value_of`."""
    if metric == "decode_tps":
        return -math.log(value)
    if metric == "prefill_tps":
        return math.log(case.prompt_tokens(metric) / value)
    return math.log(value / 1e3) if metric == "ttft_ms" else math.log(value)


def target_from(document: dict[str, Any]) -> Target:
    """The target that executors.training exported as `document`."""
    return Target(
        name=document["name"],
        parameters=document["parameters"],
        units=[
            Unit(Traits(**unit["traits"]), unit["name"], unit["weight"], unit["models"], unit["rows"])
            for unit in document["units"]
        ],
        scale=Scale(*document["scale"]),
        trees=trees_from(document["trees"]),
        spread=trees_from(document["spread"]),
        quantiles={group: (below, above) for group, (below, above) in document["quantiles"].items()},
    )
