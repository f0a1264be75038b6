"""What a run is doing, on standard error: bars where a person watches, one line per step elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

from knowledge.base import printable

Event = dict[str, Any]
Listener = Callable[[Event], None]

WORDS = {"done": "done", "cached": "done before", "failed": "failed", "skipped": "left to you"}


@contextlib.contextmanager
def shown_progress() -> Iterator[Listener]:
    """A listener for the runner's events (executors.runner.run_plan says which there are)."""
    if sys.stderr.isatty():
        with _bars() as listener:
            yield listener
    else:
        yield _print_line


def _print_line(event: Event) -> None:
    if event["type"] != "progress" and (line := _line(event)):
        print(line, file=sys.stderr, flush=True)


def _line(event: Event) -> str:
    """The event as one line; empty for a step that starts, which its end will tell."""
    if event["type"] == "step":
        if event["state"] == "started":
            return ""
        took = f" in {event['seconds']:.1f} s" if event["state"] == "done" and event.get("seconds") is not None else ""
        return f"{_place(event)} {printable(_title(event), 100)}: {WORDS[event['state']]}{took}"
    if event["type"] == "rung":
        return printable(f"next rung, {event['precision']}: {event['text']}", 300)
    return printable(str(event.get("text", "")), 300)


def _place(event: Event) -> str:
    return f"[{event['index']}/{event['total']}]"


def _title(event: Event) -> str:
    return str(event.get("title") or event["id"])


def _expected(event: Event) -> str:
    """What the plan expects the step to take, where it expects anything: `, about 20 s`."""
    from ui.terminal import duration

    expected = event.get("estimate_seconds")
    return "" if expected is None else f", about {duration(expected)}"


@contextlib.contextmanager
def _bars() -> Iterator[Listener]:
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    from ui.terminal import console, safe

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=None)

        def listen(event: Event) -> None:
            if event["type"] == "progress":
                total = event.get("total") or None
                progress.update(bar, completed=event.get("done", 0), total=total)
            elif event["type"] == "step" and event["state"] == "started":
                progress.reset(
                    bar, total=None, description=safe(f"{_place(event)} {_title(event)}{_expected(event)}", 80)
                )
            else:
                progress.print(safe(_line(event)))

        yield listen
