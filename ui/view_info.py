"""A machine, the knowledge base and the installation's health, for a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.tree import Tree

from ui.terminal import bullets, command, console, figure, gib, heading, pairs, safe, shell_line, table

Document = dict[str, Any]

TOOLCHAIN_MARKS = {"ok": "[green]ok[/green]", "broken": "[red]broken[/red]", "missing": "[dim]missing[/dim]"}
PLACE_MARKS = {
    "supported": "[green]yes[/green]",
    "experimental": "[yellow]experimental[/yellow]",
    "unsupported": "[red]no[/red]",
    "outside": "[dim]elsewhere[/dim]",
}
CHECK_MARKS = {"ok": "[green]ok[/green]", "warn": "[yellow]warn[/yellow]", "fail": "[red]fail[/red]"}


def show_profile(profile: Document, saved: str | None = None) -> None:
    screen = console()
    cpu, system = profile["cpu"], profile["os"]
    cores = ", ".join(
        f"{cpu[key]:g} {word}"
        for key, word in (("physical_cores", "cores"), ("logical_cores", "threads"), ("usable_cores", "usable"))
        if cpu[key] is not None
    )
    where = [
        word
        for key, word in (("container", "in a container"), ("wsl", "in WSL"), ("rosetta", "under Rosetta"))
        if system[key]
    ]
    name = system["name"] or system["family"] or "unknown"
    heading(screen, safe(profile["device"] or profile["chip"] or "This machine"))
    pairs(
        screen,
        [
            ("system", safe(" ".join(filter(None, [name, system["version"], *where])))),
            ("CPU", safe(f"{cpu['model'] or cpu['vendor']} ({cpu['arch']}{', ' + cores if cores else ''})")),
            ("", safe(" ".join(cpu["instruction_sets"]))),
            *(("memory", _pool(pool)) for pool in profile["memory"]),
            *(("GPU", _accelerator(gpu)) for gpu in profile["gpus"]),
            *(("NPU", f"{_accelerator(npu)}, {npu['state']}") for npu in profile["npus"]),
            ("disk", f"{gib(profile['disk']['free_bytes'])} free" if profile["disk"]["free_bytes"] is not None else ""),
            *(
                ("framework", safe(" ".join([tool["framework"], tool["version"], f"({tool['kind']})"])))
                for tool in profile["toolchains"]
            ),
        ],
    )
    if profile["notes"]:
        heading(screen, "Notes")
        bullets(screen, map(safe, profile["notes"]))
    doubtful = [path for path, origin in profile["provenance"].items() if origin["confidence"] == "low"]
    if doubtful:
        screen.print(f"\nOf low confidence: {safe(', '.join(doubtful))}")
    if saved is not None:
        screen.print("\nSaved. To plan for this machine anywhere:")
        command(screen, shell_line(["advisor", "plan", "--profile", saved]))


def _pool(pool: Document) -> str:
    words = [f"{gib(pool['total_bytes'])} {safe(pool['kind'])}"]
    if pool["limit_bytes"] is not None:
        words.append(f"limited to {gib(pool['limit_bytes'])}")
    if pool["gpu_limit_bytes"] is not None:
        words.append(f"of which the GPU may take {gib(pool['gpu_limit_bytes'])}")
    if pool["available_bytes"] is not None:
        words.append(f"{gib(pool['available_bytes'])} available")
    if pool["measured_bandwidth_gbs"] is not None:
        words.append(f"{figure(pool['measured_bandwidth_gbs'])} GB/s measured")
    elif pool["bandwidth_gbs"] is not None:
        words.append(f"{figure(pool['bandwidth_gbs'])} GB/s by its data sheet")
    return ", ".join(words)


def _accelerator(part: Document) -> str:
    return safe(" ".join(filter(None, [part["name"] or part["vendor"], part["generation"]])))


def show_checks(checks: list[Document]) -> None:
    screen = console()
    rows = ((CHECK_MARKS[check["status"]], safe(check["id"]), safe(check["text"])) for check in checks)
    screen.print(table(("", "check", "found"), rows))
    hints = [
        f"{safe(check['id'])}: {safe(check['hint'])}" for check in checks if check["status"] != "ok" and check["hint"]
    ]
    if hints:
        heading(screen, "What to do")
        bullets(screen, hints)


def show_toolchains(toolchains: Sequence[Document]) -> None:
    screen = console()
    rows = (
        (TOOLCHAIN_MARKS[found["status"]], safe(found["framework"]), safe(found["text"]), gib(found["disk_bytes"]))
        for found in toolchains
    )
    screen.print(table(("", "toolchain", "found", "on disk"), rows, right=("on disk",)))
    hints = [found for found in toolchains if found["hint"]]
    if hints:
        heading(screen, "What to do")
        bullets(screen, (f"{safe(found['framework'])}: {safe(found['hint'])}" for found in hints))


def show_rows(columns: Mapping[str, str], rows: Sequence[Document]) -> None:
    """Rows of the knowledge base under `columns` (key to heading)."""
    cells = ([_cell(row.get(name)) for name in columns] for row in rows)
    numbers = [heading for name, heading in columns.items() if all(_is_number(row.get(name)) for row in rows)]
    console().print(table(list(columns.values()), cells, right=numbers))


def show_rules(rules: Sequence[Document]) -> None:
    """The decision tree: stages in order, their nodes, the rules of a node, of which the first that holds is taken."""
    screen = console()
    for stage in dict.fromkeys(rule["stage"] for rule in rules):
        tree = Tree(f"[bold]{safe(stage)}[/bold]")
        nodes: dict[str, Tree] = {}
        for rule in (rule for rule in rules if rule["stage"] == stage):
            node = nodes.get(rule["node"]) or nodes.setdefault(rule["node"], tree.add(safe(rule["node"])))
            node.add(
                f"[bold]{safe(rule['effect'])}[/bold] {safe(rule['id'])} [dim]when[/dim] {safe(rule['condition'])}\n"
                f"{safe(rule['text'])} [dim]({safe(rule['source'])})[/dim]"
            )
        screen.print(tree)


def show_places(places: Sequence[Document], notes: Sequence[str]) -> None:
    """Where a framework or a device runs, where it cannot, and who says so."""
    screen = console()
    heading(screen, "Where it runs, and where it cannot")
    rows = (
        (
            PLACE_MARKS[place["support"]],
            safe(f"{place['framework']} {place['backend']}"),
            safe(place.get("on") or f"{place['engine'].upper()} {', '.join(place['vendors'])}"),
            safe(", ".join(place["os"])),
            safe("; ".join([place["text"], *(f"needs {need} or newer" for need in place["needs"])])),
            safe(place["source"]),
        )
        for place in places
    )
    screen.print(table(("", "backend", "on", "systems", "what is known", "source"), rows))
    if notes:
        heading(screen, "Notes")
        bullets(screen, map(safe, notes))


def show_record(record: Document) -> None:
    """One row in full; what is empty is left out."""
    pairs(
        console(),
        [(safe(name).replace("_", " "), _cell(value)) for name, value in record.items() if value not in (None, 0, "")],
    )


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return figure(value)
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_cell, value))
    if isinstance(value, dict):
        return " ".join(f"{safe(key)}={_cell(part)}" for key, part in value.items())
    return safe(f"{value:,}" if isinstance(value, int) and abs(value) >= 10_000 else value)
