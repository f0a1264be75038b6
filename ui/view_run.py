"""A run for a person: the verdict, predicted next to measured, the gates, where things lie, what to do next.

Renders the documents of DESIGN section 6 (report, checklist) and the history's rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from ui.terminal import bullets, command, console, duration, figure, gib, heading, pairs, safe, share, table

Document = dict[str, Any]

VERDICTS = {
    "passed": "[bold green]Passed[/bold green]: every required gate holds",
    "failed": "[bold red]Failed[/bold red]: a required gate does not hold",
    "inconclusive": "[bold yellow]Inconclusive[/bold yellow]: too little was measured to judge a required gate",
    "error": "[bold red]A step failed[/bold red]",
    "interrupted": "[bold yellow]Interrupted[/bold yellow]: the same command goes on where it stopped",
}
MARKS = {
    "pass": "[green]pass[/green]",
    "fail": "[red]fail[/red]",
    "inconclusive": "[yellow]inconclusive[/yellow]",
    "todo": "[cyan]to do[/cyan]",
    "unknown": "[yellow]unknown[/yellow]",
}
UNITS = {"decode_tps": "tok/s", "prefill_tps": "tok/s", "ttft_ms": "ms", "load_seconds": "s"}
RATIOS = ("quality_retention", "memory_ratio", "same_top1")


def quantity(metric: str, value: float | None) -> str:
    """`value` of `metric` with its unit; a pass mark for integrity and smoke."""
    if value is None:
        return "not measured"
    if metric.endswith("_bytes"):
        return gib(value)
    if metric in RATIOS:
        return share(value)
    if metric in ("integrity", "smoke"):
        return "yes" if value else "no"
    if metric == "decode_ratio":
        return f"{figure(value)} x"
    return f"{figure(value)} {UNITS.get(metric, '')}".strip()


def show_report(report: Document) -> None:
    screen = console()
    screen.print(f"\n{VERDICTS[report['status']]}")
    reference = report.get("reference") or {}
    note = f" ({safe(reference['note'])})" if reference.get("note") else ""
    ran = " / ".join(safe(report[key]) for key in ("framework", "backend"))
    pairs(
        screen,
        [
            ("model", f"[bold]{safe(report['model'])}[/bold] as [bold]{safe(report['precision'])}[/bold] with {ran}"),
            ("against", f"{safe(reference.get('precision', 'unknown'))}{note}"),
            ("took", _took(report["steps"])),
        ],
    )
    if report["predicted_vs_measured"]:
        heading(screen, "Predicted and measured")
        screen.print(_predictions(report["predicted_vs_measured"]))
    if report["gates"]:
        heading(screen, "Gates")
        screen.print(_gates(report["gates"]))
    _show_places(screen, report)
    if report.get("next"):
        heading(screen, "Next")
        for item in report["next"]:
            bullets(screen, [safe(item["text"])])
            if item.get("command"):
                command(screen, item["command"])


def _took(steps: list[Document]) -> str:
    seconds = sum(step["seconds"] or 0 for step in steps if step["status"] == "done")
    cached = sum(step["status"] == "cached" for step in steps)
    failed = [safe(step["id"]) for step in steps if step["status"] == "failed"]
    words = duration(seconds)
    if cached:
        words += f"; {cached} of {len(steps)} steps were done before"
    if failed:
        words += f"; failed: {', '.join(failed)}"
    return words


def _predictions(rows: list[Document]) -> Any:
    cells = (
        (
            safe(row["metric"]),
            _expected(row),
            quantity(row["metric"], row["measured"]),
            {True: "[green]yes[/green]", False: "[red]no[/red]"}.get(row["within"], "-"),
        )
        for row in rows
    )
    return table(("metric", "predicted", "measured", "within"), cells, right=("predicted", "measured"))


def _expected(row: Document) -> str:
    if row["mid"] is None:
        return "not predicted"
    mid, low, high = (quantity(row["metric"], row[key]) for key in ("mid", "low", "high"))
    return mid if low == high else f"{mid} ({low} to {high})"


def _gates(gates: list[Document]) -> Any:
    cells = (
        (
            safe(gate["id"]),
            f"{safe(gate['op'])} {quantity(gate['metric'], gate['value'])}",
            quantity(gate["metric"], gate["observed"]),
            gate["level"],
            MARKS.get(gate["result"], safe(gate["result"])),
        )
        for gate in gates
    )
    return table(("gate", "limit", "observed", "level", "result"), cells, right=("limit", "observed"))


def _show_places(screen: Console, report: Document) -> None:
    root = Path(report["run_dir"])
    places = [("artifact", root / report["artifact"]["path"])] if report.get("artifact") else []
    heading(screen, "Where it lies")
    for label, path in [*places, ("report", root / "report.md"), ("checklist", root / "checklist.md")]:
        line = Text(f"  {label:<10} ", style="dim").append(safe(path, 4000), style="not dim")
        screen.print(line, soft_wrap=True)


def show_checklist(document: Document) -> None:
    screen = console()
    for phase in ("pre-deployment", "deployment", "post-deployment"):
        items = [item for item in document["items"] if item["phase"] == phase]
        if not items:
            continue
        heading(screen, phase.capitalize())
        rows = (
            (MARKS.get(item["status"], "?"), safe(item["text"]), safe(item.get("evidence") or "")) for item in items
        )
        screen.print(table(("status", "item", "evidence"), rows))


def show_history(rows: list[Document]) -> None:
    screen = console()
    if not rows:
        screen.print("No run was measured on this machine yet. Start with:")
        command(screen, "advisor quickstart")
        return
    cells = (
        (
            safe(row["time"])[:16],
            safe(row["model"]),
            safe(row["precision"]),
            safe(row["metric"]),
            _expected(row),
            quantity(row["metric"], row["measured"]),
        )
        for row in rows
    )
    columns = ("time (UTC)", "model", "precision", "metric", "predicted", "measured")
    screen.print(table(columns, cells, right=("predicted", "measured")))
