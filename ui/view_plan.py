"""A plan for a person: the answer first, then what else would do, what is not known, and the next command.

Renders the plan document (DESIGN section 3) and nothing that is not in it.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from rich.console import Console
from rich.panel import Panel

from ui.terminal import (
    Cells,
    bullets,
    command,
    console,
    duration,
    figure,
    gib,
    heading,
    interval,
    pairs,
    safe,
    share,
    shell_line,
    table,
)  # fmt: skip

Document = dict[str, Any]


def show_plan(plan: Document, *, explain: bool = False, out: str | None = None) -> None:
    screen = console()
    shown = {"ok": _show_ok, "needs_input": _show_question, "infeasible": _show_infeasible}[plan["status"]]
    shown(screen, plan)
    if plan.get("course"):
        _show_course(screen, plan["course"])
    _show_notes(screen, plan)
    if explain:
        _show_trace(screen, plan)
        _show_outranked(screen, plan)
        _show_rejections(screen, plan)
    elif plan["rejected"]:
        _show_rejected_summary(screen, plan)
    if plan["status"] == "ok":
        _show_next(screen, plan, out)


def _show_ok(screen: Console, plan: Document) -> None:
    _show_recommendation(screen, plan["recommendations"][0])
    if plan.get("instead"):
        heading(screen, "Better here")
        bullets(screen, (safe(way["text"]) for way in plan["instead"]))
    if len(plan["recommendations"]) > 1:
        heading(screen, "Others that fit")
        screen.print(_recommendations(plan["recommendations"]))
        screen.print("* nothing else here is better in every respect", style="dim")


def _show_recommendation(screen: Console, best: Document) -> None:
    title = f"[bold green]{safe(best['model'])}[/bold green] as [bold]{safe(best['precision'])}[/bold]"
    screen.print(f"\n{title} with {_runs_on(best)}")
    memory, quality = best["memory"], best["quality"]
    parts = (
        (memory["weights_bytes"], "weights"),
        (memory["kv_bytes"], "KV cache"),
        (memory["overhead_bytes"], "runtime"),
    )
    sum_of = " + ".join(f"{gib(size)} {what}" for size, what in parts)
    fits = f"{gib(memory['total_bytes'])} of {gib(memory['budget_bytes'])} usable ({safe(memory['pool'])}): {sum_of}"
    retention = interval(quality["retention"], "%", 100)
    metric = safe(quality["metric"].partition(",")[0])
    bits = 32 if metric.startswith("agreement") else 16
    kept = f"{retention} of the {bits}-bit model by {metric}, {safe(quality['basis'])}"
    speed = f"{interval(best['decode_tps'], 'tok/s')}, first token after {_wait(best['ttft_ms'])}, predicted"
    if best["decode_tps"]["mid"] is None and best["ttft_ms"]["mid"] is None:
        chip, basis = "unknown: name the chip (--chip) to have it predicted", best["prefill_tps"]["basis"]
        speed = safe(basis) if basis.startswith("unknown: nobody") else chip
    disk = f"{gib(best['disk']['artifact_bytes'])} result, {gib(best['disk']['peak_bytes'])} while it is made"
    if best["disk"]["download_bytes"]:
        disk += f", {gib(best['disk']['download_bytes'])} to download"
    rows = [("memory", fits), ("speed", speed), ("quality", kept), ("disk", disk)]
    pairs(screen, [*rows, ("context", f"{best['context']:,} tokens")])
    heading(screen, "Why")
    bullets(screen, (_with_rule(reason) for reason in best["reasons"]))
    if best["warnings"]:
        heading(screen, "Mind")
        bullets(screen, map(safe, best["warnings"]), style="yellow")


def _wait(ttft_ms: Document) -> str:
    """The time to the first token, in seconds where milliseconds would be a long number."""
    seconds = (ttft_ms["mid"] or 0) >= 10_000
    return interval(ttft_ms, "s" if seconds else "ms", 0.001 if seconds else 1)


def _recommendations(rows: list[Document]) -> Cells:
    """All recommendations; the model's column only where they differ in it."""
    columns = ["#", "model", "runs on", "precision", "GiB", "tok/s", "quality"]
    cells = [
        [
            f"{row['rank']}{'*' if row['pareto'] else ''}",
            _short_name(row),
            _runs_on(row),
            safe(row["precision"]),
            f"{row['memory']['total_bytes'] / 2**30:.1f}",
            _short(row["decode_tps"]),
            share(row["quality"]["retention"]["mid"]),
        ]
        for row in rows
    ]
    if len({row["model"] for row in rows}) == 1:
        for line in (columns, *cells):
            del line[1]
    return table(columns, cells, right=("GiB", "tok/s", "quality"))


