"""The decision tree as data: read TOML rule files, check them, compile their conditions to closures.

A rule file holds `stage = "plan" | "static" | "fit" | "value"` and a list of `[[rule]]`:

    id      stable kebab-case name, shown with every reason and rejection
    node    the question that the rule answers (default: its id); of a node's rules the first that holds is taken
    when    a condition: {fact, op, value} or {all = [...]}, {any = [...]}, {not = {...}}; absent: always
    effect  what follows: plan stage `ask | note | warn | stop`, candidate stages `reject | warn | prefer | reason`
    text    the words shown, with {fact} placeholders
    change  (optional) what would have to differ: words, or a list of them of which those with known facts are shown
    weight  for `prefer`: what it adds to the score (negative: an objection)
    source  where the fact comes from

Facts are declared in facts.toml with a finite list of `values` or `type = "number" | "text"`. A comparison with an
unknown fact (None) is false, whatever the operator; `{fact, op = "known"}` asks for knowledge itself. Nothing is ever
evaluated as code. Stages run in the order above; files in the order of their names; rules as they are written.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from knowledge.base import AdvisorError

RULES_DIR = Path(__file__).parent / "rules"
STAGES = ("plan", "static", "fit", "value")
EFFECTS = {
    "plan": ("ask", "note", "warn", "stop"),
    "static": ("reject", "warn", "prefer", "reason"),
    "fit": ("reject", "warn", "prefer", "reason"),
    "value": ("reject", "warn", "prefer", "reason"),
}
_RULE_KEYS = {"id", "node", "when", "effect", "text", "change", "weight", "source"}
PLACEHOLDER = re.compile(r"\{([a-z_0-9]+)\}")
_SHARES = re.compile(r"_share$|^retention_|^memory_(?:ratio|limit)$")  # by name, as sizes are
_WAITS = ("ttft_mid", "max_ttft_ms")

Facts = Mapping[str, Any]
Test = Callable[[Facts], bool]


@dataclass(frozen=True, slots=True)
class Fact:
    """A declared fact: its finite `values`, or a number or text; `words` say what it is."""

    name: str
    type: str
    values: tuple[Any, ...]
    words: str


@dataclass(frozen=True, slots=True)
class Rule:
    """`facts` are those of its condition, `reads` those of its words too; `place` is its node's place in the tree."""

    id: str
    node: str
    stage: str
    when: Any
    effect: str
    text: str
    change: tuple[str, ...]
    weight: float
    source: str
    file: str
    test: Test
    facts: tuple[str, ...]
    reads: frozenset[str]
    place: tuple[int, int]


Nodes = tuple[tuple[str, tuple[Rule, ...]], ...]


@dataclass(frozen=True, slots=True, eq=False)
class RuleSet:
    """`nodes[stage]` lists (node, its rules) in order. Compared by identity: what follows from it is kept."""

    facts: Mapping[str, Fact]
    nodes: Mapping[str, Nodes]

    def rules(self) -> Iterable[Rule]:
        return (rule for stage in STAGES for _, rules in self.nodes[stage] for rule in rules)


_OPERATORS: dict[str, Callable[[Any], Callable[[Any], bool]]] = {
    "eq": lambda value: lambda fact: fact == value,
    "ne": lambda value: lambda fact: fact != value,
    "in": lambda value: lambda fact: fact in value,
    "not_in": lambda value: lambda fact: fact not in value,
    "lt": lambda value: lambda fact: fact < value,
    "le": lambda value: lambda fact: fact <= value,
    "gt": lambda value: lambda fact: fact > value,
    "ge": lambda value: lambda fact: fact >= value,
    "contains": lambda value: lambda fact: value in fact,
}


def compile_condition(when: Any, facts: Mapping[str, Fact], where: str, used: set[str]) -> Test:
    """The closure for a condition; adds the facts it reads to `used`. AdvisorError `bad-rule` names `where`."""
    if when is None:
        return lambda _: True
    if not isinstance(when, dict):
        raise _bad(where, "a condition is a table")
    for word, combine in (("all", _both), ("any", _either)):
        if word in when:
            if len(when) != 1 or not isinstance(when[word], list) or not when[word]:
                raise _bad(where, f"`{word}` holds a list of conditions and stands alone")
            return combine([compile_condition(part, facts, where, used) for part in when[word]])
    if "not" in when:
        inner = compile_condition(when["not"], facts, where, used)
        return lambda f: not inner(f)
    return _compile_leaf(when, facts, where, used)


