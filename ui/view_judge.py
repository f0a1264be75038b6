"""A validation for a person: the verdict with its reasons, what was measured, the gates; runs side by side."""

from __future__ import annotations

from typing import Any

from executors.compare import REFERENCE_COLUMNS, figure_rows, reference_rows
from ui.terminal import bullets, console, gib, heading, pairs, safe, shell_path, table
from ui.view_run import VERDICTS, gates_table, quantity

Document = dict[str, Any]
TIERS = {
    "integrity": "file",
    "smoke": "smoke test",
    "distribution": "comparison",
    "runtime": "runtime",
    "tasks": "questions",
}


def show_validation(document: Document) -> None:
    screen = console()
    screen.print(f"\n{VERDICTS[document['status']]}")
    artifact, reference = document["artifact"], document["reference"]
    note = f" ({safe(reference['note'])})" if reference["note"] else ""
    pairs(
        screen,
        [
            ("artifact", f"{safe(shell_path(artifact['path']))}, {_size(artifact)}"),
            ("against", f"{safe(shell_path(reference['path']))}, {_size(reference)}{note}"),
            ("with", safe(document["framework_version"])),
        ],
    )
    missed = [gate for gate in document["gates"] if gate["result"] != "pass" and gate["observed"] is not None]
    bullets(screen, (safe(gate["text"]) for gate in missed))
    heading(screen, "Measured")
    screen.print(table(("tier", "result", "figures"), _tiers(document["validation"])))
    heading(screen, "Gates")
    screen.print(gates_table(document["gates"]))


def _size(model: Document) -> str:
    bits = f", {model['bits_per_weight']:.2f} bits per weight" if "bits_per_weight" in model else ""
    return f"{gib(model['bytes'])}{bits}"


def _tiers(validation: Document) -> list[tuple[str, str, str]]:
    figures = {"distribution": _distribution, "runtime": _runtime, "tasks": _tasks}
    rows = []
    for tier, name in TIERS.items():
        found = validation.get(tier)
        if found is None:
            continue
        if not found:
            rows.append((name, "not run", ""))
        elif found["status"] != "pass":
            rows.append((name, "[red]fail[/red]", safe(found["reason"])))
        else:
            words = figures[tier](found) if tier in figures else ""
            rows.append((name, "done" if words else "[green]pass[/green]", words))
    return rows


def _distribution(found: Document) -> str:
    if "cosine_similarity" in found:
        cosine, top = found["cosine_similarity"], found["top_overlap"]
        return (
            f"cosine {cosine['mean']:.4f} (at least {cosine['min']:.4f}) on {found['texts']} texts, rank correlation "
            f"{found['rank_correlation']['value']:.4f}, same first ten {quantity('top_overlap', top['value'])}"
        )
    perplexity = found["perplexity"]
    return (
        f"perplexity {perplexity['artifact']:.3f} against {perplexity['reference']:.3f} on {found['tokens']:,} tokens, "
        f"KL {found['kl_divergence']['mean']:.4f} nats, same top-1 {quantity('same_top1', found['same_top1']['value'])}"
    )


def _runtime(found: Document) -> str:
    return (
        f"KL {found['kl_divergence']['mean']:.4f} nats from these weights in 32 bits, "
        f"same top-1 {quantity('same_top1', found['same_top1']['value'])}, on {found['tokens']:,} tokens"
    )


def _tasks(found: Document) -> str:
    count = found["questions"]
    artifact, reference = (round(found["accuracy"][side] * count) for side in ("artifact", "reference"))
    return (
        f"{artifact} of {count} right, the reference {reference}; "
        f"{quantity('same_top1', found['agreement'])} answered alike"
    )


def show_comparison(document: Document) -> None:
    screen = console()
    columns = ("", *(safe(run["name"], 60) for run in document["runs"]))
    screen.print(table(columns, ([safe(cell) for cell in row] for row in figure_rows(document)), right=columns[1:]))
    if rows := [[safe(cell) for cell in row] for row in reference_rows(document)]:
        heading(screen, "References")
        screen.print(table(REFERENCE_COLUMNS, rows, right=("perplexity", "tokens")))
    bullets(screen, (safe(note) for note in document["notes"]))
