"""The accuracy table of the model card (docs/cost-model.md), written from the report that training made."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from executors.training.evaluate import BASELINES
from knowledge.base import AdvisorError, atomic_write

_TABLE = re.compile(r"(<!-- accuracy -->\n).*?(<!-- /accuracy -->)", re.DOTALL)
_LEAST = 20


def write_card(path: Path, report: dict[str, Any]) -> None:
    """Replace the table between the marks of the card at `path`. Raises AdvisorError `bad-card` without marks."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise AdvisorError("bad-card", f"Cannot read {path}.", "name a Markdown file") from error
    if not _TABLE.search(text):
        raise AdvisorError("bad-card", f"{path} has no accuracy table.", "put <!-- accuracy --> marks where it belongs")
    table = accuracy_table(report)
    with atomic_write(path) as file:
        file.write(_TABLE.sub(lambda found: f"{found[1]}{table}{found[2]}", text))


def accuracy_table(report: dict[str, Any]) -> str:
    """Partitions of 20 rows or more; the share within 30 % of each baseline in brackets."""
    lines = [
        "| metric | framework | device | split | rows | chips | median error | of chips | within 30 % | off by > 2x "
        "| 90 % covers | width | " + " | ".join(BASELINES) + " |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|" + "---|" * len(BASELINES),
    ]
    for part in report["partitions"]:
        if part["n"] < _LEAST:
            continue
        cells = [
            part["metric"], part["framework"], part["device_kind"], part["split"], str(part["n"]), str(part["chips"]),
            _percent(part["mdape"]), _percent(part["mdape_of_chips"]), _percent(part["within_30"]),
            _percent(part["over_2x"]), _percent(part["coverage"]), f"{part['width']:.2f}",
            *(_percent(part["baselines"][name]["within_30"]) for name in BASELINES),
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}".replace("%", " %")
