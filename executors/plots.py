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
from itertools import pairwise

from knowledge.base import printable

WIDTH = 640
_COLOURS = {
    "one": "var(--one, #2f6fb0)",
    "two": "var(--two, #5d9bd5)",
    "three": "var(--three, #9dc3e6)",
    "four": "var(--four, #8a93a0)",
    "good": "var(--good, #2e9e4f)",
    "bad": "var(--bad, #d9483b)",
    "line": "var(--line, #8a93a0)",
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
    """What is held in memory, (label, bytes, text) each, stacked against the budget and the measured peak in bytes."""
    total = sum(size for _, size, _ in parts)
    whole = max(total, budget, peak or 0, 1)
    marks, x = [], 0.0
    for number, (label, size, text) in enumerate(parts):
        width = WIDTH * size / whole
        marks.append(_rect(x, 18, width, 30, _PARTS[number % len(_PARTS)], f"{label}: {text}"))
        x += width
    marks.append(_rect(0, 18, WIDTH * min(budget, whole) / whole, 30, None, f"Budget: {budget_text}"))
    end = WIDTH * budget / whole
    marks.append(_text(min(end, WIDTH - 2), 12, f"budget {budget_text}", anchor="end" if end > WIDTH / 3 else "start"))
    if peak:
        marks.append(_line(WIDTH * peak / whole, 12, WIDTH * peak / whole, 54, "bad", 2))
        marks.append(_text(WIDTH * peak / whole, 66, "measured peak", anchor="end" if peak > whole / 2 else "start"))
    x, y = 0.0, 84.0 if peak else 66.0
    for number, (label, _, text) in enumerate(parts):
        words = f"{label} {text}"
        if x and x + 7 * len(words) + 20 > WIDTH:
            x, y = 0.0, y + 18
        marks.append(_rect(x, y - 10, 10, 10, _PARTS[number % len(_PARTS)], label))
        marks.append(_text(x + 15, y, words))
        x += 7 * len(words) + 34
    described = ", ".join(f"{label} {text}" for label, _, text in parts)
    return _svg(y + 8, f"Memory: {described}; budget {budget_text}", marks)


def intervals(rows: Sequence[Interval], unit: str) -> str:
    """Predicted intervals of one metric on one scale from zero, the chosen one strong, measured values as dots."""
    known = [x for row in rows for x in (row.low, row.mid, row.high, row.measured) if x is not None]
    most = max(known, default=0) or 1.0
    left, step = 0.0, 40

    def at(value: float) -> float:
        return left + (WIDTH - 10 - left) * value / most

    marks = []
    for number, row in enumerate(rows):
        y = 14 + step * number
        marks.append(_text(0, y, row.label, bold=row.strong))
        marks.append(_text(WIDTH, y, row.text, anchor="end"))
        marks.append(_line(left, y + 12, WIDTH, y + 12, "line", 0.5))
        if row.low is not None and row.high is not None:
            colour = "one" if row.strong else "three"
            marks.append(_rect(at(row.low), y + 6, max(at(row.high) - at(row.low), 2), 12, colour, row.text))
        if row.mid is not None:
            marks.append(_line(at(row.mid), y + 3, at(row.mid), y + 21, "four" if row.strong else "one", 3))
        if row.measured is not None:
            inside = row.low is not None and row.high is not None and row.low <= row.measured <= row.high
            marks.append(
                _disc(at(row.measured), y + 12, 5, "good" if inside else "bad", f"measured: {row.measured:.4g}")
            )
    described = "; ".join(f"{row.label}: {row.text}" for row in rows)
    return _svg(step * len(rows), f"Intervals in {unit}. {described}", marks)


def pareto(points: Sequence[Point], x_label: str, y_label: str, area_label: str) -> str:
    """Candidates by two merits; those that nothing else beats in every respect are filled and joined by a line."""
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

    marks = [_line(left, bottom, right, bottom, "line", 1), _line(left, top, left, bottom, "line", 1)]
    for value in _ticks(x_low, x_high):
        x = left + (right - left) * (value - x_low) / (x_high - x_low)
        marks += [_line(x, bottom, x, bottom + 4, "line", 1), _text(x, bottom + 17, f"{value:g}", anchor="middle")]
    for value in _ticks(y_low, y_high):
        y = bottom - (bottom - top) * (value - y_low) / (y_high - y_low)
        marks += [_line(left - 4, y, left, y, "line", 1), _text(left - 7, y + 4, f"{value:g}", anchor="end")]
    front = sorted((place(point) for point in points if point.on_front), key=lambda at: at[0])
    marks += [_line(*a, *b, "line", 1, dashed=True) for a, b in pairwise(front)]
    for number, point in enumerate(sorted(points, key=lambda p: -p.area), 1):
        x, y = place(point)
        radius = 5 + 12 * math.sqrt(point.area / largest)
        colour = "good" if point.strong else "one" if point.on_front else "four"
        marks.append(_disc(x, y, radius, colour, point.label, opacity=0.75 if point.on_front else 0.4))
        beyond = x > right - 150
        offset = radius + 4
        marks.append(
            _text(x - offset if beyond else x + offset, y + 4 + 3 * (number % 3 - 1), point.label,
                  anchor="end" if beyond else "start", bold=point.strong)
        )  # fmt: skip
    marks.append(_text((left + right) / 2, bottom + 36, x_label, anchor="middle"))
    marks.append(_text(left, top - 4, f"{y_label}; {area_label}"))
    described = "; ".join(f"{point.label}: {point.x:.4g}, {point.y:.4g}" for point in points)
    return _svg(bottom + 44, f"{y_label} against {x_label}. {described}", marks)


def bars(rows: Sequence[Bar], limit: float, limit_text: str) -> str:
    """Shares of one as bars, with the limit that they were judged by as a line."""
    marks, step = [], 38
    most = max([limit, 1.0, *(row.share for row in rows if row.share is not None)])
    for number, row in enumerate(rows):
        y = 14 + step * number
        marks.append(_text(0, y, row.label))
        marks.append(_text(WIDTH, y, row.text, anchor="end"))
        if row.share is not None:
            colour = {True: "good", False: "bad", None: "four"}[row.good]
            marks.append(_rect(0, y + 6, WIDTH * max(row.share, 0) / most, 12, colour, row.text))
    height = step * len(rows)
    x = WIDTH * limit / most
    marks += [_line(x, 4, x, height, "line", 1.5, dashed=True), _text(x - 4, height + 12, limit_text, anchor="end")]
    described = "; ".join(f"{row.label}: {row.text}" for row in rows)
    return _svg(height + 18, f"{limit_text}. {described}", marks)


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
        f'style="width:100%;max-width:{WIDTH}px;height:auto;font:13px system-ui,sans-serif"><title>{words}</title>'
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


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float, *, dashed: bool = False) -> str:
    dash = ' stroke-dasharray="4 3"' if dashed else ""
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{_COLOURS[colour]}" '
        f'stroke-width="{width}"{dash}/>'
    )


def _text(x: float, y: float, words: str, *, anchor: str = "start", bold: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{weight} style="fill:currentColor">'
        f"{escape(printable(words, 120))}</text>"
    )
