"""Plots as inline SVG, for the reports and for the web page: no library, no script, readable by a screen reader.

Every function returns one `<svg>` element whose title says in words what is drawn. Text takes the page's colour, so
light, dark and paper all work; marks take the page's variables `--one`, `--two`, `--three`, `--good`, `--bad`, `--line`
where they are defined. Labels are untrusted and are escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from knowledge.base import printable

WIDTH = 640
LEAST = 520
"""Narrower than this, words would be too small to read: what holds the plot scrolls."""
_LETTER = 7.4  # the width of a letter of its 13 pixels, about
_COLOURS = {
    "one": "var(--one, #2f6fb0)",
    "two": "var(--two, #5d9bd5)",
    "three": "var(--three, #9dc3e6)",
    "four": "var(--four, #8a93a0)",
    "good": "var(--good, #2e9e4f)",
    "bad": "var(--bad, #d9483b)",
    "line": "var(--line, #8a93a0)",
    "ink": "currentColor",
}
_PARTS = ("one", "two", "three", "four")


@dataclass(frozen=True, slots=True)
class Interval:
    """A predicted interval, its middle, and what was measured, in the plot's unit; None where unknown."""

    label: str
    low: float | None
    mid: float | None
    high: float | None
    text: str
    measured: float | None = None
    strong: bool = False


@dataclass(frozen=True, slots=True)
class Point:
    """A candidate of the Pareto plot: more is better on both axes; `area` is any positive size, shown by the disc."""

    label: str
    x: float
    y: float
    area: float
    on_front: bool
    strong: bool = False


@dataclass(frozen=True, slots=True)
class Bar:
    """A share of one, such as the quality kept by a rung; `good` None where nobody judged it."""

    label: str
    share: float | None
    text: str
    good: bool | None


def memory_bar(parts: Sequence[tuple[str, int, str]], budget: int, budget_text: str, peak: int | None = None) -> str:
    """What is held in memory, (label, bytes, text) each, stacked, with the measured peak in bytes as a line; under it,
    thin, which share of the budget that is."""
    total = sum(size for _, size, _ in parts)
    whole = max(total, peak or 0, 1)
    marks, x = [], 0.0
    for number, (label, size, text) in enumerate(parts):
        width = WIDTH * size / whole
        marks.append(_rect(x, 2, width, 28, _PARTS[number % len(_PARTS)], f"{label}: {text}"))
        x += width
    if peak:
        at = min(WIDTH * peak / whole, WIDTH - 1)
        marks.append(_line(at, 0, at, 34, "bad", 2))
    marks.append(_rect(0, 36, WIDTH, 8, None, f"Budget: {budget_text}"))
    marks.append(_rect(0, 36, WIDTH * min(total / max(budget, 1), 1.0), 8, "one" if total <= budget else "bad", "used"))
    x, y = 0.0, 64.0
    legend = [(f"{label} {text}", _PARTS[number % len(_PARTS)]) for number, (label, _, text) in enumerate(parts)]
    legend += [("measured peak", "bad")] if peak else []
    for words, colour in legend:
        if x and x + 7 * len(words) + 20 > WIDTH:
            x, y = 0.0, y + 18
        marks += [_rect(x, y - 10, 10, 10, colour, words), _text(x + 15, y, words)]
        x += 7 * len(words) + 34
    of_budget = f"thin bar: {100 * total / budget:.3g} % of the budget, {budget_text}" if budget else "budget unknown"
    marks.append(_text(0, y + 18, of_budget))
    described = ", ".join(f"{label} {text}" for label, _, text in parts)
    return _svg(y + 24, f"Memory: {described}; budget {budget_text}", marks)


def intervals(rows: Sequence[Interval], unit: str, *, from_zero: bool = True) -> str:
    """Predicted intervals of one metric on one scale, the chosen one strong, measured values as dots."""
    known = [x for row in rows for x in (row.low, row.mid, row.high, row.measured) if x is not None]
    least, most = (0.0, max(known, default=0.0) or 1.0) if from_zero else _range(known or [0.0])
    step = 40

    def at(value: float) -> float:
        return 6 + (WIDTH - 12) * (value - least) / (most - least)

    marks = []
    for number, row in enumerate(rows):
        y = 14 + step * number
        marks.append(_text(0, y, _beside(row.label, row.text), bold=row.strong))
        marks.append(_text(WIDTH, y, row.text, anchor="end"))
        marks.append(_line(0, y + 12, WIDTH, y + 12, "line", 0.5))
        if row.low is not None and row.high is not None:
            colour = "two" if row.strong else "three"
            marks.append(_rect(at(row.low), y + 6, max(at(row.high) - at(row.low), 2), 12, colour, row.text))
        if row.mid is not None:
            marks.append(_line(at(row.mid), y + 3, at(row.mid), y + 21, "ink", 2))
        if row.measured is not None:
            marks.append(_disc(at(row.measured), y + 12, 6, _judged(row), f"measured: {row.measured:.4g}"))
    described = "; ".join(f"{row.label}: {row.text}" for row in rows)
    return _svg(step * len(rows), f"Intervals in {unit}. {described}", marks)


def _judged(row: Interval) -> str:
    """The colour of a measured value: by whether it lies in its interval, if it has one."""
    if row.low is None or row.high is None or row.measured is None:
        return "four"
    return "good" if row.low <= row.measured <= row.high else "bad"


