"""The walk through the rules by levels takes the same rules as one walk with all facts at once."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from advisor.walk import CANDIDATE_STAGES, first_level, first_of, in_order
from knowledge.rules import Fact, load_rules

RULES = load_rules()
READ = sorted({name for rule in RULES.rules() if rule.stage != "plan" for name in rule.facts})


def values(fact: Fact) -> st.SearchStrategy[Any]:
    """Values that tell the conditions of the packaged rules apart, unknown among them."""
    if fact.values:
        return st.sampled_from([None, *fact.values])
    if fact.type == "number":
        return st.one_of(st.none(), st.sampled_from([0, 0.5, 0.9, 0.96, 1, 2, 4, 6, 20, 4096, 2**33]))
    return st.sampled_from([None, "openvino-npu", "openvino-gpu", "qnn", "vitisai", "cpu", "x"])


facts = st.fixed_dictionaries({name: values(RULES.facts[name]) for name in READ})


@given(facts, st.lists(st.integers(0, 3), min_size=len(READ), max_size=len(READ)))
def test_levels_take_what_one_walk_takes(known: dict[str, Any], level_of: list[int]) -> None:
    parts: list[dict[str, Any]] = [{}, {}, {}, {}]
    for name, level in zip(READ, level_of, strict=True):
        parts[level][name] = known[name]
    level = first_level(RULES, parts[0]).deeper(parts[1])
    level = level.deeper(parts[2])
    level = level.last(parts[3])
    whole = [taken for stage in CANDIDATE_STAGES for taken in first_of(RULES.nodes[stage], known)]
    rejecting = {t.rule.id for t in whole if t.rule.effect == "reject"}
    if rejecting:
        assert level.rejected or any(t.rule.effect == "reject" for t in level.taken)
    else:
        assert [t.rule.id for t in in_order(level.taken)] == [t.rule.id for t in in_order(whole)]


@given(facts)
def test_a_rejection_is_the_last_rule_taken_of_its_level(known: dict[str, Any]) -> None:
    taken = first_level(RULES, {}).last(known).taken
    rejecting = [number for number, one in enumerate(taken) if one.rule.effect == "reject"]
    assert rejecting in ([], [len(taken) - 1])
