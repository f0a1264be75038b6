"""The walk through the rules: which rule of every node is taken, for facts that become known level by level.

Facts are flat dictionaries over the names of knowledge/rules/facts.toml. What the facts of a level decide (a backend, a
model on it) is decided once there and holds for everything below, so that an option only asks what is left. Knows
nothing of models or machines.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from knowledge.rules import Nodes, Rule, RuleSet, compile_condition, describe, fill, fill_known, words_for

Facts = dict[str, Any]
CANDIDATE_STAGES = ("static", "fit", "value")
_ENDING = ("reject", "ask", "stop")


@dataclass(frozen=True, slots=True)
class Taken:
    """A rule that was taken, over the facts it was taken on; its words are filled in when they are read."""

    rule: Rule
    facts: Facts

    @property
    def text(self) -> str:
        return fill(self.rule.text, self.facts)

    def change(self, more: Facts | None = None) -> str:
        """What would have to differ; `more` are facts that were found out for that."""
        return fill_known(self.rule.change, self.facts | more if more else self.facts)

    def trace(self) -> dict[str, str]:
        """The step of the path, as the document shows it."""
        rule = self.rule
        value = ", ".join(f"{name} = {words_for(name, self.facts.get(name))}" for name in rule.facts) or "always"
        return {"node": rule.node, "condition": describe(rule.when), "value": value, "branch": rule.id}


def first_of(nodes: Nodes, facts: Facts) -> list[Taken]:
    """Of each node the first rule that holds; a rejection, a question or a stop ends it."""
    taken: list[Taken] = []
    for _, group in nodes:
        for rule in group:
            if rule.test(facts):
                taken.append(Taken(rule, facts))
                if rule.effect in _ENDING:
                    return taken
                break
    return taken


def with_effect(taken: Sequence[Taken], effect: str) -> Taken | None:
    return next((t for t in taken if t.rule.effect == effect), None)


@dataclass(frozen=True, slots=True, eq=False)
class Open:
    """Nodes that are not decided yet, in order, and the names of the facts that are known by now. Compared by identity:
    what follows from it is kept."""

    rules: RuleSet
    nodes: Nodes
    names: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Level:
    """Facts that many options share, the rules that they take, and the nodes that they leave open."""

    facts: Facts
    taken: tuple[Taken, ...]
    open: Open

    @property
    def rejected(self) -> Taken | None:
        return self.taken[-1] if self.taken and self.taken[-1].rule.effect == "reject" else None

    def deeper(self, more: Facts) -> Level:
        """The level below, where `more` facts are known: takes what they decide, up to the first rejection."""
        decided, left = _split(self.open, tuple(more))
        facts = self.facts | more
        return Level(facts, (*self.taken, *first_of(decided, facts)), left)

    def last(self, more: Facts) -> Level:
        """The lowest level: what is open is decided with `more` facts, and those never known are unknown."""
        facts = self.facts | more
        return Level(facts, (*self.taken, *first_of(self.open.nodes, facts)), self.open)


def first_level(rules: RuleSet, facts: Facts) -> Level:
    """The level that many machines and models share: rules that its facts rule out are not looked at again below."""
    decided, left = _split(_all(rules), tuple(facts))
    asked = _conditions(left)
    return Level(facts, tuple(first_of(decided, facts)), _living(left, tuple(facts[name] for name in asked)))


@lru_cache(maxsize=8)
def _all(rules: RuleSet) -> Open:
    return Open(rules, tuple(node for stage in CANDIDATE_STAGES for node in rules.nodes[stage]))


@lru_cache(maxsize=4096)
def _split(before: Open, more: tuple[str, ...]) -> tuple[Nodes, Open]:
    """The nodes that facts of the names `more` decide, besides those known before, and what they leave open."""
    names = before.names.union(more)
    decided, left = (
        tuple(node for node in before.nodes if all(rule.reads <= names for rule in node[1]) is early)
        for early in (True, False)
    )
    return decided, Open(before.rules, left, names)


@lru_cache(maxsize=64)
def _conditions(left: Open) -> tuple[str, ...]:
    """The known facts that open conditions read, of those with few values: many machines have the same."""
    read = {name for _, group in left.nodes for rule in group for name in rule.facts} & left.names
    return tuple(sorted(name for name in read if left.rules.facts[name].values or name == "backend"))


@lru_cache(maxsize=1024)
def _living(left: Open, values: tuple[Any, ...]) -> Open:
    """`left` without the rules that known facts of these `values` rule out, whatever the others will be."""
    known = dict(zip(_conditions(left), values, strict=True))
    alive = (
        (node, tuple(rule for rule in group if _may_hold(rule.when, known, left.rules))) for node, group in left.nodes
    )
    return Open(left.rules, tuple(node for node in alive if node[1]), left.names)


def _may_hold(when: Any, known: Facts, rules: RuleSet) -> bool:
    """False where the `known` facts alone make a condition false."""
    if when is None or "not" in when:
        return True
    if "all" in when:
        return all(_may_hold(part, known, rules) for part in when["all"])
    if "any" in when:
        return any(_may_hold(part, known, rules) for part in when["any"])
    names = {when["fact"], when.get("other", when["fact"])}
    if names <= known.keys():
        return compile_condition(when, rules.facts, when["fact"], set())(known)
    return when.get("op") == "known" or all(known[name] is not None for name in names & known.keys())


def in_order(taken: Iterable[Taken]) -> list[Taken]:
    """The path as the tree has it."""
    return sorted(taken, key=lambda t: t.rule.place)
