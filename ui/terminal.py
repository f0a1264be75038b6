"""What the terminal views share: the console, safe text, figures with their units, the table style.

Everything that comes from a model, a plan or a machine is untrusted: it is shown through `safe`, which replaces control
characters and takes rich's markup literally. Colours follow NO_COLOR; without a terminal the width is 80 columns.
"""

from __future__ import annotations

import math
import shlex
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from knowledge.base import format_bytes, printable

Band = dict[str, Any]
_SHORT_COLUMN = 22  # characters that still leave room for other columns on 80


def console(*, stderr: bool = False) -> Console:
    return Console(stderr=stderr, highlight=False, emoji=False)


def safe(value: Any, limit: int = 600) -> str:
    """`value` as one line that can neither steer the terminal nor be taken for markup."""
    return escape(printable(str(value), limit))


def heading(screen: Console, text: str) -> None:
    screen.print(f"\n[bold]{text}[/bold]")


def bullets(screen: Console, lines: Iterable[str], style: str = "") -> None:
    """Indented, wrapped, already safe lines."""
    for line in lines:
        table = Table.grid(padding=(0, 1))
        table.add_row("-", line, style=style)
        screen.print(Padding(table, (0, 0, 0, 2)))


def pairs(screen: Console, rows: Iterable[tuple[str, str]]) -> None:
    """Label and already safe words, aligned; rows without words are left out."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for label, words in rows:
        if words:
            table.add_row(label, words)
    screen.print(Padding(table, (0, 0, 0, 2)))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()) -> Table:
    """A table of already safe cells; the columns named in `right` hold numbers. Short columns are never broken."""
    made = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    cells = [tuple(row) for row in rows]
    for number, column in enumerate(columns):
        width = max((cell_len(strip_markup(row[number])) for row in cells), default=0)
        justify: Literal["left", "right"] = "right" if column in right else "left"
        made.add_column(column, justify=justify, no_wrap=max(width, len(column)) <= _SHORT_COLUMN, overflow="fold")
    for row in cells:
        made.add_row(*row)
    return made


def strip_markup(text: str) -> str:
    return Text.from_markup(text).plain


def command(screen: Console, words: str) -> None:
    """A command to copy: never wrapped, never shortened."""
    screen.print(f"  [bold]{escape(printable(runnable(words), 4000))}[/bold]", soft_wrap=True)


def shell_line(words: Sequence[str]) -> str:
    """A command to paste into a shell, where nothing in a word acts: the one way that commands of plans are shown."""
    return shlex.join(words)


def runnable(words: str) -> str:
    """`words` with `advisor` or `python` as a path where the shell would find none, or another one."""
    name, _, rest = words.partition(" ")
    ours = Path(sys.executable).with_name(name)
    if name not in ("advisor", "python") or not ours.exists() or shutil.which(name) == str(ours):
        return words
    here = Path.cwd()
    return f"{ours.relative_to(here) if ours.is_relative_to(here) else ours} {rest}"


def shell_path(path: str | Path) -> str:
    """`path` as a word of a shell command, with `~` for the home folder."""
    quoted = shlex.quote(str(path))
    home = Path.home()
    return f"~/{Path(path).relative_to(home)}" if quoted == str(path) and Path(path).is_relative_to(home) else quoted


def figure(value: float | None) -> str:
    """Three significant digits: `0.85`, `8.5`, `18`, `1,840`; `?` for unknown."""
    if value is None:
        return "?"
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def interval(band: Band | None, unit: str = "", scale: float = 1.0) -> str:
    """`18 tok/s (12 to 25)`, or `unknown` for a band that predicts nothing."""
    if not band or band.get("mid") is None:
        return "unknown"
    low, mid, high = (figure(band[key] * scale) for key in ("low", "mid", "high"))
    words = f"{mid} {unit}".strip()
    return words if low == high else f"{words} ({low} to {high})"


def share(value: float | None) -> str:
    """A fraction as per cent."""
    return "?" if value is None else f"{100 * value:.3g} %"


def gib(size: float | None) -> str:
    return "?" if size is None else format_bytes(size)


def duration(seconds: float | None) -> str:
    """`8.3 s`, `2 min 5 s`, `1 h 3 min`."""
    if seconds is None:
        return "?"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
