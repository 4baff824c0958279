"""Numbers as images: histograms, bars and a scatter of sizes, drawn with Pillow alone.

Every chart has a title and says so where there is nothing to show. Charts are SIZE pixels large,
with named axes and round numbers on them; bars are as wide, and as high as they need.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIZE = (800, 480)  # pixels
LEFT, TOP, RIGHT, BOTTOM = 80, 92, 770, 410  # of the area inside the axes
LEGEND = 190  # pixels beside a scatter
BINS = 80  # at most
MAX_BARS, BAR_HEIGHT = 12, 30
INK, GREY, GRID = (30, 30, 30), (110, 110, 110), (225, 225, 225)
BAR, MARK = (66, 110, 180), (200, 80, 30)
LEAST_BINS = 11
SMOOTH = 4  # dots are drawn so many times larger, then reduced


class Chart:
    """A page with a title, and axes from 0 or `first` to where their last round number lies."""

    def __init__(self, title: str, height: int = SIZE[1]) -> None:
        self.image = Image.new("RGB", (SIZE[0], height), "white")
        self.draw = ImageDraw.Draw(self.image)
        self.text((LEFT, 18), title, INK, 18)

    def text(
        self, at: tuple[float, float], words: str, colour: tuple[int, int, int] = INK,
        size: int = 13, anchor: str = "la",
    ) -> None:  # fmt: skip
        """Words at a place; `anchor` as Pillow has it: l, m, r and a (top), m, s (bottom)."""
        self.draw.text(at, words, colour, ImageFont.load_default(size), anchor=anchor)

    def width(self, words: str, size: int = 13) -> float:
        """Pixels that words take."""
        return ImageFont.load_default(size).getlength(words)

    def x_axis(self, label: str, first: float, last: float, right: float = RIGHT) -> None:
        """Round numbers below the chart, from `first` to `last`, and what they count."""
        for value in ticks(first, last):
            x = LEFT + (value - first) / (last - first) * (right - LEFT)
            self.draw.line((x, BOTTOM, x, BOTTOM + 5), GREY)
            self.text((x, BOTTOM + 9), f"{value:,}", GREY, anchor="ma")
        self.draw.line((LEFT, BOTTOM, right, BOTTOM), GREY)
        self.text(((LEFT + right) / 2, BOTTOM + 36), label, anchor="ma")

    def y_axis(self, label: str, last: float, right: float = RIGHT) -> None:
        """Round numbers and lines from 0 to `last`, and what they count."""
        for value in ticks(0, last, about=5):
            y = BOTTOM - value / last * (BOTTOM - TOP)
            self.draw.line((LEFT, y, right, y), GRID)
            self.text((LEFT - 8, y), f"{value:,}", GREY, anchor="rm")
        self.text((LEFT / 4, TOP - 17), label, anchor="lm")

    def nothing(self) -> Image.Image:
        """The page of a chart without data."""
        self.text((SIZE[0] / 2, self.image.height / 2), "none", GREY, 18, "mm")
        return self.image


def step(span: float, about: int) -> int:
    """The round whole number that cuts a span into about so many parts."""
    least = max(1.0, span / about)
    power = 10 ** math.floor(math.log10(least))
    return math.ceil(next(f * power for f in (1, 2, 5, 10) if f * power >= least * 0.999))


def ticks(first: float, last: float, about: int = 8) -> range:
    """Round whole numbers from `first` to `last`."""
    by = step(last - first, about)
    return range(math.ceil(first / by) * by, math.floor(last) + 1, by)


def histogram(values_n: Sequence[int] | np.ndarray, title: str, axis: str) -> Image.Image:
    """How many of these whole numbers lie where; median and 95th percentile are marked."""
    values_n, chart = np.asarray(values_n, dtype=np.int64), Chart(title)
    if not values_n.size:
        return chart.nothing()
    by = step(values_n.max() - values_n.min() + 1, BINS)
    first = int(values_n.min()) // by * by
    bins = (int(values_n.max()) - first) // by + 1
    if bins < LEAST_BINS:  # a single bar is no wall, and stands in the middle
        first, bins = max(0, first - by * ((LEAST_BINS - bins) // 2)), LEAST_BINS
    last = first + bins * by
    counts = np.bincount((values_n - first) // by, minlength=bins).tolist()
    most = _round_up(max(counts), 5)
    chart.y_axis("documents", most)
    width = (RIGHT - LEFT) / bins
    for number, count in enumerate(counts):
        if count:
            x, top = LEFT + number * width, BOTTOM - count / most * (BOTTOM - TOP)
            chart.draw.rectangle((x, min(top, BOTTOM - 1), x + max(width - 2, 1), BOTTOM), BAR)
    chart.x_axis(f"{axis} (bars of {by:,})" if by > 1 else axis, first, last)
    _mark(chart, values_n, first, last)
    return chart.image


def _mark(chart: Chart, values_n: np.ndarray, first: float, last: float) -> None:
    """Lines where half and 95 % of the values lie to the left, named above the bars."""
    marks = {"median": np.median(values_n), "95 %": np.percentile(values_n, 95)}
    for (name, value), y in zip(marks.items(), (TOP - 34, TOP - 17), strict=True):
        x = LEFT + (value - first) / (last - first) * (RIGHT - LEFT)
        chart.draw.line((x, y - 7, x, BOTTOM), MARK)
        words = f"{name} {value:,.0f}"
        fits = x + 6 + chart.width(words) < SIZE[0]
        chart.text((x + 5 if fits else x - 5, y), words, MARK, anchor="lm" if fits else "rm")


def _round_up(most: int, parts: int) -> int:
    """The least round number from `most` on, as ticks have it."""
    by = step(most, parts)
    return -(-most // by) * by


def bars(counts: Mapping[str, int], title: str) -> Image.Image:
    """A bar for each name, the longest first, with its name and count."""
    chart = Chart(title, TOP + BAR_HEIGHT * min(len(counts) + 1, MAX_BARS + 1))
    if not counts:
        return chart.nothing()
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    shown = [(_short(name), count) for name, count in ordered[:MAX_BARS]]
    most = max(shown[0][1], 1)
    begin = LEFT / 2 + max(chart.width(name) for name, _ in shown) + 10
    room = RIGHT - begin - chart.width(f"{most:,}") - 6
    for number, (name, count) in enumerate(shown):
        top = TOP - 32 + number * BAR_HEIGHT
        middle, end = top + BAR_HEIGHT / 2, begin + max(1.0, count / most * room)
        chart.draw.rectangle((begin, top + 4, end, top + BAR_HEIGHT - 4), BAR)
        chart.text((begin - 10, middle), name, anchor="rm")
        chart.text((end + 6, middle), f"{count:,}", anchor="lm")
    if rest := ordered[MAX_BARS:]:
        words = f"and {len(rest):,} more, {sum(count for _, count in rest):,} in all"
        chart.text((begin, TOP - 32 + MAX_BARS * BAR_HEIGHT + 12), words, GREY)
    return chart.image


def _short(name: str, most: int = 40) -> str:
    """The end of a name, where file names differ."""
    return name if len(name) <= most else f"…{name[1 - most :]}"


def scatter(sizes: Mapping[tuple[int, int], int], title: str) -> Image.Image:
    """Images by width and height: the larger a dot, the more; the most frequent are listed."""
    chart = Chart(title)
    if not sizes:
        return chart.nothing()
    right = RIGHT - LEGEND
    wide, high = (_round_up(max(size[side] for size in sizes) + 1, 8) for side in (0, 1))
    chart.y_axis("height, pixels", high, right)
    chart.x_axis("width, pixels", 0, wide, right)
    most = max(sizes.values())
    mask = Image.new("L", (SIZE[0] * SMOOTH, SIZE[1] * SMOOTH))
    draw = ImageDraw.Draw(mask)
    for (width, height), count in sorted(sizes.items(), key=lambda item: item[1]):
        x, y = LEFT + width / wide * (right - LEFT), BOTTOM - height / high * (BOTTOM - TOP)
        radius = 3 + 9 * math.sqrt(count / most)
        box = [SMOOTH * v for v in (x - radius, y - radius, x + radius, y + radius)]
        draw.ellipse(box, 150, 230, SMOOTH)
    chart.image.paste(BAR, mask=mask.resize(SIZE, Image.Resampling.BOX))
    _list(chart, sizes, right + 24)
    return chart.image


def _list(chart: Chart, sizes: Mapping[tuple[int, int], int], x: float) -> None:
    ordered = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))
    lines = [f"{width} x {height}: {count:,}" for (width, height), count in ordered[:MAX_BARS]]
    if len(ordered) > MAX_BARS:
        rest = sum(count for _, count in ordered[MAX_BARS:])
        lines.append(f"{len(ordered) - MAX_BARS:,} other sizes: {rest:,}")
    chart.text((x, TOP), "images by size")
    for number, line in enumerate(lines, start=1):
        chart.text((x, TOP + 8 + 20 * number), line, GREY)
