"""knowledge and doctor: what advisor knows and where from, and whether its installation is sound."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from knowledge.base import EXIT_OK, EXIT_STEP_FAILED, AdvisorError
from ui.command import Answer, Parser, nearest, to_json

if TYPE_CHECKING:
    from knowledge.records import ModelSpec

# What each topic shows of a row, and the heading over it; a NAME shows the whole row.
COLUMNS = {
    "models": {
        "name": "model",
        "params_b": "10^9 params",
        "context": "context",
        "licence": "licence",
        "commercial_use": "commercial",
    },
    "devices": {
        "name": "device or chip",
        "kind": "kind",
        "vendor": "vendor",
        "bandwidth_gbs": "GB/s",
        "memory_gib": "GiB",
    },
    "precisions": {
        "name": "precision",
        "framework": "framework",
        "bits": "bits",
        "precision_class": "class",
        "group_size": "group",
    },
    "frameworks": {
        "name": "framework",
        "artifact": "makes",
        "version": "version",
        "licence": "licence",
        "words": "what it is",
    },
    "rules": {"id": "rule", "effect": "effect", "condition": "when", "text": "words"},
    "claims": {"id": "id", "verdict": "verdict", "claim": "the course says", "ours": "we say"},
    "course": {"kind": "kind", "name": "name", "says": "the course says", "verdict": "verdict"},
    "sources": {"id": "source", "title": "title", "where": "where", "version": "version", "licence": "licence"},
}

EVIDENCE = {
    "model": "measured on",
    "params_b": "10^9 params",
    "retention": "kept",
    "kl_divergence": "KL",
    "same_top1": "top-1",
    "method": "method",
}
SCORES = {"metric": "published score", "value": "value", "source": "source"}


def knowledge_options(parser: Parser) -> None:
    parser.add_argument("topic", metavar="|".join(COLUMNS), help="what to list")
    parser.add_argument("name", nargs="?", metavar="NAME", help="show this row in full")
    parser.value("--graph", "mermaid|dot", "of the rules: print the decision tree as a graph for that program")


def knowledge(arguments: argparse.Namespace) -> Answer:
    topic = arguments.topic
    if topic not in COLUMNS:
        hint = f"{nearest(topic, list(COLUMNS))}write one of {', '.join(COLUMNS)}"
        raise AdvisorError("bad-option", f"advisor knowledge has no {topic!r}.", hint)
    if arguments.graph is not None:
        return _graph(topic, arguments.graph)
    rows = _rows(topic) if arguments.name is None else _found(topic, arguments.name)
    if arguments.name is not None and topic in ("frameworks", "devices"):
        rows = [_with_places(topic, rows[0])]

    def show() -> None:
        from ui.view_info import show_places, show_record, show_rows, show_rules

        if arguments.name is not None and len(rows) == 1:
            apart = {"runs_on", "evidence", "scores"} | ({"notes"} if "runs_on" in rows[0] else set())
            show_record({key: value for key, value in rows[0].items() if key not in apart})
            if rows[0].get("scores"):
                show_rows(SCORES, rows[0]["scores"])
            if rows[0].get("evidence"):
                show_rows(EVIDENCE, rows[0]["evidence"])
            if "runs_on" in rows[0]:
                show_places(rows[0]["runs_on"], rows[0]["notes"])
        elif topic == "rules":
            show_rules(rows)
        else:
            show_rows(COLUMNS[topic], rows)

    return Answer({"schema": "advisor.knowledge/1", "topic": topic, "rows": rows}, show)


def _with_places(topic: str, row: dict[str, Any]) -> dict[str, Any]:
    """A framework's or a device's row with where it runs (`runs_on`) and what was assumed of it (`notes`)."""
    from ui.knowledge_rows import device_places, framework_places

    if topic == "frameworks":
        return {**row, "runs_on": framework_places(row["name"]), "notes": []}
    places, notes = device_places(row["name"])
    return {**row, "runs_on": places, "notes": notes}


def _graph(topic: str, form: str) -> Answer:
    """The decision tree, drawn by another program; with --json its nodes and edges besides."""
    from knowledge.rule_graph import FORMS, graph_of
    from knowledge.rules import load_rules

    if topic != "rules":
        raise AdvisorError("bad-option", f"advisor knowledge {topic} has no graph.", "write: advisor knowledge rules")
    if form not in FORMS:
        hint = f"{nearest(form, list(FORMS))}write --graph {'|'.join(FORMS)}"
        raise AdvisorError("bad-option", f"--graph: {form!r} is not one of {', '.join(FORMS)}.", hint)
    graph = graph_of(load_rules())
    text = FORMS[form](graph)
    document = {
        "schema": "advisor.knowledge/1",
        "topic": topic,
        "graph": {"form": form, "text": text, **graph.as_json()},
    }
    return Answer(document, lambda: print(text, end=""))


def _found(topic: str, name: str) -> list[dict[str, Any]]:
    """The row of that name; of the course's claims also all of a topic, a verdict or a kind."""
    if topic in ("claims", "course"):
        rows = [
            row
            for row in _rows(topic)
            if name.lower() in {str(row.get(key, "")).lower() for key in ("id", "name", "topic", "kind", "verdict")}
        ]
        if rows:
            return rows
    if topic == "precisions":
        from ui.knowledge_rows import precision_rows

        return precision_rows(name)
    return [_row(topic, name)]


