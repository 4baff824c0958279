"""Charts of numbers, by matplotlib: histograms, bars and a scatter of image sizes.

In: numbers, a title and what the axes count. Out: a Figure, which `png` turns into a file. Where
there is nothing to show, the chart says so. An axis is logarithmic, and says so, where its largest
value is more than LONG_TAIL times the median.
"""

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from ..lettering import families

SIZE = (800, 480)  # pixels
DPI, PAD_INCHES = 100, 0.12
BINS, LOG_BINS = 80, 30  # at most
LEAST_BINS = 11  # a lone bar is no wall, and stands in the middle
LONG_TAIL = 8
MAX_BARS = 12
MAX_CHARACTERS = 40  # of the name of a bar
BAR_PIXELS, BARS_PIXELS = 26, 110  # a bar, and what stands around the bars
MAX_LISTED = 14  # sizes
DOT_AREAS = 30, 400  # of the rarest and of the most frequent size, in square points
MANY = 50  # sizes, from which on dots are smaller
BAR, MARK, GREY, GRID = "#426eb4", "#c8501e", "#6e6e6e", "#e1e1e1"


def png(figure: Figure) -> bytes:
    """Return a chart as a PNG file; equal charts give equal bytes."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def nothing(title: str) -> Figure:
    """Draw a chart that has no data."""
    figure = _figure(SIZE[1])
    _say_none(figure.add_subplot(), title)
    return figure


def histogram(values_n: Sequence[int] | np.ndarray, title: str, unit: str) -> Figure:
    """Draw how many documents have which of these whole numbers, at least 1, counted in `unit`.

    Lines mark the median and the 95th percentile.
    """
    values_n = np.asarray(values_n, np.int64)
    if not values_n.size:
        return nothing(title)
    figure = _figure(SIZE[1])
    axes = figure.add_subplot()
    is_log = _has_long_tail(values_n)
    edges = _edges(values_n, is_log)
    axes.hist(values_n, edges, color=BAR, edgecolor="white", linewidth=0.5)
    axes.set_xlim(edges[0], edges[-1])
    marks = {
        "median": (np.median(values_n), "-"),
        "95th percentile": (np.percentile(values_n, 95), "--"),
    }
    for name, (value, style) in marks.items():
        axes.axvline(value, color=MARK, linestyle=style, label=f"{name}: {value:,.0f} {unit}")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False)
    axes.set_title(title, loc="left")
    _scale(axes.xaxis, unit, is_log)
    _scale(axes.yaxis, "documents", False)
    axes.grid(axis="y", color=GRID)
    axes.set_axisbelow(True)
    return figure


def bars(counts_of: Mapping[str, Mapping[str, int]], unit: str) -> Figure:
    """Draw one chart below another, by title: a bar for each name, the longest first.

    `unit` says what the numbers count.
    """
    heights = [
        BARS_PIXELS + BAR_PIXELS * max(1, min(len(counts), MAX_BARS))
        for counts in counts_of.values()
    ]
    figure = _figure(sum(heights))
    charts = figure.subplots(len(heights), squeeze=False, height_ratios=heights)[:, 0]
    for axes, (title, counts) in zip(charts, counts_of.items(), strict=True):
        _bars(axes, title, counts, unit) if counts else _say_none(axes, title)
    return figure


def scatter(sizes: Mapping[tuple[int, int], int], title: str) -> Figure:
    """Draw images by width and height: the larger a dot, the more images; list the usual sizes."""
    if not sizes:
        return nothing(title)
    figure = _figure(SIZE[1])
    axes, margin = figure.subplots(1, 2, width_ratios=(4, 1))
    ordered = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))
    sides_n2 = np.array([size for size, _ in ordered])
    counts_n = np.array([count for _, count in ordered])
    least, most = (area * min(1, MANY / len(sizes)) for area in DOT_AREAS)
    areas_n = least + (most - least) * counts_n / counts_n.max()
    axes.scatter(*sides_n2.T, areas_n, color=BAR, alpha=0.6, edgecolors=BAR)
    axes.set_title(title, loc="left")
    is_log = any(_has_long_tail(np.repeat(side_n, counts_n)) for side_n in sides_n2.T)
    for axis, side in ((axes.xaxis, "width"), (axes.yaxis, "height")):
        _scale(axis, f"{side}, pixels", is_log)
    if not is_log:
        axes.margins(0.1)
        axes.set(xlim=(0, None), ylim=(0, None))
    axes.grid(color=GRID)
    axes.set_axisbelow(True)
    _list(margin, ordered)
    return figure


def _figure(height: int) -> Figure:
    figure = Figure((SIZE[0] / DPI, height / DPI), DPI)
    figure.set_layout_engine("constrained", w_pad=PAD_INCHES, h_pad=PAD_INCHES)
    return figure


def _has_long_tail(values_n: np.ndarray) -> bool:
    """Tell whether the largest value would press the usual ones against the axis."""
    return bool(values_n.max() > LONG_TAIL * np.median(values_n))


def _edges(values_n: np.ndarray, is_log: bool) -> list[float]:
    """Return the edges of bins: of equal width on the axis, as far as whole numbers allow it."""
    first, last = int(values_n.min()), int(values_n.max())
    if is_log:
        return np.unique(np.geomspace(first, last + 1, LOG_BINS).round()).tolist()
    room = max(0, LEAST_BINS - (last - first)) // 2
    round_numbers = MaxNLocator(BINS, steps=[1, 2, 5, 10], integer=True)
    edges = round_numbers.tick_values(max(0, first - room), last + room + 1)
    return [edge - 0.5 for edge in edges]  # a bar of one number stands above it


def _scale(axis: Axis, label: str, is_log: bool) -> None:
    """Label an axis and its round numbers."""
    if is_log:
        axis.axes.set(**{"xscale" if isinstance(axis, XAxis) else "yscale": "log"})
        is_short = axis.get_data_interval()[1] < 1000 * axis.get_minpos()
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if is_short else (1,)))
        axis.set_minor_locator(NullLocator())
    else:
        axis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
    axis.set_major_formatter(lambda value, _: "" if 0 < value < 1 else f"{value:,.0f}")
    axis.set_label_text(f"{label}, logarithmic" if is_log else label)
    axis.axes.spines[["top", "right"]].set_visible(False)


def _bars(axes: Axes, title: str, counts: Mapping[str, int], unit: str) -> None:
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    names = [_short(name) for name, _ in ordered[:MAX_BARS]]
    shown_n = np.array([count for _, count in ordered[:MAX_BARS]])
    drawn = axes.barh(range(len(names)), shown_n, color=BAR)
    axes.bar_label(drawn, fmt="{:,.0f}", padding=4)
    # A name may hold anything: $ begins no formula here.
    axes.set_yticks(range(len(names)), names, parse_math=False, family=families("".join(names)))
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.set_title(title, loc="left")
    _scale(axes.xaxis, unit, _has_long_tail(shown_n))
    if rest := ordered[MAX_BARS:]:
        words = f"and {len(rest):,} more, {sum(count for _, count in rest):,} in all"
        axes.annotate(
            words, (1, 0), (0, 6), "axes fraction", "offset points", ha="right", color=GREY
        )


def _short(name: str) -> str:
    """Return the end of a name, where file names differ."""
    return name if len(name) <= MAX_CHARACTERS else f"…{name[1 - MAX_CHARACTERS :]}"


def _list(axes: Axes, ordered: Sequence[tuple[tuple[int, int], int]]) -> None:
    """Write the most frequent sizes beside a scatter."""
    lines = [f"{width} x {height}: {count:,}" for (width, height), count in ordered[:MAX_LISTED]]
    if rest := ordered[MAX_LISTED:]:
        lines.append(f"{len(rest):,} other sizes: {sum(count for _, count in rest):,}")
    axes.set_axis_off()
    words = "\n".join(["images by size", "", *lines])
    axes.text(0, 1, words, color=GREY, va="top", linespacing=1.4, transform=axes.transAxes)


def _say_none(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left")
    axes.set_axis_off()
    axes.text(0.5, 0.5, "none", color=GREY, ha="center", va="center", transform=axes.transAxes)
