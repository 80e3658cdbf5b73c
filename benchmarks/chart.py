"""A results file as a chart (SVG): a bar a comparison, from level with the peer to the ratio.

    python -m benchmarks chart results.json > docs/performance.svg

The axis is logarithmic, so twice as fast is as far to the right as half as fast is to the left.
A tick shows what was to be reached. Reads on light and on dark ground.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from math import log2
from typing import Any

from benchmarks.table import comparisons

_WIDTH, _NAMES, _RIGHT, _ROW, _TOP, _BOTTOM = 1040, 540, 70, 20, 70, 44
_LEAST, _MOST = 0.25, 64.0
_REACHED, _MISSED, _OPEN = "#2e7d32", "#b3541e", "#3b6ea5"
STYLE = (
    "text{font:12px sans-serif;fill:#333}.title{font-size:16px;font-weight:bold}"
    ".grid{stroke:#8886}.level{stroke:#333}.mark{stroke:#333;stroke-width:2}"
    ".ground{fill:#fff}"
    "@media(prefers-color-scheme:dark){text{fill:#ddd}.level,.mark{stroke:#ddd}"
    ".ground{fill:#181818}}"
)


@dataclass(frozen=True, slots=True)
class Bar:
    """One comparison: its name, the ratio of the medians, and the ratio to reach, if any."""

    name: str
    ratio: float
    target: float | None

    @property
    def colour(self) -> str:
        if self.target is None:
            return _OPEN
        return _REACHED if self.ratio >= self.target else _MISSED


def bars(results: dict[str, Any]) -> Iterator[Bar]:
    """The comparisons that have a ratio, in the order of the rows."""
    for row in results["rows"]:
        for ours, peer, verdict in comparisons(row):
            if peer is not None and verdict.figure and not verdict.at_most:
                name = f"{row['title']}: {ours['name']} to {peer['name']}"
                yield Bar(name, verdict.figure, verdict.target)


def svg(results: dict[str, Any]) -> str:
    """The whole chart."""
    found = list(bars(results))
    height = _TOP + _ROW * len(found) + _BOTTOM
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
            f'aria-label="twisted_dimse beside its peers">'
        ),
        f"<style>{STYLE}</style>",
        f'<rect class="ground" width="{_WIDTH}" height="{height}"/>',
        (
            '<text class="title" x="12" y="24">Our rate as a multiple of the peer\'s, '
            "in the same run</text>"
        ),
        (
            f'<text x="12" y="44">Right of the line 1 we are faster. '
            f"Median of {results['runs']} runs in turns; the axis is logarithmic.</text>"
        ),
        *_grid(height),
        *(part for place, bar in enumerate(found) for part in _bar(bar, _TOP + _ROW * place)),
        *_legend(height - 14),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _at(ratio: float) -> float:
    """Where a ratio stands, in pixels from the left."""
    inside = min(max(ratio, _LEAST), _MOST)
    share = log2(inside / _LEAST) / log2(_MOST / _LEAST)
    return _NAMES + share * (_WIDTH - _NAMES - _RIGHT)


def _grid(height: int) -> Iterator[str]:
    ratio = _LEAST
    while ratio <= _MOST:
        kind = "level" if ratio == 1 else "grid"
        x = f"{_at(ratio):.1f}"
        yield f'<line class="{kind}" x1="{x}" y1="{_TOP - 4}" x2="{x}" y2="{height - _BOTTOM}"/>'
        yield f'<text x="{x}" y="{_TOP - 8}" text-anchor="middle">{ratio:g}</text>'
        ratio *= 2


def _bar(bar: Bar, top: int) -> Iterator[str]:
    left, right = sorted((_at(1), _at(bar.ratio)))
    middle = top + _ROW - 6
    yield f'<text x="{_NAMES - 8}" y="{middle}" text-anchor="end">{escape(bar.name)}</text>'
    yield (
        f'<rect x="{left:.1f}" y="{top + 3}" width="{max(right - left, 1):.1f}" '
        f'height="{_ROW - 6}" fill="{bar.colour}"/>'
    )
    if bar.target is not None:
        x = f"{_at(bar.target):.1f}"
        yield f'<line class="mark" x1="{x}" y1="{top + 1}" x2="{x}" y2="{top + _ROW - 1}"/>'
    digits = f"{bar.ratio:.2f}" if bar.ratio < 10 else f"{bar.ratio:.0f}"
    yield f'<text x="{_WIDTH - 12}" y="{middle}" text-anchor="end">{digits}</text>'


def _legend(y: int) -> Iterator[str]:
    x = 12
    for colour, words in (
        (_REACHED, "reached"),
        (_MISSED, "not reached yet"),
        (_OPEN, "no mark is set"),
    ):
        yield f'<rect x="{x}" y="{y - 10}" width="12" height="12" fill="{colour}"/>'
        yield f'<text x="{x + 18}" y="{y}">{words}</text>'
        x += 150
    yield f'<line class="mark" x1="{x}" y1="{y - 12}" x2="{x}" y2="{y + 2}"/>'
    yield f'<text x="{x + 8}" y="{y}">what is to be reached</text>'