def _runs_on(row: Document) -> str:
    """`llama.cpp on cpu`, `openvino on npu`."""
    return f"{safe(row['framework'])} on {safe(row['backend'].removeprefix(row['framework'] + '-'))}"


def _short_name(row: Document) -> str:
    """The model without its publisher: tables are narrow."""
    return safe(row["model"].rpartition("/")[2])


def _short(band: Document) -> str:
    if band["mid"] is None:
        return "?"
    return f"{figure(band['mid'])} ({figure(band['low'])}-{figure(band['high'])})"


def _with_rule(reason: Document) -> str:
    return f"{safe(reason['text'])} [dim]({safe(reason['rule'])})[/dim]"


def _show_question(screen: Console, plan: Document) -> None:
    """The whole recommendation for every possible answer first, the question after it."""
    question = plan["question"]
    if question["options"]:
        heading(screen, f"What to use, by {safe(question['answer_with'])}")
        columns = (question["answer_with"], "runs on", "precision", "for example", "GiB")
        screen.print(table(columns, map(_answer, question["options"]), right=("GiB",)))
        bullets(screen, _answer_warnings(question["options"]))
    ways = "".join(f"\n  {safe(way['os'])}: [bold]{safe(way['command'])}[/bold]" for way in question["how_to_find_out"])
    answer = f"\nAnswer with [bold]{safe(question['answer_with'])}[/bold]."
    find_out = f"\nTo find out:{ways}" if ways else ""
    screen.print(Panel(f"{safe(question['text'])}{answer}{find_out}", title="One question", border_style="cyan"))
    if question["firm"]:
        heading(screen, "Whatever the answer")
        bullets(screen, [safe(question["firm"])])
    if plan["recommendations"]:
        heading(screen, safe(question["fallback"]))
        _show_recommendation(screen, plan["recommendations"][0])


def _answer(row: Document) -> tuple[str, str, str, str, str]:
    best = row["recommendation"]
    if best is None:
        return (f"[bold]{safe(row['label'])}[/bold]", "nothing fits", "", "", "")
    size = f"{best['total_bytes'] / 2**30:.1f}"
    return (f"[bold]{safe(row['label'])}[/bold]", _runs_on(best), safe(best["precision"]), _short_name(best), size)


def _answer_warnings(options: list[Document]) -> list[str]:
    """Each warning once, after the names of the answers that it belongs to."""
    names: dict[str, list[str]] = {}
    for row in options:
        for words in row["recommendation"]["warnings"] if row["recommendation"] else ():
            names.setdefault(words, []).append(row["label"].partition(" (")[0])
    return [f"[bold]{safe(', '.join(labels))}[/bold]: {safe(words)}" for words, labels in names.items()]


def _show_infeasible(screen: Console, plan: Document) -> None:
    screen.print("\n[bold red]Nothing fits.[/bold red]")
    if nearest := plan.get("nearest"):
        heading(screen, "Nearest to fitting")
        screen.print(
            f"  [bold]{safe(nearest['model'])}[/bold] as {safe(nearest['precision'])} with {_runs_on(nearest)}"
        )
        bullets(
            screen, [safe(nearest["text"]), *([f"It would do {safe(nearest['change'])}."] if nearest["change"] else [])]
        )
    if plan.get("instead"):
        heading(screen, "What would do instead")
        bullets(screen, (safe(way["text"]) for way in plan["instead"]))
        return
    changes = dict.fromkeys(row["change"] for row in plan["rejected"] if row.get("change"))
    if changes:
        heading(screen, "What would have to change")
        bullets(screen, map(safe, list(changes)[:5]))


