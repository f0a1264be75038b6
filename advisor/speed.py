"""Speed as physics with published shares: the roofline prior, and the seam for the learned model.

Decode reads every active weight and the cache once per token: time = bytes / (bandwidth x share) + a fixed cost per
token, and on a CPU never less than the arithmetic takes. Prefill multiplies: time = 2 x active parameters x tokens /
(rate x share). The shares are bands (data/efficiency.csv, data/core_rates.csv), so every answer is a band, labelled as
what it is. Unknown bandwidth or compute gives an unknown speed, never a guess.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from advisor.engines import Engine
from knowledge.matrix import core_rates, load_efficiencies
from knowledge.records import ModelSpec

PROMPT_TOKENS = 512
_CPU_BYTES_PER_CORE = (4e9, 10e9, 25e9)
"""Bytes per second that one core can stream: bounds decode when fewer threads than cores compute."""


@dataclass(frozen=True, slots=True)
class Work:
    """What one configuration has to do. Bytes per token are for one sequence at half the planned context; `cards` of
    the engine share the layers."""

    spec: ModelSpec
    framework: str
    backend: str
    precision: str
    active_weight_bytes: float
    kv_bytes: float
    engine: Engine
    threads: int | None
    cards: int = 1


@dataclass(frozen=True, slots=True)
class Interval:
    """low <= mid <= high at 90 %, or all None; `basis` in words."""

    low: float | None
    mid: float | None
    high: float | None
    basis: str


UNKNOWN = Interval(None, None, None, "unknown: no bandwidth or compute figure for this hardware")


class CostModel(Protocol):
    """Predicts speeds. Pure: called once per candidate, in any order."""

    def decode_tps(self, work: Work) -> Interval:
        """Tokens per second of one sequence."""

    def prefill_tps(self, work: Work) -> Interval:
        """Prompt tokens per second."""


class Roofline:
    """The prior: bandwidth, compute and a fixed cost per token, with published shares."""

    def decode_tps(self, work: Work) -> Interval:
        efficiency = load_efficiencies().get((work.framework, work.backend))
        if efficiency is None or not work.engine.bandwidth_gbs:
            return UNKNOWN
        traffic = work.active_weight_bytes + work.kv_bytes
        active = work.spec.active_params or work.spec.params
        times = []
        for i, share in enumerate(efficiency.decode):
            rate = work.engine.bandwidth_gbs * 1e9 * (share if not work.engine.measured else min(1.0, share + 0.25))
            arithmetic = 0.0
            if work.engine.kind == "cpu" and work.threads:
                rate = min(rate, work.threads * _CPU_BYTES_PER_CORE[i])
                arithmetic = 2 * active / (work.threads * core_rates(work.engine.instruction_sets)[0][i])
            times.append(max(traffic / rate, arithmetic) + efficiency.token_overhead_ms / 1e3 * (1.6, 1.0, 0.6)[i])
        what = "measured bandwidth" if work.engine.measured else "data-sheet bandwidth"
        basis = f"roofline prior: {what} {work.engine.bandwidth_gbs:.0f} GB/s, published shares ({efficiency.source})"
        return Interval(1 / times[0], 1 / times[1], 1 / times[2], basis)

    def prefill_tps(self, work: Work) -> Interval:
        efficiency = load_efficiencies().get((work.framework, work.backend))
        if efficiency is None:
            return UNKNOWN
        active = work.spec.active_params or work.spec.params
        if work.engine.kind == "cpu":
            if not work.threads:
                return UNKNOWN
            rates = [work.threads * rate for rate in core_rates(work.engine.instruction_sets)[1]]
            basis = f"roofline prior: {work.threads} threads at the rate of their instruction set"
        elif work.engine.fp16_tflops:
            rates = [work.engine.fp16_tflops * 1e12 * share for share in efficiency.prefill]
            basis = f"roofline prior: {work.engine.fp16_tflops:.3g} dense FP16 TFLOPS, published shares"
        elif work.engine.kind == "npu" and work.engine.int8_tops:
            rates = [work.engine.int8_tops * 0.5e12 * share for share in efficiency.prefill]
            basis = f"roofline prior: {work.engine.int8_tops:.3g} INT8 TOPS, assumed shares"
        else:
            return UNKNOWN
        low, mid, high = (rate / (2 * active) for rate in rates)
        return Interval(low, mid, high, basis)


def ttft_ms(prefill: Interval, decode: Interval, prompt_tokens: int = PROMPT_TOKENS) -> Interval:
    """Time to the first token of a prompt, ms: the prompt's prefill plus one decode step."""
    if prefill.mid is None or prefill.low is None or prefill.high is None:
        return Interval(None, None, None, prefill.basis)
    step = 1e3 / decode.mid if decode.mid else 0.0

    def at(tps: float) -> float:
        return prompt_tokens / tps * 1e3 + step

    return Interval(
        at(prefill.high),
        at(prefill.mid),
        at(prefill.low),
        f"{prompt_tokens} prompt tokens at the predicted prefill speed",
    )
