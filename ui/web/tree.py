"""The decision tree as the page draws it: the path of a plan lit, every other answer a click away.

The questions stand in the order in which they are asked. Of each, the answer that was taken is lit; answers that ruled
options out say how many, and open to what they said; questions that had nothing to say about this plan are one line.
"""

from __future__ import annotations

from typing import Any

from knowledge.rule_graph import Graph, Node, path_of
from ui.web.parts import safe

Document = dict[str, Any]
_SHOWN = 12


def tree_html(graph: Graph, plan: Document) -> str:
    """The tree of `graph` with what the plan document took and ruled out."""
    lit = path_of(graph, plan["trace"]).nodes
    nodes = {node.id: node for node in graph.nodes}
    lost: dict[str, list[Document]] = {}
    for row in plan["rejected"]:
        lost.setdefault(row["rule"], []).append(row)
    items, silent = [], 0
    for question in (node for node in graph.nodes if node.kind == "question"):
        answers = [
            (nodes[edge.target], edge.label)
            for edge in graph.edges
            if edge.source == question.id and nodes[edge.target].kind not in ("question", "end")
        ]
        if not any(node.id in lit or node.id in lost for node, _ in answers):
            silent += 1
            continue
        rows = "".join(
            _answer(_spoken(node.id, question.label), node, when, node.id in lit, lost.get(node.id, []))
            for node, when in answers
        )
        items.append(f"<li><b>{safe(question.label)}?</b><ul>{rows}</ul></li>")
    more = f"<li class='off'><span class='soft'>{silent} more questions changed nothing here</span></li>"
    return f"<ol class='path'>{''.join(items)}{more}<li><b>scored, compared and ranked</b></li></ol>"


def _answer(name: str, node: Node, when: str, lit: bool, lost: list[Document]) -> str:
    """One answer: lit, or closed; what it ruled out, and when it holds, inside."""
    count = f" <b>ruled out {len(lost)}</b>" if lost else ""
    inside = [f"<p class='soft'>if {safe(when)}</p>"] if when else []
    if lit or not lost:
        inside.append(f"<p class='soft'>{safe(node.label)}</p>")
    for row in lost[:_SHOWN]:
        what = " ".join(str(row[key]) for key in ("model", "framework", "backend", "precision") if row.get(key))
        change = f" <i>It would do {safe(row['change'])}.</i>" if row.get("change") else ""
        inside.append(f"<p><b>{safe(what) or 'everything'}</b>: {safe(row['text'])}{change}</p>")
    if len(lost) > _SHOWN:
        inside.append(f"<p class='soft'>and {len(lost) - _SHOWN} more, in the tab Ruled out</p>")
    mark = "✓ " if lit else ""
    state = "lit" if lit else "lost" if lost else "off"
    words = f"<span title='{safe(node.id)}'>{mark}{safe(name)}</span>{count}"
    return f"<li class='{state}'><details><summary>{words}</summary>{''.join(inside)}</details></li>"


def _spoken(rule: str, question: str) -> str:
    """A rule's name within its question: `memory.tight` of `memory fit` is `tight`, `npu.named` of `target` is
    `npu named`."""
    about, _, answer = rule.replace("-", " ").partition(".")
    return answer if question.startswith(about) else f"{about} {answer}".strip()
