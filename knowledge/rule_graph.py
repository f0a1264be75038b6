"""The decision tree as a graph: questions, their rules, and the way from one to the next; with the path of a plan.

Every node of the rules is a question; its rules are the answers. A rejection, a question back and a stop end the way,
everything else leads to the next question, and so does no answer at all. Pure: rules and a trace in, records or text
out.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from knowledge.rules import STAGES, Rule, RuleSet, describe

ENDS = {"reject": "rejected", "ask": "a question back", "stop": "nothing feasible"}
START, GOAL = "start", "ranked"
_WIDTH = 38


@dataclass(frozen=True, slots=True)
class Node:
    """`kind` is question, the effect of a rule, start, or end. `group` is the rule file that it stands in."""

    id: str
    kind: str
    label: str
    group: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class Edge:
    """`label` is the condition, empty where there is none, `otherwise` where no rule of the question holds."""

    source: str
    target: str
    label: str = ""


@dataclass(frozen=True, slots=True)
class Graph:
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]

    def as_json(self) -> dict[str, Any]:
        return {"nodes": [asdict(node) for node in self.nodes], "edges": [asdict(edge) for edge in self.edges]}


@dataclass(frozen=True, slots=True)
class Path:
    """The ids of the nodes on a way through the graph, and its edges as (source, target)."""

    nodes: frozenset[str]
    edges: frozenset[tuple[str, str]]


def graph_of(rules: RuleSet) -> Graph:
    """The whole tree, in the order in which it is told: by rule file, then as written."""
    nodes, edges = [Node(START, "start", "a request and a machine")], []
    groups = _groups(rules)
    following = [*[question for question, _ in groups[1:]], GOAL]
    edges.append(Edge(START, groups[0][0]))
    for (question, group), after in zip(groups, following, strict=True):
        first = group[0]
        nodes.append(Node(question, "question", first.node.replace("-", " ").replace(".", ": "), first.file))
        for rule in group:
            nodes.append(Node(rule.id, rule.effect, rule.text, rule.file, rule.source))
            edges.append(Edge(question, rule.id, describe(rule.when)))
            edges.append(Edge(rule.id, rule.effect if rule.effect in ENDS else after))
        if all(rule.when is not None for rule in group):
            edges.append(Edge(question, after, "otherwise"))
    used = {edge.target for edge in edges}
    nodes += [Node(effect, "end", words) for effect, words in ENDS.items() if effect in used]
    return Graph((*nodes, Node(GOAL, "end", "scored, compared and ranked")), tuple(edges))


def _groups(rules: RuleSet) -> list[tuple[str, tuple[Rule, ...]]]:
    """The questions by their place in the files; an id of its own for each, as a rule may be named like its node."""
    found = [(f"{stage}/{node}", group) for stage in STAGES for node, group in rules.nodes[stage]]
    return sorted(found, key=lambda item: (item[1][0].stage != "plan", item[1][0].file))


def path_of(graph: Graph, trace: Iterable[Mapping[str, str]]) -> Path:
    """The way that a plan's `trace` took: of every question the rule in the trace, or the way past it."""
    taken = {entry["branch"] for entry in trace}
    kinds = {node.id: node.kind for node in graph.nodes}
    after: dict[str, list[Edge]] = {}
    for edge in graph.edges:
        after.setdefault(edge.source, []).append(edge)
    nodes, edges, here = {START}, set(), START
    while ways := after.get(here):
        rules = [edge for edge in ways if edge.target in taken and kinds[here] == "question"]
        past = [edge for edge in ways if kinds[edge.target] in ("question", "end")]
        if not (rules or past):
            break
        step = (rules or past)[0]
        edges.add((step.source, step.target))
        nodes.add(step.target)
        here = step.target
    return Path(frozenset(nodes), frozenset(edges))


# ---- as text for other programs


def mermaid(graph: Graph, path: Path | None = None) -> str:
    """A Mermaid flowchart; what lies on `path` has the class `taken`."""
    names = {node.id: f"n{number}" for number, node in enumerate(graph.nodes)}
    lines = ["flowchart TD"]
    for group, nodes in _by_group(graph):
        lines += [f'  subgraph {_word(group)}["{_quoted(group)}"]'] if group else []
        lines += [f"  {_mermaid_node(names[node.id], node)}" for node in nodes]
        lines += ["  end"] if group else []
    for edge in graph.edges:
        label = f'|"{_quoted(_wrapped(edge.label))}"|' if edge.label else ""
        lines.append(f"  {names[edge.source]} -->{label} {names[edge.target]}")
    for kind, style in _COLOURS.items():
        if members := [names[node.id] for node in graph.nodes if node.kind == kind]:
            lines += [f"  classDef {kind} fill:{style}", f"  class {','.join(members)} {kind}"]
    if path is not None:
        lines += [
            "  classDef taken stroke-width:4px",
            f"  class {','.join(names[n] for n in names if n in path.nodes)} taken",
        ]
    return "\n".join(lines) + "\n"


_COLOURS = {"reject": "#f8d7da", "warn": "#fff3cd", "prefer": "#d1ecf1", "reason": "#d4edda", "ask": "#e2d9f3"}


def _mermaid_node(name: str, node: Node) -> str:
    label = _quoted(_wrapped(_label(node)))
    return f'{name}{{"{label}"}}' if node.kind == "question" else f'{name}["{label}"]'


def _quoted(text: str) -> str:
    """Text within Mermaid's double quotes: entities for what would end or steer it."""
    return re.sub(r"[\"#;<>`\\]", lambda m: f"#{ord(m[0])};", text).replace("\n", "<br/>")


def dot(graph: Graph, path: Path | None = None) -> str:
    """A Graphviz digraph; what lies on `path` is drawn bold."""
    names = {node.id: f"n{number}" for number, node in enumerate(graph.nodes)}
    lines = ["digraph rules {", "  node [shape=box, style=filled, fillcolor=white];"]
    for group, nodes in _by_group(graph):
        lines += [f"  subgraph cluster_{_word(group)} {{", f"    label={_dot_text(group)};"] if group else []
        for node in nodes:
            shape = "diamond" if node.kind == "question" else "box"
            bold = ", penwidth=3" if path and node.id in path.nodes else ""
            colour = f', fillcolor="{_COLOURS[node.kind]}"' if node.kind in _COLOURS else ""
            lines.append(
                f"    {names[node.id]} [label={_dot_text(_wrapped(_label(node)))}, shape={shape}{colour}{bold}];"
            )
        lines += ["  }"] if group else []
    for edge in graph.edges:
        label = f" [label={_dot_text(_wrapped(edge.label))}]" if edge.label else ""
        lines.append(f"  {names[edge.source]} -> {names[edge.target]}{label};")
    return "\n".join([*lines, "}"]) + "\n"


FORMS: dict[str, Callable[[Graph], str]] = {"mermaid": mermaid, "dot": dot}


def _dot_text(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _label(node: Node) -> str:
    return f"{node.kind} {node.id}\n{node.label}" if node.kind not in ("question", "start", "end") else node.label


def _wrapped(text: str) -> str:
    return "\n".join(part for line in text.splitlines() for part in textwrap.wrap(line, _WIDTH))


def _word(text: str) -> str:
    return "g" + re.sub(r"\W", "_", text.removesuffix(".toml"))


def _by_group(graph: Graph) -> list[tuple[str, list[Node]]]:
    groups: dict[str, list[Node]] = {}
    for node in graph.nodes:
        groups.setdefault(node.group, []).append(node)
    return list(groups.items())
