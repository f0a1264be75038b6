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

from knowledge.rules import Nodes, Rule, RuleSet, describe, fill, fill_known, words_for

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


def ended_by(taken: Sequence[Taken]) -> Taken | None:
    """The rejection that ended a walk, if one did."""
    return taken[-1] if taken and taken[-1].rule.effect == "reject" else None


Names = frozenset[str]


@lru_cache(maxsize=256)
def open_nodes(rules: RuleSet, stage: str, known: Names | None) -> Nodes:
    """The nodes of a stage that read more than the `known` facts (None: all nodes)."""
    nodes = rules.nodes[stage]
    return nodes if known is None else tuple(n for n in nodes if not all(rule.reads <= known for rule in n[1]))


@lru_cache(maxsize=256)
def newly_decided(rules: RuleSet, stage: str, before: Names | None, known: Names) -> Nodes:
    """The nodes of a stage that `known` facts decide and those known `before` did not."""
    still_open = {node for node, _ in open_nodes(rules, stage, known)}
    return tuple(n for n in open_nodes(rules, stage, before) if n[0] not in still_open)


@dataclass(frozen=True, slots=True)
class Level:
    """Facts that many options share, their `names`, and the rules that they take in the candidate stages."""

    rules: RuleSet
    facts: Facts
    names: Names | None = None
    taken: tuple[Taken, ...] = ()

    @property
    def rejected(self) -> Taken | None:
        return ended_by(self.taken)

    def deeper(self, facts: Facts) -> Level:
        """The level below: `facts` are its own, those of this level among them."""
        names = frozenset(facts)
        taken = list(self.taken)
        for stage in CANDIDATE_STAGES:
            taken += first_of(newly_decided(self.rules, stage, self.names, names), facts)
            if ended_by(taken):
                break
        return Level(self.rules, facts, names, tuple(taken))

    def walk(self, stage: str, facts: Facts) -> list[Taken]:
        """The rules taken of what this level left open in a stage; `facts` are all facts by now."""
        return first_of(open_nodes(self.rules, stage, self.names), facts)


def in_order(taken: Iterable[Taken]) -> list[Taken]:
    """The path as the tree has it."""
    return sorted(taken, key=lambda t: t.rule.place)
