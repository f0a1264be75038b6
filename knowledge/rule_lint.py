"""The lint of the rules: what loading cannot see. Run by the tests over the packaged rules and by `advisor doctor` over
those of a site."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from knowledge.rules import PLACEHOLDER, STAGES, Fact, Rule, RuleSet

_LIMIT = 200_000  # assignments tried per node


def lint(rules: RuleSet) -> list[str]:
    """Problems that loading cannot see: a rule of a node that can never be taken, two rules of a node that hold at once
    with different effects, declared facts that nothing uses. Empty when the rules are clean."""
    problems = []
    for stage in STAGES:
        for node, group in rules.nodes[stage]:
            if len(group) > 1:
                problems += _lint_node(node, group, rules.facts)
            elif group[0].when is not None and not _reachable(group[0], rules.facts):
                problems.append(f"{group[0].file}: {group[0].id}: its condition never holds")
    used = {fact for rule in rules.rules() for fact in rule.facts}
    used |= {name for rule in rules.rules() for name in PLACEHOLDER.findall(" ".join((rule.text, *rule.change)))}
    problems += [f"facts.toml: {name}: no rule uses it" for name in rules.facts if name not in used]
    return problems


def _reachable(rule: Rule, facts: Mapping[str, Fact]) -> bool:
    return any(rule.test(point) for point in _points([rule], facts))


def _lint_node(node: str, group: tuple[Rule, ...], facts: Mapping[str, Fact]) -> list[str]:
    first: set[str] = set()
    overlaps: dict[tuple[str, str], None] = {}
    for point in _points(group, facts):
        holding = [rule for rule in group if rule.test(point)]
        if not holding:
            continue
        first.add(holding[0].id)
        for other in holding[1:]:
            if other.effect != holding[0].effect and other.when is not None:
                overlaps[holding[0].id, other.id] = None
    problems = [
        f"{r.file}: {r.id}: never taken, earlier rules of node {node} cover it" for r in group if r.id not in first
    ]
    return problems + [f"node {node}: {a} and {b} hold at once with different effects" for a, b in overlaps]


def _points(group: Iterable[Rule], facts: Mapping[str, Fact]) -> Iterable[dict[str, Any]]:
    """Assignments that tell the group's conditions apart: every value of finite facts, both sides of each threshold."""
    constants: dict[str, set[Any]] = {}
    pairs: set[str] = set()
    for rule in group:
        _collect(rule.when, constants, pairs)
    shared = {1.0, 1e12} | {v for name in pairs for v in constants[name] if isinstance(v, int | float)}
    axes = []
    for name, values in constants.items():
        fact = facts[name]
        axis: list[Any] = [None]
        if fact.type == "values":
            axis += fact.values
        elif fact.type == "number" or name in pairs:
            numbers = sorted({v for v in values if isinstance(v, int | float)} | (shared if name in pairs else {1.0}))
            axis += [x for v in numbers for x in (v - 1e-6 * max(1.0, abs(v)), v, v + 1e-6 * max(1.0, abs(v)))]
        else:
            axis += [*sorted(values, key=str), "\N{BULLET}other"]
        axes.append([(name, value) for value in axis])
    for count, point in enumerate(itertools.product(*axes)):
        if count > _LIMIT:
            return
        yield dict(point)


def _collect(when: Any, constants: dict[str, set[Any]], pairs: set[str]) -> None:
    if when is None:
        return
    for word in ("all", "any"):
        for part in when.get(word, ()):
            _collect(part, constants, pairs)
    if "not" in when:
        _collect(when["not"], constants, pairs)
    if "fact" in when:
        value = when.get("value")
        values = value if isinstance(value, list) else [] if value is None or when.get("op") == "known" else [value]
        constants.setdefault(when["fact"], set()).update(values)
        if other := when.get("other"):
            constants.setdefault(other, set())
            pairs |= {when["fact"], other}
