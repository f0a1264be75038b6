"""The decision tree as a graph: every rule is in it, every way ends, a plan takes one way, the text is well formed."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from advisor.constraints import Constraints
from advisor.decide import make_plan
from knowledge.rule_graph import GOAL, START, Graph, dot, graph_of, mermaid, path_of
from knowledge.rules import load_rules
from probes.declared import declared_profile

GRAPH = graph_of(load_rules())
REQUESTS: list[dict[str, Any]] = [
    {"ram_bytes": 16 * 2**30, "os": "linux"},
    {"ram_bytes": 8 * 2**30, "target": "npu"},
    {"ram_bytes": 8 * 2**30, "target": "npu", "vendor": "amd", "os": "windows"},
    {"ram_bytes": 64 * 2**30, "chip": "RTX 4090", "os": "linux", "priority": "speed"},
]


def test_every_rule_is_in_the_graph_once() -> None:
    count = Counter(node.id for node in GRAPH.nodes)
    assert all(count[rule.id] == 1 for rule in load_rules().rules())
    assert max(count.values()) == 1


def test_every_edge_joins_nodes_and_every_way_ends() -> None:
    nodes = {node.id for node in GRAPH.nodes}
    assert {edge.source for edge in GRAPH.edges} | {edge.target for edge in GRAPH.edges} == nodes
    ends = nodes - {edge.source for edge in GRAPH.edges}
    assert {node.kind for node in GRAPH.nodes if node.id in ends} == {"end"}


def test_a_rejection_goes_nowhere_but_to_its_end() -> None:
    rejecting = {rule.id for rule in load_rules().rules() if rule.effect == "reject"}
    assert {edge.target for edge in GRAPH.edges if edge.source in rejecting} == {"reject"}


def test_the_tree_is_told_from_the_request_to_what_moves_the_order() -> None:
    told = list(dict.fromkeys(node.group for node in GRAPH.nodes if node.group))
    topics = iter([name.partition("-")[2].removesuffix(".toml") for name in told])
    order = ["request", "platform", "format", "memory", "floors", "licence", "disk", "power", "preference"]
    assert all(topic in topics for topic in order)


@pytest.mark.parametrize("request_", REQUESTS, ids=str)
def test_the_path_of_a_plan_is_one_way_through_the_rules_of_its_trace(request_: dict[str, Any]) -> None:
    fields = ("ram_bytes", "chip", "os", "target", "vendor")
    profile = declared_profile(**{key: request_[key] for key in fields if key in request_})
    plan = make_plan(Constraints(**request_), profile, None)
    path = path_of(GRAPH, plan["trace"])
    assert {entry["branch"] for entry in plan["trace"]} <= path.nodes
    assert START in path.nodes
    assert ("ask" if plan["status"] == "needs_input" else GOAL) in path.nodes
    assert len(path.edges) == len(path.nodes) - 1
    assert max(Counter(source for source, _ in path.edges).values()) == 1
    assert path.edges <= {(edge.source, edge.target) for edge in GRAPH.edges}


def assert_mermaid(text: str, graph: Graph) -> None:
    """By structure: one header, balanced subgraphs, each node declared once, edges between declared nodes."""
    first, *lines = text.splitlines()
    assert first == "flowchart TD"
    declared: list[str] = []
    depth = 0
    for line in (line.strip() for line in lines):
        assert line.count('"') % 2 == 0
        if line.startswith("subgraph "):
            assert re.fullmatch(r'subgraph g\w+\["[^"]*"\]', line)
            depth += 1
        elif line == "end":
            depth -= 1
        elif node := re.fullmatch(r'(n\d+)(?:\["[^"]*"\]|\{"[^"]*"\})', line):
            declared.append(node[1])
        elif edge := re.fullmatch(r'(n\d+) -->(?:\|"[^"]*"\|)? (n\d+)', line):
            assert {edge[1], edge[2]} <= set(declared)
        else:
            assert re.fullmatch(r"classDef \w+ [\w:#,-]+|class n\d+(,n\d+)* \w+", line), line
    assert depth == 0
    assert len(declared) == len(set(declared)) == len(graph.nodes)


def test_mermaid_is_well_formed_with_a_path_and_without() -> None:
    assert_mermaid(mermaid(GRAPH), GRAPH)
    plan = make_plan(Constraints(ram_bytes=2**33), declared_profile(ram_bytes=2**33), None)
    lit = mermaid(GRAPH, path_of(GRAPH, plan["trace"]))
    assert_mermaid(lit, GRAPH)
    assert lit.count(" taken\n") == 1


def test_dot_is_balanced_and_quoted() -> None:
    text = dot(GRAPH)
    outside = re.sub(r'"(?:[^"\\]|\\.)*"', '""', text)
    assert outside.count("{") == outside.count("}") == 1 + len({n.group for n in GRAPH.nodes if n.group})
    assert outside.count('"') % 2 == 0
    assert len(re.findall(r"(?m)^  n\d+ -> n\d+", outside)) == len(GRAPH.edges)


def test_text_from_a_rule_cannot_steer_the_drawing(tmp_path: Path) -> None:
    (tmp_path / "90-site.toml").write_text(
        'stage = "static"\n[[rule]]\nid = "site.x"\neffect = "warn"\nsource = "s"\n'
        'text = "a\\" ]; end <b>#quot; `x` \\\\ b."\nwhen = { fact = "engine", value = "gpu" }\n',
        encoding="utf-8",
    )
    graph = graph_of(load_rules((tmp_path,)))
    assert_mermaid(mermaid(graph), graph)
    assert "<b>" not in mermaid(graph)
