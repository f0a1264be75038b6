"""A mix of tensor types from measurements: which groups of tensors to lower so that a model fits a share of its bytes.

Each group was lowered alone and compared with the 16-bit reference. Divergences of groups add up, about, while they are
small; so groups are lowered in order of what they cost per byte saved. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

GROUPS = ("token_embd", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
BASE, LOWER = "Q8_0", "Q5_0"
LARGEST_PARAMS_B = 1.5  # as rule precision.mix-size: larger models keep enough in a plain type


@dataclass(frozen=True, slots=True)
class Lowered:
    """The base with the tensors of `group` lowered, or, with no group, the base itself.

    `kl_divergence` is the mean against the reference in nats, `nll_increase` the mean increase of a token's negative
    log-probability, `tensor_bytes` the whole model's.
    """

    group: str
    tensor_bytes: int
    kl_divergence: float
    nll_increase: float


@dataclass(frozen=True, slots=True)
class Mix:
    """The groups to lower, least sensitive first, and what is expected of them together."""

    groups: tuple[str, ...]
    tensor_bytes: int
    kl_divergence: float
    retention: float


def choose_mix(base: Lowered, lowered: Sequence[Lowered], limit_bytes: float) -> Mix | None:
    """The groups whose lowering brings the model to at most `limit_bytes`, at the least divergence per byte saved.

    Groups that turn out not to be needed, once a larger one is in, are left out again. None where lowering every group
    is not enough. A base that fits already is its own mix.
    """
    saving = [one for one in lowered if one.tensor_bytes < base.tensor_bytes]
    chosen: list[Lowered] = []
    for one in sorted(saving, key=lambda one: (_cost_per_byte(base, one), one.group)):
        if _bytes(base, chosen) <= limit_bytes:
            break
        chosen.append(one)
    if _bytes(base, chosen) > limit_bytes:
        return None
    for one in sorted(chosen, key=lambda one: (-_cost(base, one), one.group)):
        rest = [other for other in chosen if other is not one]
        if _bytes(base, rest) <= limit_bytes:
            chosen = rest
    increase = base.nll_increase + math.fsum(one.nll_increase - base.nll_increase for one in chosen)
    return Mix(
        groups=tuple(one.group for one in chosen),
        tensor_bytes=_bytes(base, chosen),
        kl_divergence=base.kl_divergence + math.fsum(_cost(base, one) for one in chosen),
        retention=math.exp(-max(increase, -1.0)),
    )


def _bytes(base: Lowered, chosen: Sequence[Lowered]) -> int:
    return base.tensor_bytes - sum(base.tensor_bytes - one.tensor_bytes for one in chosen)


def _cost(base: Lowered, one: Lowered) -> float:
    return max(0.0, one.kl_divergence - base.kl_divergence)


def _cost_per_byte(base: Lowered, one: Lowered) -> float:
    return _cost(base, one) / (base.tensor_bytes - one.tensor_bytes)
