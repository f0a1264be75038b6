"""report.html and the checklist page: one file each, no scripts, nothing external, for phone, printer, light and dark.

jinja2 escapes every value (the template is ours, the strings are not); plots are inline SVG from the shapes made here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from executors import report_sensitivity
from executors.check import DETAILS, PHASES
from executors.report_md import environment_value
from executors.report_text import LABELS, OPERATORS, interval, quantity, summary
from knowledge.base import format_bytes, printable

TEMPLATES = Path(__file__).parent / "templates"
_MARGIN = 0.12  # of a row's range that stays free on either side


@dataclass(frozen=True, slots=True)
class Row:
    """A metric of the predicted-versus-measured plot; positions are shares of the row's own scale, None if unknown."""

    label: str
    predicted: str
    measured: str
    within: bool | None
    low: float | None
    mid: float | None
    high: float | None
    value: float | None


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of the memory bar; `start` and `width` are shares of the whole bar."""

    label: str
    text: str
    start: float
    width: float


def render(document: Mapping[str, Any]) -> str:
    """The page of a report document."""
    groups = report_sensitivity.ranked(document.get("sensitivity"))
    return _page(
        "report.html.j2",
        report=document,
        summary=summary(document),
        rows=plot_rows(document),
        memory=memory_parts(document),
        groups=groups,
        about_groups=report_sensitivity.about(document["sensitivity"]) if groups else "",
        labels=LABELS,
        operators=OPERATORS,
        environment=[(k.replace("_", " "), environment_value(k, v)) for k, v in document["environment"].items()],
    )


def render_checklist(document: Mapping[str, Any]) -> str:
    """The page of a checklist document."""
    by_phase = [(phase, [item for item in document["items"] if item["phase"] == phase]) for phase in PHASES]
    return _page("checklist.html.j2", phases=[pair for pair in by_phase if pair[1]], details=DETAILS)


def _page(template: str, **values: Any) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "quantity": lambda value, metric: quantity(metric, value),
        "bytes": format_bytes,
        "plain": printable,
    }
    return environment.get_template(template).render(**values)


def plot_rows(document: Mapping[str, Any]) -> list[Row]:
    """Each metric that was predicted or measured, on a scale of its own from its smallest to its largest figure."""
    rows = []
    for line in document["predicted_vs_measured"]:
        figures = [line[key] for key in ("low", "mid", "high", "measured")]
        known = [figure for figure in figures if figure is not None]
        if not known:
            continue
        least, most = min(known), max(known)
        span = (most - least) or abs(most) or 1.0
        low, mid, high, value = (
            None if x is None else _MARGIN + (1 - 2 * _MARGIN) * ((x - least) / span if most > least else 0.5)
            for x in figures
        )
        metric = line["metric"]
        predicted = "not predicted"
        if line["mid"] is not None:
            predicted = f"predicted {quantity(metric, line['mid'])}"
        if line["low"] is not None and line["high"] is not None:
            predicted += f" ({interval(metric, line['low'], line['high'])})"
        measured = quantity(metric, line["measured"])
        rows.append(Row(LABELS[metric], predicted, measured, line["within"], low, mid, high, value))
    return rows


def memory_parts(document: Mapping[str, Any]) -> dict[str, Any] | None:
    """The memory bar: predicted parts, budget and measured peak on one scale; None where the plan predicted none."""
    memory = document.get("memory") or {}
    parts = [("Weights", "weights_bytes"), ("KV cache", "kv_bytes"), ("Runtime", "overhead_bytes")]
    peak = memory.get("measured_peak_rss_bytes") or 0
    whole = max(memory.get("total_bytes", 0), peak)
    if not whole:
        return None
    bars, start = [], 0.0
    for label, key in parts:
        width = memory.get(key, 0) / whole
        bars.append(Part(label, format_bytes(memory.get(key, 0)), start, width))
        start += width
    budget = memory.get("budget_bytes", 0)
    return {
        "parts": bars,
        "peak": peak / whole if peak else None,
        "peak_text": format_bytes(peak) if peak else "–",
        "total_text": format_bytes(memory["total_bytes"]),
        "budget_text": format_bytes(budget),
        "budget_share": f"{100 * memory['total_bytes'] / budget:.1f} %" if budget else "–",
    }