def _both(tests: list[Test]) -> Test:
    first, *rest = tests
    if not rest:
        return first
    second = _both(rest)
    return lambda f: first(f) and second(f)


def _either(tests: list[Test]) -> Test:
    first, *rest = tests
    if not rest:
        return first
    second = _either(rest)
    return lambda f: first(f) or second(f)


def _compile_leaf(when: dict[str, Any], facts: Mapping[str, Fact], where: str, used: set[str]) -> Test:
    name, op = when.get("fact"), when.get("op", "eq")
    if not isinstance(name, str) or name not in facts:
        raise _bad(where, f"undefined fact {name!r}")
    if set(when) - {"fact", "op", "value", "other"}:
        raise _bad(where, f"unknown field {sorted(set(when) - {'fact', 'op', 'value', 'other'})[0]!r}")
    used.add(name)
    if op == "known":
        wanted = when.get("value", True)
        return lambda f: (f.get(name) is not None) is wanted
    if op not in _OPERATORS:
        raise _bad(where, f"unknown operator {op!r}")
    if other := when.get("other"):
        return _compile_pair(name, op, other, facts, where, used)
    if "value" not in when:
        raise _bad(where, "a comparison needs a value")
    value = when["value"]
    _check_value(facts[name], op, value, where)
    test = _OPERATORS[op](frozenset(value) if op in ("in", "not_in") else value)

    def leaf(f: Facts) -> bool:
        fact = f.get(name)
        return fact is not None and test(fact)

    return leaf


def _compile_pair(name: str, op: str, other: Any, facts: Mapping[str, Fact], where: str, used: set[str]) -> Test:
    """A comparison of two facts, false when either is unknown."""
    if other not in facts:
        raise _bad(where, f"undefined fact {other!r}")
    used.add(other)
    make = _OPERATORS[op]

    def leaf(f: Facts) -> bool:
        left, right = f.get(name), f.get(other)
        return left is not None and right is not None and make(right)(left)

    return leaf


def _check_value(fact: Fact, op: str, value: Any, where: str) -> None:
    values = value if op in ("in", "not_in") else [value]
    if op in ("in", "not_in") and not isinstance(value, list):
        raise _bad(where, f"`{op}` needs a list")
    for one in values:
        if fact.type == "values" and one not in fact.values:
            raise _bad(where, f"{one!r} is not a value of {fact.name}")
        if fact.type == "number" and (isinstance(one, bool) or not isinstance(one, int | float)):
            raise _bad(where, f"{fact.name} is a number, not {one!r}")


