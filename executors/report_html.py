"""report.html and the checklist page: one file each, no scripts, nothing external, for phone, printer, light and dark.

jinja2 escapes every value (the template is ours, the strings are not); plots are inline SVG from
executors.plots, which escapes for itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from executors import report_sensitivity
from executors.check import DETAILS, PHASES
from executors.plots import Bar, Interval, bars, intervals, memory_bar
from executors.report_md import environment_value
from executors.report_text import LABELS, OPERATORS, interval, quantity, summary
from knowledge.base import format_bytes, printable

TEMPLATES = Path(__file__).parent / "templates"


def render(document: Mapping[str, Any]) -> str:
    """The page of a report document."""
    sensitivity = sensitivity_plot(document)
    return _page(
        "report.html.j2",
        report=document,
        summary=summary(document),
        short=in_short(document),
        rows=predictions(document),
        memory=memory_plot(document),
        quality=quality_plot(document),
        sensitivity=sensitivity,
        about_sensitivity=report_sensitivity.about(document["sensitivity"]) if sensitivity else "",
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


def in_short(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The figures that decide, of the rung that was kept: (what, how much) each; nothing where none was kept."""
    kept = next((rung for rung in document["rungs"] if rung["chosen"]), None)
    if kept is None:
        return []
    performance = document["performance"].get("artifact", {})
    figures = [(LABELS[m], quantity(m, kept[m])) for m in ("quality_retention", "memory_ratio") if kept[m] is not None]
    if document["artifact"].get("bytes"):
        figures.append((LABELS["artifact_bytes"], format_bytes(document["artifact"]["bytes"])))
    figures += [
        (LABELS[metric], quantity(metric, performance[metric]["median"]))
        for metric in ("decode_tps", "ttft_ms", "sentences_per_second", "peak_rss_bytes")
        if performance.get(metric)
    ]
    return figures


def predictions(document: Mapping[str, Any]) -> list[str]:
    """A plot of each metric that was predicted or measured, on a scale of its own."""
    rows = []
    for line in document["predicted_vs_measured"]:
        metric = line["metric"]
        if all(line[key] is None for key in ("low", "mid", "high", "measured")):
            continue
        predicted = "not predicted"
        if line["mid"] is not None:
            predicted = f"predicted {quantity(metric, line['mid'])}"
        if line["low"] is not None and line["high"] is not None:
            predicted += f" ({interval(metric, line['low'], line['high'])})"
        measured = f"measured {quantity(metric, line['measured'])}"
        label = f"{LABELS[metric]}, {predicted}"
        row = Interval(label, line["low"], line["mid"], line["high"], measured, line["measured"])
        rows.append(intervals([row], metric, from_zero=False))
    return rows


def memory_plot(document: Mapping[str, Any]) -> str:
    """The memory bar against budget and measured peak; nothing where the plan predicted none."""
    memory = document.get("memory") or {}
    if not memory.get("total_bytes"):
        return ""
    named = (("Weights", "weights_bytes"), ("KV cache", "kv_bytes"), ("Runtime", "overhead_bytes"))
    parts = [(label, memory.get(key, 0), format_bytes(memory.get(key, 0))) for label, key in named]
    budget = memory.get("budget_bytes", 0)
    return memory_bar(parts, budget, format_bytes(budget), memory.get("measured_peak_rss_bytes"))


def quality_plot(document: Mapping[str, Any]) -> str:
    """The quality that each rung kept, against its gate; nothing where no rung was measured."""
    limit = next((gate["value"] for gate in document["gates"] if gate["metric"] == "quality_retention"), None)
    rungs = [rung for rung in document["rungs"] if rung["quality_retention"] is not None]
    if limit is None or not rungs:
        return ""
    rows = [
        Bar(
            f"{rung['precision']}, {quantity('memory_ratio', rung['memory_ratio'])} of the 16-bit bytes",
            rung["quality_retention"],
            quantity("quality_retention", rung["quality_retention"]),
            rung["quality_retention"] >= limit,
        )
        for rung in rungs
    ]
    return bars(rows, limit, f"gate: {quantity('quality_retention', limit)}")


def sensitivity_plot(document: Mapping[str, Any]) -> str:
    """Groups of tensors by what it costs to lower them; nothing where none were measured."""
    groups = report_sensitivity.ranked(document.get("sensitivity"))
    rows = [
        Bar(
            f"{group.name}, lowered" if group.lowered else group.name,
            group.share,
            f"{group.nats_added:.4f} nats added, {format_bytes(group.bytes_saved)} saved",
            True if group.lowered else None,
        )
        for group in groups
    ]
    return bars(rows) if rows else ""