def _show_course(screen: Console, course: Document) -> None:
    heading(screen, "What the course would say")
    tree, matrix = course["tree"], course["matrix"]
    row = f"{safe(matrix['first'])}, then {safe(matrix['second'])} ({safe(matrix['words'])})" if matrix else "no row"
    verdict = "[green]the same framework[/green]" if course["agrees"] else "[yellow]we depart[/yellow]"
    pairs(
        screen,
        [
            ("its tree", f"{safe(tree['framework'])}, {safe(tree['recipe'])}: {safe(tree['words'])}"),
            ("its matrix", row),
            ("we say", f"{safe(course['ours'])}: {verdict}"),
        ],
    )
    bullets(screen, (f"{safe(reason['text'])} [dim]({safe(reason['source'])})[/dim]" for reason in course["why"]))


def _show_notes(screen: Console, plan: Document) -> None:
    if plan.get("warnings"):
        heading(screen, "Warnings")
        bullets(screen, map(safe, plan["warnings"]), style="yellow")
    if plan.get("assumptions"):
        heading(screen, "Assumed, for want of knowledge")
        bullets(screen, map(safe, plan["assumptions"]))


def _show_rejected_summary(screen: Console, plan: Document) -> None:
    rules = Counter(row["rule"] for row in plan["rejected"])
    total = plan.get("rejected_count") or len(plan["rejected"])
    heading(screen, f"Ruled out: {total:,} (--explain lists them)")
    first = {row["rule"]: row["text"] for row in reversed(plan["rejected"])}
    rows = ((f"{count}", safe(rule), safe(first[rule], 160)) for rule, count in rules.most_common(6))
    screen.print(table(("n", "rule", "for example"), rows, right=("n",)))


def _show_trace(screen: Console, plan: Document) -> None:
    heading(screen, "The path through the decision tree")
    rows = (
        (safe(row["node"]), safe(row["condition"]), safe(row["value"]), safe(row["branch"])) for row in plan["trace"]
    )
    screen.print(table(("node", "condition", "value", "branch"), rows))


def _show_rejections(screen: Console, plan: Document) -> None:
    heading(screen, "Ruled out")
    for row in plan["rejected"]:
        what = " ".join(safe(row[key]) for key in ("model", "framework", "backend", "precision") if row.get(key))
        bullets(screen, [f"{what}: {safe(row['text'])} [dim]({safe(row['rule'])})[/dim]"])


def _show_outranked(screen: Console, plan: Document) -> None:
    if plan.get("outranked"):
        heading(screen, "Would run as well, and fell behind")
        rows = plan["outranked"]
        bullets(
            screen, (f"{safe(row['text'])} [dim]({safe(row['rule'])}; {safe(row['change'])})[/dim]" for row in rows)
        )


def _show_next(screen: Console, plan: Document, out: str | None) -> None:
    steps = (plan.get("plan") or {}).get("steps", [])
    executable = bool(steps) and all(step["settings"]["kind"] != "guide" for step in steps)
    if steps and not executable:
        heading(screen, "How to make it, with the framework's own tools")
        for step in steps:
            bullets(screen, [safe(step.get("title") or step["id"])])
            command(screen, shell_line(step["command"]))
    if executable:
        known = [step["estimate"]["seconds"] for step in steps if step["estimate"]["seconds"] is not None]
        takes = f" (about {duration(sum(known))})" if known else ""
        heading(screen, f"Next: produce it and prove it{takes}")
        if out is None:
            screen.print("  the same command with --out plan.json keeps this plan, then:")
        command(screen, shell_line(["advisor", "run", out or "plan.json"]))
