"""The accuracy of the cost model for a person: one line per partition."""

from __future__ import annotations

from typing import Any

from ui.terminal import console, safe, table

COLUMNS = ("metric", "framework", "device", "split", "rows", "error", "<30%", ">2x", "cover", "width")
BASELINE = "best baseline's <30%"


def show_accuracy(document: dict[str, Any]) -> None:
    screen = console()
    screen.print(f"{document['rows']} rows; left out: {safe(document['left_out'] or 'none')}")
    screen.print(table((*COLUMNS, BASELINE), map(_cells, document["partitions"]), right=COLUMNS[4:]))


def _cells(part: dict[str, Any]) -> tuple[str, ...]:
    name, best = max(part["baselines"].items(), key=lambda pair: pair[1]["within_30"])
    return (
        *(safe(part[key]) for key in ("metric", "framework", "device_kind", "split", "n")),
        f"{part['mdape']:.1%}",
        *(f"{part[key]:.0%}" for key in ("within_30", "over_2x", "coverage")),
        f"{part['width']:.2f}",
        f"{best['within_30']:.0%} ({safe(name)})",
    )
