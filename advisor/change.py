"""What would have to change for a rejected option to live, computed by asking again: facts for the rules' `change`.

Only what is shown is asked for: an option that lost costs nothing until somebody reads why.
"""

from __future__ import annotations

import math

from advisor.candidates import Option
from advisor.constraints import Constraints
from advisor.judging import Lost, needs_of
from advisor.walk import Facts
from knowledge.matrix import architecture_served, load_frameworks
from knowledge.precisions import load_precisions
from knowledge.records import ModelSpec, Precision
from knowledge.weights import undividable_row

_STEP = 256
_SHORTEST = 512  # tokens: less is no conversation


def change_of(lost: Lost, request: Constraints) -> str:
    """What would have to differ, in words; empty where nothing is known to help."""
    return lost.taken.change(_found_out(lost, request))


def _found_out(lost: Lost, request: Constraints) -> Facts:
    reads = "".join(lost.taken.rule.change)
    option, size = lost.option, lost.size
    facts: Facts = {}
    if option and size and "{fitting_" in reads:
        facts["fitting_context"] = _fitting_context(option, request, size.budget.bytes)
        facts["fitting_kv"] = _fitting_kv(option, request, size.budget.bytes)
    if option and "{dividing_precision}" in reads:
        facts["dividing_precision"] = _dividing(option.spec, option.precision)
    if "{serving_framework}" in reads:
        names = (framework.name for framework in load_frameworks())
        loads = (name for name in names if architecture_served(lost.spec.architecture, name, "") == "yes")
        facts["serving_framework"] = next(loads, None)
    if "{allowed_loss_pct}" in reads and (low := lost.taken.facts.get("retention_low")) is not None:
        facts["allowed_loss_pct"] = math.ceil((1 - low) * 1000) / 10
    if (tps := lost.taken.facts.get("decode_mid")) is not None:
        facts["reachable_tps"] = math.floor(10 * tps) / 10
    if (ttft := lost.taken.facts.get("ttft_mid")) is not None:
        facts["reachable_ttft_ms"] = math.ceil(ttft)
    return facts


def _fitting_context(option: Option, request: Constraints, usable: int) -> int | None:
    """The longest context, in steps of 256 tokens, at which the option fits `usable` bytes; None below 512."""

    def fits(steps: int) -> bool:
        return _total(option, request, steps * _STEP, request.kv_cache or "f16") <= usable

    low, high = _SHORTEST // _STEP, option.context // _STEP
    if high <= low or not fits(low):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low * _STEP


def _fitting_kv(option: Option, request: Constraints, usable: int) -> str | None:
    """The first smaller type of the key-value cache at which the option fits."""
    smaller = {"f16": ("q8_0", "q4_0"), "q8_0": ("q4_0",), "q4_0": ()}[request.kv_cache or "f16"]
    served = (kind for kind in smaller if kind in option.place.limit.kv_types)
    return next((kind for kind in served if _total(option, request, option.context, kind) <= usable), None)


def _total(option: Option, request: Constraints, context: int, kv_type: str) -> int:
    backend = option.backend
    _, need, *_ = needs_of(
        option.spec, option.precision, backend.framework, backend.backend, context, request.concurrency, kv_type
    )
    return need.total_bytes


def _dividing(spec: ModelSpec, precision: Precision) -> str | None:
    """The precision of as many bits, with the largest group, that divides the model's rows."""
    same = [
        p
        for p in load_precisions()
        if p.framework == precision.framework and p.nominal_bits == precision.nominal_bits and not p.native_only
    ]
    fitting = [p for p in same if undividable_row(spec, p) is None]
    if not fitting:
        return None
    return max(fitting, key=lambda p: (p.symmetric == precision.symmetric, p.group_size, p.name)).name
