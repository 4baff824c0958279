"""The chart of a plan for several numbers of GPUs: hours, a step, memory, useful share."""

import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, PercentFormatter

from unimodal.data.inspect.charts import BAR, DPI, GREY, GRID, MARK, png

from .assumptions import Assumptions
from .scale import Forecast
from .shown import assumptions

SIZE = (11.0, 8.5)  # inches
HEAD = 0.13  # of the height, for what is assumed
COLUMNS = 165  # of its text
LIGHT, DARK = "#a9c1e3", "#23406e"
STATE = ("weights", "gradients", "master weights", "moments", "EMA")


def drawn(found: Sequence[Forecast], assumed: Assumptions) -> bytes:
    """Return a PNG file with what is assumed at its head."""
    figure = Figure(SIZE, DPI)
    figure.set_layout_engine("constrained", rect=(0, 0, 1, 1 - HEAD))
    lines = assumptions(found[0].plan, assumed)
    words = "\n".join(textwrap.fill(line, COLUMNS) for line in lines)
    figure.text(0.02, 0.985, words, va="top", fontsize=8, color=GREY, parse_math=False)
    (hours, step), (memory, useful) = figure.subplots(2, 2)
    _hours(hours, found)
    _step(step, found)
    _memory(memory, found)
    _useful(useful, found)
    for axes in (hours, step, useful):
        axes.set_xscale("log", base=2)
        axes.set_xticks([one.plan.num_gpus for one in found], _names(found))
        axes.xaxis.set_minor_locator(NullLocator())
    for axes in (hours, step, memory, useful):
        axes.set_xlabel("GPUs")
        axes.tick_params(axis="x", labelrotation=45 if len(found) > 6 else 0)
        axes.grid(axis="y", color=GRID)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    return png(figure)


def _names(found: Sequence[Forecast]) -> list[str]:
    return [f"{one.plan.num_gpus:,}" for one in found]


def _line(
    axes: Axes, found: Sequence[Forecast], values: list[float], name: str, color: str,
    linestyle: str = "-", width: float = 1.5,
) -> None:  # fmt: skip
    axes.plot([one.plan.num_gpus for one in found], values, marker="o", markersize=4,
              label=name, color=color, linestyle=linestyle, linewidth=width)  # fmt: skip


def _hours(axes: Axes, found: Sequence[Forecast]) -> None:
    first = found[0]
    ideal = [first.hours * first.plan.num_gpus / one.plan.num_gpus for one in found]
    _line(axes, found, ideal, "if all GPUs worked as the fewest do", color=GREY, linestyle=":")
    _line(axes, found, [one.hours for one in found], "predicted", color=BAR)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    title = "hours of the run, logarithmic"
    if first.usd is not None:
        title += ", and its price"
        for one in found:
            axes.annotate(_usd(one.usd), (one.plan.num_gpus, one.hours), (2, 4), fontsize=7,
                          textcoords="offset points", color=MARK, rotation=35)  # fmt: skip
        axes.margins(x=0.12, y=0.15)
    axes.set_title(title, loc="left", fontsize=10)


def _usd(price: float | None) -> str:
    assert price is not None, "a price is said for all or for none"
    return f"{price / 1e3:,.1f}k USD" if price >= 1e3 else f"{price:,.0f} USD"


def _step(axes: Axes, found: Sequence[Forecast]) -> None:
    sent = [one.plan.transfer.seconds for one in found]
    latency = [one.plan.transfer.latency_s for one in found]
    _line(axes, found, [one.plan.likely_s for one in found], "a step", color=LIGHT, width=6)
    _line(axes, found, [one.plan.computed_s for one in found], "computing", color=BAR)
    _line(axes, found, sent, "sending", color=MARK)
    _line(axes, found, latency, "of which latency", color=MARK, linestyle=":")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.set_title("seconds of a step, logarithmic", loc="left", fontsize=10)


def _memory(axes: Axes, found: Sequence[Forecast]) -> None:
    parts = {
        "weights, gradients, moments": [_gb(one, STATE) for one in found],
        "gathered weights": [_gb(one, ("gathered parameters",)) for one in found],
        "activations": [_gb(one, ("activations",)) for one in found],
    }
    totals = [one.plan.total_bytes / 1e9 for one in found]
    parts["all else"] = [
        total - sum(values) for total, *values in zip(totals, *parts.values(), strict=True)
    ]
    below = [0.0] * len(found)
    for (name, values), colour in zip(parts.items(), (DARK, BAR, LIGHT, GRID), strict=True):
        axes.bar(_names(found), values, bottom=below, label=name, color=colour)
        below = [low + value for low, value in zip(below, values, strict=True)]
    axes.axhline(found[0].plan.memory_gb, color=MARK, linestyle="--", label="there is")
    axes.set_title("memory of a GPU, GB", loc="left", fontsize=10)


def _gb(one: Forecast, names: Sequence[str]) -> float:
    return sum(one.plan.bytes_of(name) for name in names) / 1e9


def _useful(axes: Axes, found: Sequence[Forecast]) -> None:
    _line(axes, found, [one.best.share for one in found], "saved at the best interval", color=BAR)
    every = f"saved every {found[0].saved.every_steps} steps"
    _line(axes, found, [one.saved.share for one in found], every, color=MARK)
    for one in found:
        axes.annotate(f"{one.best.every_steps}", (one.plan.num_gpus, one.best.share), (0, 5),
                      textcoords="offset points", fontsize=7, color=BAR)  # fmt: skip
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_title("useful share of the time, and the best steps between checkpoints",
                   loc="left", fontsize=10)  # fmt: skip
