"""The learned cost model as the plan's: a CostModel over the arrays of the knowledge base."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache

from advisor.case import CACHED_BYTES, USUAL_ANSWER, USUAL_RATE, Case, GpuRates, cpu_rate, gpu_rate
from advisor.cost_model import CostPredictor, Estimate, Target, target_from
from advisor.engines import Engine
from advisor.physics import most_decode_tps
from advisor.speed import PROMPT_TOKENS, UNKNOWN, Interval, Work
from knowledge.base import AdvisorError
from knowledge.chips import apple_generation, usual_npu_tops
from knowledge.cost_arrays import load_arrays
from knowledge.match import find_chip
from knowledge.model_names import ModelFacts, facts_of_spec
from knowledge.records import Chip, ModelSpec

_MEASURED_SHARE = 0.8  # of the data sheet, what a copy reaches: the model learned from data sheets
_CORE_BANDWIDTH = 25.0  # 10^9 B/s that one core can ask for
_ALIKE = 0.3  # evidence below which nothing similar was measured
# Metal's rows would answer for it, and be off by a hundred times (docs/frameworks.md: 0.2 tok/s).
_UNTIMED = {("mlx", "cpu"): "unknown: nobody has published how fast MLX is on a CPU, where it is a functional test"}


class _Targets(dict[str, Target]):
    def __missing__(self, name: str) -> Target:
        target = self[name] = target_from(load_arrays(name))
        return target


@lru_cache(maxsize=1)
def load_predictor() -> CostPredictor:
    """The predictor over the arrays that count here; each target is read when it is first asked for."""
    return CostPredictor(_Targets())


@dataclass(slots=True)
class Learned:
    """Physics times what was learned of published measurements; keeps what it answered, up to a bound."""

    predictor: CostPredictor = field(default_factory=load_predictor)
    _answers: dict[tuple[str, Work], Interval] = field(default_factory=dict)

    def decode_tps(self, work: Work) -> Interval:
        return self._answer("decode_tps", work)

    def prefill_tps(self, work: Work) -> Interval:
        return self._answer("prefill_tps", work)

    def _answer(self, metric: str, work: Work) -> Interval:
        key = (metric, work)
        found = self._answers.get(key)
        if found is None:
            if len(self._answers) > 20_000:
                self._answers.clear()
            found = self._answers[key] = self._predict(metric, work)
        return found

    def _predict(self, metric: str, work: Work) -> Interval:
        if untimed := _UNTIMED.get((work.framework, work.backend)):
            return Interval(None, None, None, untimed)
        prompt = PROMPT_TOKENS if metric == "prefill_tps" else None
        case = case_of_work(work, prompt, USUAL_ANSWER)
        if case is None:
            return UNKNOWN
        estimate = self.predictor.estimate(case, metric)
        most = most_decode_tps(case) if metric == "decode_tps" else math.inf
        low, mid, high = (min(end, most) for end in (estimate.low, estimate.mid, estimate.high))
        return Interval(low, mid, high, words_of(estimate))


def words_of(estimate: Estimate) -> str:
    """What an estimate rests on, for people."""
    if estimate.evidence < _ALIKE:
        return "physics, with what was learned of other engines: nothing like this one was measured"
    count = f"{estimate.measurements} measurement{'' if estimate.measurements == 1 else 's'}"
    return f"physics and published measurements; closest: {estimate.nearest}, {count}"


# ---- options of a plan

_PLAN_BACKENDS = {
    "openvino-npu": "npu", "qnn": "npu", "hexagon": "npu", "vitisai": "npu", "directml": "vulkan", "webgpu": "vulkan",
    "tensorrt-rtx": "cuda", "migraphx": "rocm",
}  # fmt: skip
_PLAN_RUNTIMES = {"olive": "onnxruntime"}
_NPU_RUNTIMES = {"qnn": "qnn", "openvino-npu": "openvino"}  # what ONNX Runtime, too, hands the graph to


def case_of_work(work: Work, prompt: float | None, answer: float | None) -> Case | None:
    """The case of an option; None where the engine's bandwidth is not known. Without `prompt`, the context is as full
    as `work.kv_bytes` says."""
    engine = work.engine
    if not engine.bandwidth_gbs:
        return None
    facts = _facts(work)
    weight_bytes = work.active_weight_bytes * facts.params / facts.active_params
    active_bytes = work.active_weight_bytes
    if not facts.tied and not facts.is_moe:  # of an embedding of its own, one row is read
        active_bytes = max(0.5 * active_bytes, active_bytes - facts.vocab * facts.hidden * weight_bytes / facts.params)
    cached = facts.kv_values * CACHED_BYTES
    if prompt is None and cached:
        prompt = max(1.0, work.kv_bytes / cached - (answer or USUAL_ANSWER) / 2)
    backend = _PLAN_BACKENDS.get(work.backend, work.backend)
    runtime = _NPU_RUNTIMES.get(work.backend) or _PLAN_RUNTIMES.get(work.framework, work.framework)
    chip = _chip(engine.part)
    kind = _kind(engine, chip)
    bandwidth = engine.bandwidth_gbs
    if engine.measured:
        bandwidth /= _MEASURED_SHARE
    between: tuple[float, ...] = ()
    if backend == "cpu":
        cores = _cores(work)
        bandwidth = min(bandwidth, _CORE_BANDWIDTH * cores)
        between = tuple(min(one, _CORE_BANDWIDTH * cores) for one in engine.bandwidth_range_gbs or ())
        rate, low_bit = cpu_rate(engine.vendor, engine.instruction_sets, cores), 1.0
    elif backend == "npu":
        rate, low_bit = engine.int8_tops or usual_npu_tops(engine.generation) or USUAL_RATE["npu"], 2.0
    else:
        bits = weight_bytes * 8 / facts.params
        acc16 = engine.int8_tops / 2 if engine.int8_tops and engine.vendor == "nvidia" else None
        sheet = GpuRates(engine.vendor, engine.generation, engine.fp16_tflops, acc16, engine.int8_tops)
        rate, low_bit = gpu_rate(sheet, backend, bits, USUAL_RATE[kind])
    generation = apple_generation(engine.name) if engine.vendor == "apple" else engine.generation
    return Case(
        chip=chip.name if chip else engine.name, vendor=chip.vendor if chip else engine.vendor,
        engine_kind=kind, generation="" if backend == "cpu" else generation,
        runtime=runtime, software=work.framework, backend=backend,
        bandwidth=bandwidth, rate=rate, low_bit_ratio=low_bit, count=work.cards, memory_gib=engine.memory_gib,
        model=facts.name.lower(), params=facts.params, active_params=facts.active_params,
        weight_bytes=weight_bytes, active_bytes=active_bytes, layers=facts.layers,
        hidden=facts.hidden, vocab=facts.vocab, cache_bytes=cached,
        recurrent=facts.recurrent, queries=facts.queries, window=facts.window, window_queries=facts.window_queries,
        precision=work.precision.lower(), bits=weight_bytes * 8 / facts.params,
        assumed_precision=False, prompt=prompt, answer=answer, batch=1.0,
        assumed_cores=backend == "cpu" and work.threads is None, bandwidth_range=between,
    )  # fmt: skip


def _cores(work: Work) -> float:
    """The share of a CPU's cores that the threads are, as fast cores. What was published is joined to all cores of a
    chip (advisor.workload), however many of a hybrid's were busy."""
    engine = work.engine
    threads = work.threads or engine.usual_threads
    return threads * (engine.cores or engine.usual_cores) / (engine.fast_cores or engine.usual_cores)


@lru_cache(maxsize=64)
def _chip(name: str) -> Chip | None:
    """The chip that the system's or a person's name means, of which measurements may be known."""
    try:
        return find_chip(name)
    except AdvisorError:
        return None


def _kind(engine: Engine, chip: Chip | None) -> str:
    """What rows call the engine (advisor.workload): a board's or phone's by the board or phone."""
    own = chip.kind if chip else ""
    if engine.kind == "cpu":
        return own if own in ("sbc", "mobile", "apple") else "cpu"
    if engine.kind == "npu":
        return "mobile" if own == "mobile" else "npu"
    if engine.vendor == "apple":
        return "apple"
    if own in ("igpu", "mobile") or (own != "sbc" and engine.integrated):
        return "mobile" if own == "mobile" else "igpu"
    return "gpu"


_facts_cache: dict[ModelSpec, ModelFacts] = {}


def _facts(work: Work) -> ModelFacts:
    facts = _facts_cache.get(work.spec)
    if facts is None:
        if len(_facts_cache) > 2000:
            _facts_cache.clear()
        facts = _facts_cache[work.spec] = facts_of_spec(work.spec)
    return facts