def _rows(topic: str) -> list[dict[str, Any]]:
    if topic == "models":
        from knowledge.models import load_models

        return [_model(spec) for spec in load_models()]
    if topic == "devices":
        from knowledge.chips import load_chips, load_products

        return [{**_plain(row), "kind": "product"} for row in load_products()] + [_plain(row) for row in load_chips()]
    if topic == "precisions":
        from knowledge.precisions import load_precisions

        return [_plain(row) for row in load_precisions()]
    if topic == "frameworks":
        from knowledge.matrix import load_frameworks

        return [_plain(row) for row in load_frameworks()]
    if topic == "sources":
        from knowledge.sources import load_sources

        return [_plain(row) for row in load_sources()]
    if topic == "claims":
        from knowledge.course import load_claims

        return [_plain(row) for row in load_claims()]
    if topic == "course":
        from knowledge.course import course_rows

        return [dict(row) for row in course_rows()]
    from knowledge.rules import describe, load_rules

    shown = ("id", "node", "stage", "effect", "text", "change", "weight", "source", "file")
    return [
        {**{key: getattr(rule, key) for key in shown}, "condition": describe(rule.when)}
        for rule in load_rules().rules()
    ]


def _row(topic: str, name: str) -> dict[str, Any]:
    """The row of that name, found as tolerantly as `plan` finds it."""
    if topic == "models":
        from knowledge.models import find_model

        return _model(find_model(name))
    rows = _rows(topic)
    key = "id" if topic in ("rules", "sources", "claims") else "name"
    for row in rows:
        if name.lower() in (row[key].lower(), *(alias.lower() for alias in row.get("aliases", ()))):
            return row
    if topic == "devices":
        from knowledge.match import find_chip

        return _plain(find_chip(name))
    hint = f"{nearest(name, [row[key] for row in rows])}`advisor knowledge {topic}` lists all"
    raise AdvisorError("unknown-name", f"There is no {name!r} among the {topic}.", hint)


def _model(spec: ModelSpec) -> dict[str, Any]:
    return {"name": spec.name, "params_b": round(spec.params_b, 3), **_plain(spec)}


def _plain(record: Any) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(record).items()}


def doctor_options(parser: Parser) -> None:
    parser.flag("--raw", "print what the probes read from this machine, for a bug report")


def doctor(arguments: argparse.Namespace) -> Answer:
    from executors.doctor import check_installation

    checks = check_installation()
    document: dict[str, Any] = {"schema": "advisor.doctor/1", "checks": checks}
    if arguments.raw:
        from probes.probe import raw_probe_inputs

        document["raw"] = raw_probe_inputs()
        print("What follows was read from this machine: look at it before you share it.", file=sys.stderr)
    broken = any(check["status"] == "fail" for check in checks)

    def show() -> None:
        if arguments.raw:
            print(to_json(document))
        else:
            from ui.view_info import show_checks

            show_checks(checks)

    return Answer(document, show, EXIT_STEP_FAILED if broken else EXIT_OK)
