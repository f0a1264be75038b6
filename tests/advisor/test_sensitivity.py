"""Which groups of tensors are lowered, given what each of them loses alone."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.sensitivity import Lowered, choose_mix

BASE = Lowered("", 1000, 0.004, 0.001)
GATE = Lowered("ffn_gate", 900, 0.006, 0.002)
UP = Lowered("ffn_up", 900, 0.014, 0.011)
EMBEDDING = Lowered("token_embd", 700, 0.034, 0.021)


def test_the_least_sensitive_group_goes_first() -> None:
    mix = choose_mix(BASE, [UP, EMBEDDING, GATE], 900)
    assert mix is not None
    assert mix.groups == ("ffn_gate",)
    assert mix.tensor_bytes == 900
    assert mix.kl_divergence == pytest.approx(0.006)
    assert mix.retention == pytest.approx(math.exp(-0.002))


def test_costs_and_savings_of_groups_add_up() -> None:
    mix = choose_mix(BASE, [UP, GATE, EMBEDDING], 800)
    assert mix is not None
    assert mix.groups == ("ffn_gate", "ffn_up")
    assert mix.kl_divergence == pytest.approx(0.004 + 0.002 + 0.010)
    assert mix.retention == pytest.approx(math.exp(-(0.001 + 0.001 + 0.010)))


def test_a_group_that_a_larger_one_makes_needless_is_left_out() -> None:
    large = Lowered("ffn_down", 500, 0.020, 0.01)
    mix = choose_mix(BASE, [GATE, large], 500)
    assert mix is not None
    assert mix.groups == ("ffn_down",)


def test_no_mix_where_every_group_lowered_is_still_too_large() -> None:
    assert choose_mix(BASE, [GATE, UP], 799) is None


def test_a_base_that_fits_is_left_as_it_is() -> None:
    mix = choose_mix(BASE, [GATE, UP], 1000)
    assert mix is not None
    assert mix.groups == ()
    assert mix.tensor_bytes == 1000


lowered = st.builds(
    Lowered,
    group=st.sampled_from("abcdefgh"),
    tensor_bytes=st.integers(500, 1100),
    kl_divergence=st.floats(0, 1),
    nll_increase=st.floats(-0.1, 1),
)


@given(st.lists(lowered, max_size=8, unique_by=lambda one: one.group), st.integers(0, 1100))
def test_a_mix_keeps_the_limit_and_no_group_of_it_is_needless(groups: list[Lowered], limit: int) -> None:
    mix = choose_mix(BASE, groups, limit)
    by_name = {one.group: one for one in groups}
    if mix is None:
        assert 1000 - sum(max(0, 1000 - one.tensor_bytes) for one in groups) > limit
        return
    assert mix.tensor_bytes == 1000 - sum(1000 - by_name[name].tensor_bytes for name in mix.groups)
    assert mix.tensor_bytes <= limit
    for name in mix.groups:
        assert mix.tensor_bytes + 1000 - by_name[name].tensor_bytes > limit
