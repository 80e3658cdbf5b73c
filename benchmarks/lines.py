"""The curves of a results file as a chart (SVG): a panel for each, a line for each contestant.

    python -m benchmarks chart curves.json > docs/curves.svg

Across, each step to the right is as many times more; up, a panel begins at nothing. A point is the
median of its runs, and a stroke through it goes from the smallest to the largest. Contestants have
a mark of their own besides a colour. Reads on light and on dark ground.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from math import log10
from typing import Any

from benchmarks.chart import STYLE

_WIDTH, _PANEL, _TOP, _HEIGHT, _LEFT, _RIGHT, _BOTTOM = 720, 300, 64, 170, 70, 200, 66
_COLOURS = ("#3b6ea5", "#b3541e", "#2e7d32", "#8a5fb0")
_LEGEND_STEP = 30


@dataclass(slots=True)
class Curve:
    """A panel: for each contestant its points, as ``(at, smallest, median, largest)``."""

    title: str
    axis: str
    lines: dict[str, list[tuple[int, float, float, float]]] = field(default_factory=dict)

    @property
    def places(self) -> list[int]:
        """Where there are points, from left to right."""
        return sorted({point[0] for points in self.lines.values() for point in points})

    @property
    def most(self) -> float:
        """The upper end of the panel: the next of 1, 2 or 5 times a power of ten."""
        largest = max(point[3] for points in self.lines.values() for point in points)
        power = 10.0 ** int(log10(largest)) / (10 if largest < 1 else 1)
        return next(power * step for step in (1, 2, 5, 10) if power * step >= largest)


def curves_of(results: dict[str, Any]) -> list[Curve]:
    """The curves of the rows that are points of one and have figures."""
    found: dict[str, Curve] = {}
    for row in results["rows"]:
        point = row.get("point")
        for one in row["contestants"] if point else ():
            if "median" not in one:
                continue
            curve = found.setdefault(point["curve"], Curve(point["curve"], point["axis"]))
            values = [sample["value"] for sample in one["samples"]]
            figures = (point["at"], min(values), one["median"], max(values))
            curve.lines.setdefault(one["name"], []).append(figures)
    return list(found.values())


def svg(results: dict[str, Any]) -> str:
    """The whole chart."""
    curves = curves_of(results)
    height = _PANEL * len(curves)
    label = "; ".join(f"{curve.title} over {curve.axis}" for curve in curves)
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
            f'aria-label="{escape(label)}">'
        ),
        f"<style>{STYLE}</style>",
        f'<rect class="ground" width="{_WIDTH}" height="{height}"/>',
        *(part for number, curve in enumerate(curves) for part in _panel(curve, _PANEL * number)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _panel(curve: Curve, top: int) -> Iterator[str]:
    yield f'<text class="title" x="12" y="{top + 30}">{escape(curve.title)}</text>'
    floor = top + _TOP + _HEIGHT
    yield from _axes(curve, floor)
    for number, (name, points) in enumerate(curve.lines.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        spots = [
            (_across(curve, at), *(_up(curve, floor, value) for value in figures))
            for at, *figures in points
        ]
        line = " ".join(f"{x:.1f},{median:.1f}" for x, _, median, _ in spots)
        yield f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>'
        for x, low, median, high in spots:
            yield (
                f'<line x1="{x:.1f}" y1="{low:.1f}" x2="{x:.1f}" y2="{high:.1f}" '
                f'stroke="{colour}" stroke-width="1"/>'
            )
            yield _mark(number, x, median, colour)
        y = top + _TOP + 12 + _LEGEND_STEP * number
        yield _mark(number, _WIDTH - _RIGHT + 24, y - 4, colour)
        yield f'<text x="{_WIDTH - _RIGHT + 38}" y="{y}">{escape(name)}</text>'
        last = _figure(points[-1][2])
        yield f'<text x="{_WIDTH - _RIGHT + 38}" y="{y + 14}">{last} at {points[-1][0]:,}</text>'


def _axes(curve: Curve, floor: int) -> Iterator[str]:
    right = _WIDTH - _RIGHT
    for quarter in range(5):
        value = curve.most * quarter / 4
        y = _up(curve, floor, value)
        kind = "level" if not quarter else "grid"
        yield f'<line class="{kind}" x1="{_LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>'
        text = _figure(value)
        yield f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
    for at in curve.places:
        x = f"{_across(curve, at):.1f}"
        yield f'<line class="grid" x1="{x}" y1="{floor}" x2="{x}" y2="{floor + 5}"/>'
        yield f'<text x="{x}" y="{floor + 20}" text-anchor="middle">{at:,}</text>'
    middle = (_LEFT + right) / 2
    yield f'<text x="{middle}" y="{floor + 40}" text-anchor="middle">{escape(curve.axis)}</text>'


def _across(curve: Curve, at: int) -> float:
    """Where a place is, in pixels from the left."""
    first, last = log10(curve.places[0]), log10(curve.places[-1])
    share = (log10(at) - first) / ((last - first) or 1)
    return _LEFT + 16 + share * (_WIDTH - _LEFT - _RIGHT - 32)


def _up(curve: Curve, floor: int, value: float) -> float:
    """Where a value is, in pixels from the top."""
    return floor - _HEIGHT * value / curve.most


def _mark(number: int, x: float, y: float, colour: str) -> str:
    """A dot, a square, a triangle or a diamond."""
    shapes = (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4"',
        f'<rect x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8"',
        f'<path d="M{x - 5:.1f} {y + 4:.1f}h10l-5 -9z"',
        f'<path d="M{x:.1f} {y - 5:.1f}l5 5l-5 5l-5 -5z"',
    )
    return f'{shapes[number % len(shapes)]} fill="{colour}"/>'


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 20 or value == int(value) else f"{value:.1f}"