def _bad(where: str, what: str) -> AdvisorError:
    return AdvisorError(
        "bad-rule",
        f"Rule file {where}: {what}.",
        "correct the rule file; `advisor knowledge rules` shows what is loaded",
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise _bad(path.name, f"cannot be read: {error}") from error


def load_facts(path: Path = RULES_DIR / "facts.toml") -> dict[str, Fact]:
    facts = {}
    for name, row in _read(path).items():
        kind = "values" if "values" in row else row.get("type")
        if kind not in ("values", "number", "text") or not row.get("words"):
            raise _bad(f"{path.name}: {name}", "a fact has `words`, and `values` or a type number or text")
        facts[name] = Fact(name, kind, tuple(row.get("values", ())), row["words"])
    return facts


@lru_cache(maxsize=8)
def load_rules(extra: tuple[Path, ...] = ()) -> RuleSet:
    """The packaged rules, then those in the `extra` folders (a site's own policy). Errors name file, rule, field."""
    facts = load_facts()
    nodes: dict[str, dict[str, list[Rule]]] = {stage: {} for stage in STAGES}
    seen: dict[str, str] = {}
    places: dict[str, int] = {}
    folders = (RULES_DIR, *extra)
    for path in (p for folder in folders for p in sorted(folder.glob("*.toml")) if p.name != "facts.toml"):
        document = _read(path)
        stage = document.get("stage")
        if stage not in STAGES or set(document) - {"stage", "rule", "about"}:
            raise _bad(path.name, f"needs a `stage` of {', '.join(STAGES)} and [[rule]] entries only")
        for row in document.get("rule", []):
            rule = _rule(row, stage, path.name, facts, places)
            if rule.id in seen:
                raise _bad(f"{path.name}: {rule.id}", f"the id stands in {seen[rule.id]} already")
            seen[rule.id] = path.name
            nodes[stage].setdefault(rule.node, []).append(rule)
    return RuleSet(facts, {s: tuple((n, tuple(r)) for n, r in by_node.items()) for s, by_node in nodes.items()})


def _rule(row: Any, stage: str, file: str, facts: Mapping[str, Fact], places: dict[str, int]) -> Rule:
    where = f"{file}: {row.get('id', '?') if isinstance(row, dict) else '?'}"
    if not isinstance(row, dict) or not isinstance(row.get("id"), str):
        raise _bad(where, "every [[rule]] has an id")
    if unknown := set(row) - _RULE_KEYS:
        raise _bad(where, f"unknown field {sorted(unknown)[0]!r}")
    for key in ("effect", "text", "source"):
        if not isinstance(row.get(key), str) or not row[key].strip():
            raise _bad(where, f"`{key}` is missing")
    if row["effect"] not in EFFECTS[stage]:
        raise _bad(where, f"effect {row['effect']!r} is not one of {', '.join(EFFECTS[stage])}")
    weight = row.get("weight", 0.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or abs(weight) > 1:
        raise _bad(where, "`weight` is a number from -1 to 1")
    change = row.get("change", [])
    change = (change,) if isinstance(change, str) else tuple(change) if isinstance(change, list) else (None,)
    if not all(isinstance(words, str) for words in change):
        raise _bad(where, "`change` is a text or a list of texts")
    for name in PLACEHOLDER.findall(" ".join((row["text"], *change))):
        if name not in facts:
            raise _bad(where, f"the text names an undefined fact {name!r}")
    used: set[str] = set()
    test = compile_condition(row.get("when"), facts, where, used)
    node, reads = str(row.get("node", row["id"])), used.union(PLACEHOLDER.findall(row["text"]))
    place = STAGES.index(stage), places.setdefault(f"{stage} {node}", len(places))
    return Rule(
        row["id"], node, stage, row.get("when"), row["effect"], row["text"], change, float(weight), row["source"], file,
        test, tuple(sorted(used)), frozenset(reads), place,
    )  # fmt: skip


def fill(text: str, facts: Facts) -> str:
    """`text` with {fact} replaced by the fact's words; unknown ones read `unknown`."""
    return PLACEHOLDER.sub(lambda m: words_for(m[1], facts.get(m[1])), text) if "{" in text else text


def fill_known(texts: Iterable[str], facts: Facts) -> str:
    """Those of `texts` whose facts are all known, filled and joined by `or`."""
    known = (text for text in texts if all(facts.get(name) is not None for name in PLACEHOLDER.findall(text)))
    return ", or ".join(fill(text, facts) for text in known)


def words_for(name: str, value: Any) -> str:
    """A fact's value for people: bytes in GiB, shares in per cent, waits in ms or s, numbers short, lists joined."""
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name.endswith("_bytes"):
        return f"{value / 2**30:.2f} GiB" if value >= 2**28 else f"{value / 2**20:.0f} MiB"
    if _SHARES.search(name):
        return f"{100 * value:.3g} %"
    if name in _WAITS:
        return f"{value:,.0f} ms" if value < 10_000 else f"{value / 1000:,.0f} s"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    if isinstance(value, tuple | list | frozenset | set):
        return ", ".join(sorted(map(str, value)))
    return str(value)


def describe(when: Any) -> str:
    """A condition in words, for the trace and `advisor knowledge rules`."""
    if when is None:
        return "always"
    for word in ("all", "any"):
        if word in when:
            joined = (" and " if word == "all" else " or ").join(describe(part) for part in when[word])
            return f"({joined})" if len(when[word]) > 1 else joined
    if "not" in when:
        return f"not {describe(when['not'])}"
    op, value = when.get("op", "eq"), when.get("value")
    if op == "known":
        return f"{when['fact']} is {'known' if when.get('value', True) else 'unknown'}"
    signs = {"eq": "=", "ne": "is not", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "not_in": "not in"}
    alone = words_for(when["fact"], value) if _SHARES.search(when["fact"]) and value is not None else value
    right = when.get("other") or (", ".join(map(str, value)) if isinstance(value, list) else alone)
    return f"{when['fact']} {signs.get(op, op)} {right}"
