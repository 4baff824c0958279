"""Tables and plots of a comparison of heads, from what is known so far.

In: a `Result` of each head. Out: cells for markdown.py, and PNG files by matplotlib.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from unimodal.atomic import write_bytes

from .head_costs import HeadCost
from .head_exams import Estimate, Scores
from .laboratory import Drawing, Head
from .markdown import interval

HEADS_HEAD = (
    "head", "learning rate", "seeds", "questions", "without the image", "drawing", "single object",
    "edits", "CPU s an image",
)  # fmt: skip
COSTS_HEAD = (
    "head", "parameters of layers", "of all", "steps", "positions, 10^6", "of documents",
    "images seen", "places predicted, 10^6", "FLOPs, 10^12", "CPU min, tokenizer", "CPU min, model",
)  # fmt: skip
RATES_HEAD = ("head", "learning rate", "mean", "questions", "drawing", "edits")
DRAWINGS_HEAD = ("head", "steps", "solver", "passes", "CPU s an image", "drawing", "single object")
GAIN, SINGLE = 0.25, 0.50  # what a head that learned reaches
EXPECTED = "next_code > masked > flow"
COLOURS = {"next_code": "#426eb4", "masked": "#c8501e", "flow": "#2a8c5a", "scale": "#8c4fa8"}
OTHER = "#6e6e6e"
PARTS: dict[str, Callable[[Scores], Estimate | None]] = {
    "questions": lambda scores: scores.questions,
    "drawing": lambda scores: scores.drawing,
    "edits": lambda scores: scores.edits,
}


@dataclass
class Result:
    """What is known of a head."""

    head: Head
    cost: HeadCost
    steps: int
    tokenizer_minutes: float
    sweep: dict[float, Scores | None] = field(default_factory=dict)
    """By learning rate; None: its loss was not finite."""
    lr: float | None = None
    flops: float | None = None
    """Those of the best run, as it logged them."""
    model_minutes: float | None = None
    seeds: list[Scores] = field(default_factory=list)
    drawings: dict[Drawing, tuple[Scores, float]] = field(default_factory=dict)
    """Scores and CPU seconds an image, of the first seed."""
    curve: list[tuple[float, Scores]] = field(default_factory=list)
    """(FLOPs, scores) of checkpoints of the first seed, the last one included."""


def head_cells(result: Result) -> list[str]:
    """Return a row of the comparison; a score is the mean of seeds, with the least and the most."""
    if not result.seeds:
        return [result.head.name, *[""] * (len(HEADS_HEAD) - 1)]
    main = result.drawings.get(result.head.main)
    return [
        result.head.name, f"{result.lr:g}", str(len(result.seeds)),
        *(of_seeds([getattr(one, name) for one in result.seeds])
          for name in ("questions", "blind", "drawing", "single", "edits")),
        "" if main is None else f"{main[1]:.3f}",
    ]  # fmt: skip


def of_seeds(scores: Sequence[Estimate]) -> str:
    """Return the mean with the least and the most; of one seed its 95 % interval."""
    if len(scores) == 1:
        return interval(dict(scores[0]), 3)
    values = [one["value"] for one in scores]
    return f"{sum(values) / len(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def cost_cells(result: Result) -> list[str]:
    """Return a row of what training took."""
    cost, steps = result.cost, result.steps
    flops = steps * cost.step_flops if result.flops is None else result.flops
    minutes = "" if result.model_minutes is None else f"{result.model_minutes:.1f}"
    return [
        result.head.name, f"{cost.layer_parameters:,}", f"{cost.parameters:,}", f"{steps:,}",
        f"{steps * cost.step_positions / 1e6:.2f}", f"{steps * cost.step_tokens / 1e6:.2f}",
        f"{steps * cost.step_images:,.0f}", f"{steps * cost.step_targets / 1e6:.2f}",
        f"{flops / 1e12:,.2f}", f"{result.tokenizer_minutes:.1f}", minutes,
    ]  # fmt: skip


def rate_cells(result: Result) -> list[list[str]]:
    """Return a row for each learning rate."""
    rows = []
    for lr, scores in result.sweep.items():
        told = ["not finite", "", "", ""]
        if scores is not None:
            parts = [part(scores) for part in PARTS.values()]
            told = [f"{scores.mean:.3f}", *(interval(dict(one), 3) for one in parts if one)]
        rows.append([result.head.name, f"{lr:g}", *told])
    return rows


def drawing_cells(result: Result) -> list[list[str]]:
    """Return a row for each number of steps and solver."""
    return [
        [result.head.name, "" if one.steps is None else str(one.steps), one.solver or "",
         str(result.cost.passes[one.name]), f"{each_s:.3f}", interval(dict(scores.drawing), 3),
         interval(dict(scores.single), 3)]
        for one, (scores, each_s) in result.drawings.items()
    ]  # fmt: skip


def said(results: Sequence[Result]) -> list[str]:
    """Return sentences: the order of heads beside the expected one, and which of them learned."""
    done = [result for result in results if result.seeds]
    lines = [
        f"{name}, the best first: {order(done, name)}."
        for name in ("drawing", "edits", "questions")
    ]
    learned = [
        one.head.name for one in done if _gain(one) >= GAIN and mean(one, "single") >= SINGLE
    ]
    return [
        *lines,
        f"Expected at low compute for drawing: {EXPECTED}; masked perhaps best at edits.",
        f"Questions {GAIN} above those without the image and single object {SINGLE}: "
        f"{', '.join(learned) or 'none'}.",
    ]  # fmt: skip


def order(results: Sequence[Result], name: str) -> str:
    """Return the heads by the mean of their seeds in a part, with it."""
    found = sorted(results, key=lambda one: -mean(one, name))
    words = [f"{one.head.name} {mean(one, name):.3f}" for one in found[:1]]
    for before, one in pairwise(found):
        sign = ">" if mean(before, name) > mean(one, name) else "="
        words.append(f"{sign} {one.head.name} {mean(one, name):.3f}")
    return " ".join(words)


def mean(result: Result, name: str) -> float:
    """Return the mean of a score over seeds."""
    return sum(getattr(one, name)["value"] for one in result.seeds) / len(result.seeds)


def _gain(result: Result) -> float:
    return mean(result, "questions") - mean(result, "blind")


def compute_plot(results: Sequence[Result]) -> Figure:
    """Draw scores against training FLOPs: checkpoints of the first seed, and its end."""
    figure = Figure(figsize=(12, 4), dpi=100, layout="constrained")
    panels = figure.subplots(1, len(PARTS), sharex=True)
    for axes, (name, part) in zip(panels, PARTS.items(), strict=True):
        for result in results:
            points = [(flops, part(scores)) for flops, scores in result.curve]
            colour = COLOURS.get(result.head.name, OTHER)
            known = [(flops / 1e12, score) for flops, score in points if score is not None]
            _line(axes, result.head.name, known)
            if name == "questions" and result.seeds:  # without the image
                axes.axhline(mean(result, "blind"), color=colour, linestyle=":", linewidth=1)
        _finish(axes, name, "training compute, 10^12 FLOPs")
    panels[0].legend(frameon=False)
    return figure


def drawing_plot(results: Sequence[Result]) -> Figure:
    """Draw the score of drawing against CPU seconds an image, and against passes over it."""
    figure = Figure(figsize=(11, 4.4), dpi=100, layout="constrained")
    by_time, by_passes = figure.subplots(1, 2, sharey=True)
    for result in results:
        for solver in dict.fromkeys(one.solver for one in result.drawings):
            name = " ".join(filter(None, (result.head.name, solver)))
            here = [(d, *found) for d, found in result.drawings.items() if d.solver == solver]
            style = "--" if solver == "heun" else "-"
            times = sorted((each_s, scores.drawing) for _, scores, each_s in here)
            passes = sorted((result.cost.passes[d.name], s.drawing) for d, s, _ in here)
            _line(by_time, name, times, style, result.head.name)
            _line(by_passes, name, passes, style, result.head.name)
    for axes, unit in ((by_time, "CPU seconds an image"), (by_passes, "passes over an image")):
        axes.set_xscale("log")
        _finish(axes, "drawing", unit)
    by_passes.legend(frameon=False)
    return figure


def _line(
    axes: Axes, name: str, points: Sequence[tuple[float, Estimate]], style: str = "-",
    head: str | None = None,
) -> None:  # fmt: skip
    """Draw points with the bars of their intervals."""
    if not points:
        return
    colour = COLOURS.get(head or name, OTHER)
    values = [score["value"] for _, score in points]
    low = [max(0.0, score["value"] - score["low"]) for _, score in points]
    high = [max(0.0, score["high"] - score["value"]) for _, score in points]
    axes.errorbar(
        [x for x, _ in points], values, [low, high], fmt=f"o{style}", color=colour, label=name,
        markersize=4, capsize=2, linewidth=1.3,
    )  # fmt: skip


def _finish(axes: Axes, title: str, unit: str) -> None:
    axes.set_title(title)
    axes.set_xlabel(unit)
    axes.set_ylim(-0.02, 1.02)
    axes.grid(color="#e1e1e1")
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def save(figure: Figure, path: Path) -> None:
    """Write a plot as a PNG."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    write_bytes(path, stream.getvalue())