def pareto(points: Sequence[Point], x_label: str, y_label: str, area_label: str) -> str:
    """Candidates by two merits; those that nothing else beats in every respect are dark, the chosen one green."""
    if not points:
        return ""
    left, right, top, bottom = 46, WIDTH - 16, 16, 300
    (x_low, x_high), (y_low, y_high) = (_range([point.x for point in points]), _range([point.y for point in points]))
    largest = max(point.area for point in points)

    def place(point: Point) -> tuple[float, float]:
        return (
            left + (right - left) * (point.x - x_low) / (x_high - x_low),
            bottom - (bottom - top) * (point.y - y_low) / (y_high - y_low),
        )

    def radius(point: Point) -> float:
        return 5 + 12 * math.sqrt(point.area / largest)

    marks = [_line(left, bottom, right, bottom, "line", 1), _line(left, top, left, bottom, "line", 1)]
    for value in _ticks(x_low, x_high):
        x = left + (right - left) * (value - x_low) / (x_high - x_low)
        marks += [_line(x, bottom, x, bottom + 4, "line", 1), _text(x, bottom + 17, f"{value:g}", anchor="middle")]
    for value in _ticks(y_low, y_high):
        y = bottom - (bottom - top) * (value - y_low) / (y_high - y_low)
        marks += [_line(left - 4, y, left, y, "line", 1), _text(left - 7, y + 4, f"{value:g}", anchor="end")]
    for point in sorted(points, key=lambda p: -p.area):
        x, y = place(point)
        colour = "good" if point.strong else "one" if point.on_front else "four"
        opacity = 0.75 if point.on_front or point.strong else 0.4
        marks.append(_disc(x, y, radius(point), colour, point.label, opacity))
    lowest = -math.inf
    for point in sorted(points, key=lambda p: (place(p)[1], p.label)):
        x, y = place(point)
        lowest = max(y + 4, lowest + 15)  # labels never lie on one another
        beyond = x > (left + right) / 2
        at = x - radius(point) - 4 if beyond else x + radius(point) + 4
        words = _fitting(point.label, at - left if beyond else WIDTH - at)
        marks.append(_text(at, lowest, words, anchor="end" if beyond else "start", bold=point.strong))
    marks.append(_text((left + right) / 2, bottom + 36, x_label, anchor="middle"))
    marks.append(_text(left, top - 4, f"{y_label}; {area_label}"))
    described = "; ".join(f"{point.label}: {point.x:.4g}, {point.y:.4g}" for point in points)
    return _svg(bottom + 44, f"{y_label} against {x_label}. {described}", marks)


def bars(rows: Sequence[Bar], limit: float | None = None, limit_text: str = "") -> str:
    """Shares of one as bars; with a limit, the line that they were judged by."""
    marks, step = [], 38
    most = max([limit or 0.0, 1.0, *(row.share for row in rows if row.share is not None)])
    for number, row in enumerate(rows):
        y = 14 + step * number
        marks.append(_text(0, y, _beside(row.label, row.text)))
        marks.append(_text(WIDTH, y, row.text, anchor="end"))
        if row.share is not None:
            colour = {True: "good", False: "bad", None: "four"}[row.good]
            marks.append(_rect(0, y + 6, WIDTH * max(row.share, 0) / most, 12, colour, row.text))
    height = step * len(rows)
    if limit is not None:
        x = WIDTH * limit / most
        marks += [_line(x, y, x, y + 21, "ink", 1.5) for y in range(17, height, step)]
        marks.append(_text(x, height + 12, limit_text, anchor="end"))
    described = "; ".join(f"{row.label}: {row.text}" for row in rows)
    return _svg(height + (18 if limit is not None else 0), f"{limit_text}. {described}", marks)


def _beside(label: str, text: str) -> str:
    """`label`, short enough to stand on one line with `text`."""
    return _fitting(label, WIDTH - _LETTER * (len(text) + 1))


def _fitting(words: str, width: float) -> str:
    """`words`, shortened in their middle where they would be wider than `width`."""
    most = int(width / _LETTER)
    return words if len(words) <= most else f"{words[: most * 2 // 3 - 1]}…{words[len(words) - most // 3 :]}"


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = (high - low) * 0.12 or abs(high) * 0.1 or 1.0
    return (max(0.0, low - margin) if low >= 0 else low - margin), high + margin


def _ticks(low: float, high: float) -> list[float]:
    """At most six round values between `low` and `high`."""
    raw = (high - low) / 5
    step = 10 ** math.floor(math.log10(raw))
    step *= next(factor for factor in (1, 2, 5, 10) if step * factor >= raw)
    first = math.ceil(low / step)
    return [round(step * k, 10) for k in range(first, math.floor(high / step) + 1)]


def _svg(height: float, description: str, marks: Sequence[str]) -> str:
    words = escape(printable(description, 4000))
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{words}" xmlns="http://www.w3.org/2000/svg" '
        f'style="width:100%;min-width:{LEAST}px;max-width:{WIDTH}px;height:auto;font:13px system-ui,sans-serif">'
        f"<title>{words}</title>"
        f"{''.join(marks)}</svg>"
    )


def _rect(x: float, y: float, width: float, height: float, colour: str | None, title: str) -> str:
    style = (
        f'fill="{_COLOURS[colour]}"' if colour else f'fill="none" stroke="{_COLOURS["line"]}" stroke-dasharray="4 3"'
    )
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{height:.1f}" rx="2" {style}>'
        f"<title>{escape(printable(title, 300))}</title></rect>"
    )


def _disc(x: float, y: float, radius: float, colour: str, title: str, opacity: float = 1.0) -> str:
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="{_COLOURS[colour]}" fill-opacity="{opacity}">'
        f"<title>{escape(printable(title, 300))}</title></circle>"
    )


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{_COLOURS[colour]}" '
        f'stroke-width="{width}"/>'
    )


def _text(x: float, y: float, words: str, *, anchor: str = "start", bold: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{weight} style="fill:currentColor">'
        f"{escape(printable(words, 120))}</text>"
    )
