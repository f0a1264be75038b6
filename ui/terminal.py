"""What the terminal views share: the console, safe text, figures with their units, the table style.

Everything that comes from a model, a plan or a machine is untrusted: it is shown through `safe`, which replaces control
characters and takes rich's markup literally. Colours follow NO_COLOR; without a terminal the width is 80 columns.
"""

from __future__ import annotations

import math
import re
import shlex
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from knowledge.base import format_bytes, printable

Band = dict[str, Any]
_FIGURE = re.compile(r"[<>= -]*\d")
_NAME = re.compile(r"[^\W\d_]")
_GAP = 2  # characters between columns
_SHORTEST_FOLD = 12  # characters of a name on one line that still let it be read


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


@dataclass(frozen=True, slots=True)
class Cells:
    """A table of already safe cells; the columns named in `right` hold numbers, which no width ever breaks.

    Where it is narrow, words wrap, then names fold; where that is not enough, each row is a block of its own.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: frozenset[str]

    def __rich_console__(self, screen: Console, options: ConsoleOptions) -> RenderResult:
        room = options.max_width - _GAP * (len(self.columns) - 1)
        widths = self._widths(room)
        if widths is None:
            yield from map(self._block, self.rows)
            return
        made = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
        for column, width in zip(self.columns, widths, strict=True):
            justify: Literal["left", "right"] = "right" if column in self.right else "left"
            made.add_column(column, justify=justify, width=width, overflow="fold")
        for row in self.rows:
            made.add_row(*row)
        yield made

    def _widths(self, room: int) -> list[int] | None:
        """A width for each column, `room` in all; None where they cannot have it. Names fold only where they must."""
        natural, wrapped, folded = zip(*map(self._measure, range(len(self.columns))), strict=True)
        return _narrowed(natural, wrapped, room) or _narrowed(natural, folded, room)

    def _measure(self, number: int) -> tuple[int, int, int]:
        """The width of a column: as it is, with its words wrapped, with its names folded as well."""
        column = self.columns[number]
        texts = [column, *(strip_markup(row[number]) for row in self.rows)]
        whole = max((cell_len(text) for text in texts if column in self.right and _FIGURE.match(text)), default=0)
        words = [(cell_len(word), _NAME.search(word)) for text in texts for word in text.split()]
        wrapped = max((width for width, _ in words), default=0)
        folded = max((min(width, _SHORTEST_FOLD) if name else width for width, name in words), default=0)
        return max(map(cell_len, texts)), max(whole, wrapped), max(whole, folded)

    def _block(self, row: Sequence[str]) -> Padding:
        block = Table.grid(padding=(0, _GAP))
        for column, cell in zip(self.columns, row, strict=True):
            if cell:
                block.add_row(f"[dim]{column}[/dim]", cell)
        return Padding(block, (1, 0, 0, 0))


def _narrowed(natural: Sequence[int], least: Sequence[int], room: int) -> list[int] | None:
    """The widths `natural`, the widest narrowed first until they fit; None where `least` does not."""
    widths = list(natural)
    while sum(widths) > room:
        spare = [number for number, width in enumerate(widths) if width > least[number]]
        if not spare:
            return None
        widths[max(spare, key=widths.__getitem__)] -= 1
    return widths


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[str] = ()) -> Cells:
    """`Cells` of what can be gone through once."""
    return Cells(tuple(columns), tuple(map(tuple, rows)), frozenset(right))


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
