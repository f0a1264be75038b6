"""The accuracy of the cost model as pictures: a calibration curve, and predicted against measured for each metric.

Written as SVG by hand: four axes and some dots need no plotting library.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from executors.training.evaluate import Answered
from knowledge.base import atomic_write

_SIZE, _EDGE = 480, 56
_COLOURS = {"unseen chip": "#0b6e99", "unseen model": "#d9730d", "given rows": "#0b6e99"}
_MAX_DOTS = 3000


def write_plots(document: dict[str, Any], answers: Sequence[Answered], folder: Path) -> list[str]:
    """The files written to `folder`, which is made."""
    written = []
    for metric in dict.fromkeys(answer.sample.metric for answer in answers):
        of_metric = [answer for answer in answers if answer.sample.metric == metric]
        written.append(_write(folder / f"{metric}.svg", _scatter(metric, of_metric)))
    written.append(_write(folder / "calibration.svg", _calibration(document["calibration"])))
    return written


def _write(path: Path, body: list[str]) -> str:
    with atomic_write(path) as file:
        file.write(
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_SIZE}" height="{_SIZE}" font-family="sans-serif" '
            f'font-size="12">\n<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(body) + "\n</svg>\n"
        )
    return str(path)


def _place(share: float) -> float:
    return _EDGE + share * (_SIZE - 2 * _EDGE)


def _scatter(metric: str, answers: Sequence[Answered]) -> list[str]:
    logs = [math.log10(value) for answer in answers for value in (answer.mid, answer.sample.value)]
    low, high = math.floor(min(logs)), math.ceil(max(logs))
    span = max(1, high - low)

    def x(log: float) -> float:
        return _place((log - low) / span)

    def y(log: float) -> float:
        return _SIZE - x(log)

    body = _axes(f"{metric}: predicted", "measured")
    for power in range(low, high + 1):
        body.append(f'<text x="{x(power):.1f}" y="{_SIZE - _EDGE + 16}" text-anchor="middle">{10.0**power:g}</text>')
        body.append(f'<text x="{_EDGE - 6}" y="{y(power) + 4:.1f}" text-anchor="end">{10.0**power:g}</text>')
    for factor, dash in ((1.0, ""), (2.0, "4 4"), (0.5, "4 4")):
        shift = math.log10(factor)
        ends = f'x1="{x(low):.1f}" y1="{y(low + shift):.1f}" x2="{x(high):.1f}" y2="{y(high + shift):.1f}"'
        body.append(f'<line {ends} stroke="#888" stroke-dasharray="{dash}"/>')
    for answer in answers[:: max(1, len(answers) // _MAX_DOTS)]:
        colour = _COLOURS.get(answer.split, "#555")
        place = f'cx="{x(math.log10(answer.mid)):.1f}" cy="{y(math.log10(answer.sample.value)):.1f}"'
        body.append(f'<circle {place} r="2" fill="{colour}" fill-opacity="0.4"/>')
    for index, split in enumerate(dict.fromkeys(answer.split for answer in answers)):
        body.append(f'<text x="{_EDGE + 8}" y="{_EDGE + 16 + 16 * index}" fill="{_COLOURS.get(split)}">{split}</text>')
    return body


def _calibration(curves: Sequence[dict[str, Any]]) -> list[str]:
    body = _axes("width of the interval, 1 = as shipped", "share of measurements inside")
    for share in (0, 0.5, 0.9, 1):
        body.append(f'<text x="{_EDGE - 6}" y="{_SIZE - _place(share) + 4:.1f}" text-anchor="end">{share:.0%}</text>')
    for width in (0.5, 1.0, 1.5):
        place = f'x="{_place(width / 1.5):.1f}" y="{_SIZE - _EDGE + 16}"'
        body.append(f'<text {place} text-anchor="middle">{width:g}</text>')
    level = _SIZE - _place(0.9)
    body.append(f'<line x1="{_EDGE}" y1="{level}" x2="{_SIZE - _EDGE}" y2="{level}" stroke="#888"/>')
    for index, curve in enumerate(curves):
        points = [point for point in curve["points"] if point["coverage"] is not None]
        if not points:
            continue
        colour = ("#0b6e99", "#d9730d", "#4d6461", "#ad1a72")[index % 4]
        line = " ".join(f"{_place(p['scale'] / 1.5):.1f},{_SIZE - _place(p['coverage']):.1f}" for p in points)
        body.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        body.append(f'<text x="{_EDGE + 8}" y="{_EDGE + 16 + 16 * index}" fill="{colour}">{curve["metric"]}</text>')
    return body


def _axes(right: str, up: str) -> list[str]:
    near, far = _EDGE, _SIZE - _EDGE
    return [
        f'<path d="M{near} {near} V{far} H{far}" fill="none" stroke="black"/>',
        f'<text x="{_SIZE / 2}" y="{_SIZE - 14}" text-anchor="middle">{right}</text>',
        f'<text x="16" y="{_SIZE / 2}" text-anchor="middle" transform="rotate(-90 16 {_SIZE / 2})">{up}</text>',
    ]
