"""knowledge and doctor: what advisor knows and where from, and whether its installation is sound."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from knowledge.base import EXIT_STEP_FAILED, AdvisorError
from ui.command import Answer, Parser, nearest

# What each topic shows of a row; a NAME shows the whole row.
COLUMNS = {
    "models": ("name", "params", "layers", "context", "licence", "commercial_use", "hf_id"),
    "devices": ("name", "vendor", "kind", "bandwidth_gbs", "fp16_tflops", "npu_tops", "memory_gib", "source"),
    "precisions": ("framework", "name", "bits", "precision_class", "group_size", "source"),
    "frameworks": ("name", "artifact", "version", "licence", "words", "source"),
    "rules": ("id", "stage", "effect", "condition", "text", "source"),
    "sources": ("id", "title", "where", "version", "licence"),
}


def knowledge_options(parser: Parser) -> None:
    parser.add_argument("topic", metavar="|".join(COLUMNS), help="what to list")
    parser.add_argument("name", nargs="?", metavar="NAME", help="show this row in full")


def knowledge(arguments: argparse.Namespace) -> Answer:
    topic = arguments.topic
    if topic not in COLUMNS:
        hint = f"{nearest(topic, list(COLUMNS))}write one of {', '.join(COLUMNS)}"
        raise AdvisorError("bad-option", f"advisor knowledge has no {topic!r}.", hint)
    rows = _rows(topic) if arguments.name is None else [_row(topic, arguments.name)]

    def show() -> None:
        from ui.view_info import show_record, show_rows

        if arguments.name is None:
            show_rows(COLUMNS[topic], rows)
        else:
            show_record(rows[0])

    return Answer({"schema": "advisor.knowledge/1", "topic": topic, "rows": rows}, show)


def _rows(topic: str) -> list[dict[str, Any]]:
    if topic == "models":
        from knowledge.models import load_models

        return [_plain(model) for model in load_models()]
    if topic == "devices":
        from knowledge.chips import load_chips, load_products

        return [_plain(row) for rows in (load_products(), load_chips()) for row in rows]
    if topic == "precisions":
        from knowledge.precisions import load_precisions

        return [_plain(row) for row in load_precisions()]
    if topic == "frameworks":
        from knowledge.matrix import load_frameworks

        return [_plain(row) for row in load_frameworks()]
    if topic == "sources":
        from knowledge.sources import load_sources

        return [_plain(row) for row in load_sources()]
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

        return _plain(find_model(name))
    rows = _rows(topic)
    key = COLUMNS[topic][0] if topic in ("rules", "sources") else "name"
    for row in rows:
        if name.lower() in (row[key].lower(), *(alias.lower() for alias in row.get("aliases", ()))):
            return row
    if topic == "devices":
        from knowledge.match import find_chip

        return _plain(find_chip(name))
    hint = f"{nearest(name, [row[key] for row in rows])}`advisor knowledge {topic}` lists all"
    raise AdvisorError("unknown-name", f"There is no {name!r} among the {topic}.", hint)


def _plain(record: Any) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(record).items()}


def doctor_options(parser: Parser) -> None:
    parser.flag("--raw", "print what the probes read from this machine, for a bug report")


def doctor(arguments: argparse.Namespace) -> Answer:
    from executors.doctor import check_installation

    checks = check_installation()
    document = {"schema": "advisor.doctor/1", "checks": checks}
    broken = any(check["status"] == "fail" for check in checks)

    def show() -> None:
        from ui.view_info import show_checks

        show_checks(checks)

    return Answer(document, show, EXIT_STEP_FAILED if broken else 0)
