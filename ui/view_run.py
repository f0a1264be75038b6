"""A run for a person: the verdict, predicted next to measured, the gates, where things lie, what to do next.

Renders the documents of DESIGN section 6 (report, checklist) and the history's rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from executors.report_text import LABELS
from knowledge.base import printable
from ui.terminal import (
    Cells,
    bullets,
    command,
    console,
    duration,
    figure,
    gib,
    heading,
    pairs,
    safe,
    share,
    shell_path,
    table,
)  # fmt: skip

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
UNITS = {
    "decode_tps": "tok/s", "prefill_tps": "tok/s", "ttft_ms": "ms", "load_seconds": "s",
    "sentences_per_second": "texts/s",
}  # fmt: skip
RATIOS = ("quality_retention", "memory_ratio", "same_top1", "top_overlap", "task_retention")


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
    if metric == "cosine_similarity":
        return f"{value:.4f}"
    if metric == "decode_ratio":
        return f"{figure(value)} x"
    return f"{figure(value)} {UNITS.get(metric, '')}".strip()


def show_report(report: Document) -> None:
    screen = console()
    screen.print(f"\n{VERDICTS[report['status']]}")
    reference = report.get("reference") or {}
    note = f" ({safe(reference['note'])})" if reference.get("note") else ""
    on = f"{safe(report['framework'])} on {safe(report['backend'])}"
    pairs(
        screen,
        [
            ("model", f"[bold]{safe(report['model'])}[/bold] as [bold]{safe(report['precision'])}[/bold] with {on}"),
            ("against", f"{safe(reference.get('precision', 'unknown'))}{note}"),
            ("took", _took(report["steps"])),
        ],
    )
    _show_why(screen, report)
    if report["predicted_vs_measured"]:
        heading(screen, "Predicted and measured")
        screen.print(_predictions(report["predicted_vs_measured"]))
    if report["gates"]:
        heading(screen, "Gates")
        screen.print(gates_table(report["gates"]))
        bullets(screen, (safe(gate["text"]) for gate in report["gates"] if gate["result"] != "pass"))
    _show_places(screen, report)
    if report.get("next"):
        heading(screen, "Next")
        for item in report["next"]:
            bullets(screen, [safe(item["text"])])
            if item.get("command"):
                command(screen, item["command"].replace("RUN_DIR", shell_path(report["run_dir"])))


def _took(steps: list[Document]) -> str:
    seconds = sum(step["seconds"] or 0 for step in steps if step["status"] == "done")
    cached = sum(step["status"] == "cached" for step in steps)
    failed = [safe(step["id"]) for step in steps if step["status"] == "failed"]
    if cached == len(steps):
        return "no time: this run was finished before, and its files are unchanged"
    words = duration(seconds)
    if cached:
        words += f"; {cached} of {len(steps)} steps were done before"
    if failed:
        words += f"; failed: {', '.join(failed)}"
    return words


def _show_why(screen: Console, report: Document) -> None:
    """Why this precision; where the ladder was climbed, what each rung came to."""
    why = report.get("why") or {}
    if why.get("reasons"):
        heading(screen, "Why this precision")
        bullets(screen, (safe(reason["text"]) for reason in why["reasons"]))
    if why.get("alternatives"):
        considered = (
            (
                safe(row["precision"]),
                quantity("quality_retention", row["quality_retention"]),
                quantity("memory_ratio", row["memory_ratio"]),
                safe(" and ".join(row["would_miss"])),
            )
            for row in why["alternatives"]
        )
        heading(screen, "Considered as well")
        columns = ("precision", "quality", "of 16 bits", "would miss")
        screen.print(table(columns, considered, right=("quality", "of 16 bits")))
    rungs = report.get("rungs") or []
    if len(rungs) > 1:
        heading(screen, "Rungs tried")
        rows = (
            (
                f"[bold]{safe(rung['precision'])}[/bold]" if rung.get("chosen") else safe(rung["precision"]),
                quantity("quality_retention", rung["quality_retention"]),
                quantity("memory_ratio", rung["memory_ratio"]),
                safe(rung["result"]),
            )
            for rung in rungs
        )
        screen.print(table(("precision", "quality", "of 16 bits", "result"), rows, right=("quality", "of 16 bits")))


def _predictions(rows: list[Document]) -> Cells:
    cells = (
        (safe(row["metric"]), _expected(row), quantity(row["metric"], row["measured"]), _within(row)) for row in rows
    )
    return table(("metric", "predicted", "measured", "within"), cells, right=("predicted", "measured"))


def _expected(row: Document) -> str:
    """`34.1 tok/s (18.3 to 51.9)`: the unit once where low and high have the same."""
    if row["mid"] is None:
        return "not predicted"
    mid, low, high = (quantity(row["metric"], row[key]) for key in ("mid", "low", "high"))
    if low == high:
        return mid
    unit = mid.rpartition(" ")[2]
    if low.endswith(f" {unit}") and high.endswith(f" {unit}"):
        low, high = low.removesuffix(f" {unit}"), high.removesuffix(f" {unit}")
    return f"{mid} ({low} to {high})"


def _within(row: Document) -> str:
    if row["mid"] is None or row["measured"] is None:
        return "-"
    return "[green]yes[/green]" if row["low"] <= row["measured"] <= row["high"] else "[red]no[/red]"


def gates_table(gates: list[Document]) -> Cells:
    cells = (
        (
            safe(gate["id"]),
            f"{safe(gate['op'])} {quantity(gate['metric'], gate['value'])}".removeprefix("== "),
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
        line = Text(f"  {label:<10} ", style="dim").append(printable(shell_path(path), 4000), style="not dim")
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


def correction_words(moved: Document) -> str:
    """`Decode with llama.cpp on cpu: predictions times 0.83, after 2 configurations measured here`."""
    count = moved["configurations"]
    evidence = "1 configuration" if count == 1 else f"{count} configurations"
    where = f"{LABELS[moved['metric']]} with {moved['framework']} on {moved['backend']}"
    return f"{where}: predictions times {moved['factor']:.2f}, after {evidence} measured here"


def show_history(rows: list[Document], moved: list[Document]) -> None:
    screen = console()
    if not rows:
        screen.print("No run was measured on this machine yet. Start with:")
        command(screen, "advisor quickstart")
        return
    for run in dict.fromkeys((row["run_id"], row["precision"]) for row in rows):
        measured = [row for row in rows if (row["run_id"], row["precision"]) == run]
        first = measured[0]
        heading(screen, f"{safe(first['model'])} as {safe(first['precision'])}")
        framework = f"{safe(first['framework'])} on {safe(first['backend'])}, {safe(first['framework_version'])}"
        when = f"{safe(first['time'][:16].replace('T', ' '))} UTC"
        pairs(screen, [("when", when), ("with", framework), ("run", safe(first["run_id"]))])
        screen.print(_predictions(measured))
    if moved:
        heading(screen, "What that does to plans of what was not measured")
        bullets(screen, (safe(correction_words(row)) for row in moved))
