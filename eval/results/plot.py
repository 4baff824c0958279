"""Plots of estimates with their intervals, as inline SVG that fits any width.

In: rows of estimates, one for each run. Out: SVG text. Places along the axis are per cent of the
width and heights are pixels, so that words keep their size where the page is narrow; colours are
those of the page's style sheet (`run-0`, `run-1`, ... and `axis`), so that both themes hold.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from ..intervals import Estimate

DIGITS = 9  # beyond which sums of floats differ
LABEL_PX, RUN_PX, GAP_PX, AXIS_PX, DOT_PX = 20, 13, 6, 22, 4.5
MARGIN = 3.0  # per cent on either side, so that dots and ticks at the ends are whole
MOST_TICKS = 6


@dataclass(frozen=True)
class Axis:
    """What values the width stands for, and which are written under it."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def percent(self, value: float) -> str:
        """Return the place of a value."""
        share = (value - self.low) / (self.high - self.low)
        return f"{MARGIN + (100 - 2 * MARGIN) * share:.2f}%"


@dataclass(frozen=True)
class Row:
    """One score: its name, and an estimate of each run; None where a run has none."""

    label: str
    estimates: tuple[Estimate | None, ...]
    is_strong: bool = False

    def ends(self) -> list[float]:
        """Return every finite end and value; a mean of shares of 1 is 1, and not 1 + 2e-16."""
        known = [one for one in self.estimates if one is not None]
        found = [x for one in known for x in (one.low, one.value, one.high) if x is not None]
        return [round(x, DIGITS) for x in found]


def plot(rows: Sequence[Row], title: str) -> str:
    """Return the SVG of rows below each other on one axis; '' where nothing was measured."""
    ends = [end for row in rows for end in row.ends()]
    if not ends:
        return ""
    axis = axis_of(ends)
    heights = [LABEL_PX + RUN_PX * len(row.estimates) + GAP_PX for row in rows]
    height = sum(heights) + AXIS_PX
    parts = [_ticks(axis, height - AXIS_PX)]
    top = 0
    for row, taken in zip(rows, heights, strict=True):
        parts.append(_row(row, axis, top))
        top += taken
    words = escape(title)
    return (
        f'<svg class="plot" role="img" aria-label="{words}" width="100%" height="{height}">'
        f"<title>{words}</title>{''.join(parts)}</svg>"
    )


def axis_of(ends: Sequence[float]) -> Axis:
    """Return the axis that shows these values: 0 to 1 for shares, else from round numbers."""
    low, high = min(ends), max(ends)
    if 0 <= low and high <= 1:
        return Axis(0, 1, (0, 0.25, 0.5, 0.75, 1))
    if low < 0 < high or low == high:  # a difference has its 0, and a lone value some room
        low, high = min(low, 0), max(high, 0)
    step = _step((high - low) or 1)
    first, last = math.floor(low / step), math.ceil(high / step)
    ticks = tuple(number * step for number in range(first, max(last, first + 1) + 1))
    return Axis(ticks[0], ticks[-1], ticks)


def _step(width: float) -> float:
    """Return the least of 1, 2 or 5 times a power of ten that makes few ticks."""
    power = 10.0 ** math.floor(math.log10(width / MOST_TICKS))
    return next(k * power for k in (1, 2, 5, 10, 20) if width / (k * power) <= MOST_TICKS - 1)


def _ticks(axis: Axis, bottom: float) -> str:
    """Return the lines of round numbers, and their words."""
    parts = []
    for tick in axis.ticks:
        x, strong = axis.percent(tick), " zero" if tick == 0 and axis.low < 0 else ""
        parts.append(f'<line class="axis{strong}" x1="{x}" x2="{x}" y1="0" y2="{bottom}"/>')
        parts.append(
            f'<text class="tick" x="{x}" y="{bottom + 15}" text-anchor="middle">{tick:.6g}</text>'
        )
    return "".join(parts)


def _row(row: Row, axis: Axis, top: float) -> str:
    """Return a row's name and values on one line, and under it a line for each run."""
    told = " · ".join("–" if one is None else _told(one) for one in row.estimates)
    strong = " strong" if row.is_strong else ""
    parts = [
        f'<text class="label{strong}" x="0" y="{top + 15}">{escape(row.label)}</text>',
        f'<text class="label{strong}" x="100%" y="{top + 15}" text-anchor="end">{told}</text>',
    ]
    for run, one in enumerate(row.estimates):
        if one is not None and one.value is not None:
            parts.append(_estimate(one, axis, run, top + LABEL_PX + RUN_PX * run + 5))
    return "".join(parts)


def _estimate(one: Estimate, axis: Axis, run: int, y: float) -> str:
    assert one.value is not None, "it was measured"
    bar = ""
    if one.low is not None and one.high is not None:
        ends = f'x1="{axis.percent(one.low)}" x2="{axis.percent(one.high)}"'
        bar = f'<line class="bar" {ends} y1="{y}" y2="{y}"/>'
    dot = f'<circle class="dot" cx="{axis.percent(one.value)}" cy="{y}" r="{DOT_PX}"/>'
    return f'<g class="run-{run}">{bar}{dot}</g>'


def _told(one: Estimate) -> str:
    return "–" if one.value is None else f"{one.value:.3f}"
