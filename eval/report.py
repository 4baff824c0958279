"""Tables on the terminal or in Markdown and contact sheets of images, for people to look at.

A score is never shown alone: each row has its 95 % interval and the number of its samples, and the
recipe follows.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from unimodal.data.sheet import Paragraph, Strip, sheet

from .intervals import Estimate

HASH = re.compile(r"[0-9a-f]{40,}")  # of a commit or of contents
GREEN, RED, FAINT = (0, 130, 60), (190, 30, 30), (110, 110, 110)

Item = TypeVar("Item")


@dataclass(frozen=True)
class Cell:
    """Holds one place of a contact sheet: images from left to right, under them words, verdict."""

    images: tuple[np.ndarray, ...]
    """uint8 (H, W, 3); two of them stand for before -> after."""
    words: str
    verdict: str = ""
    """The answer, or why it is wrong."""
    right: bool | None = None
    """None: nothing was judged."""

    @property
    def parts(self) -> list[Strip | Paragraph]:
        """Lay the cell out: the last image's frame and the verdict tell right from wrong."""
        colour = {True: GREEN, False: RED, None: FAINT}[self.right]
        mark = {True: "right", False: "wrong", None: ""}[self.right]
        verdict = ": ".join(text for text in (mark, self.verdict) if text)
        return [Strip(self.images, colour), Paragraph(self.words), Paragraph(verdict, colour)]


@contextmanager
def bar(total: int, words: str) -> Iterator[Callable[[], None]]:
    """Show a progress bar on standard error if that is a terminal; yield a call to move it on."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as shown:
        task = shown.add_task(words, total=total)
        yield lambda: shown.advance(task)


def progress(items: Sequence[Item], words: str) -> Iterator[Item]:
    """Yield the items, with a bar that moves on with each."""
    with bar(len(items), words) as advance:
        for item in items:
            yield item
            advance()


def rows(
    scores: Mapping[str, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Estimate]]:
    """Yield every estimate in the nested scores with its path, in the order of the file."""
    for name, score in scores.items():
        if isinstance(score, Estimate):
            yield (*path, name), score
        elif isinstance(score, Mapping):
            yield from rows(score, (*path, name))


def with_scores(
    card: Mapping[str, Any], report: Mapping[str, Any], recipes: Sequence[str], before: str = ""
) -> dict[str, Any]:
    """Return a model's card that tells the scores of a report, as its table does.

    They take the places of those of the same parts, and the others stay. recipes: the names under
    which the report's recipe is told. before: what the names of scores begin with.
    """
    measured = {
        before + ".".join(path): score.json()
        for path, score in main_rows(report["scores"])
        if score.n
    }
    parts = tuple(f"{before}{part}." for part in report["scores"])
    others = {k: v for k, v in card.get("scores", {}).items() if not k.startswith(parts)}
    line = recipe_line(report["recipe"])
    return {**card, "scores": others | measured, **dict.fromkeys(recipes, line)}


def main_rows(scores: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Estimate]]:
    """Yield the rows of a table: of what lies deeper than the kinds of a part, `overall` alone."""
    return (row for row in rows(scores) if len(row[0]) <= 2 or row[0][-1] == "overall")


def terminal_table(scores: Mapping[str, Any], title: str) -> Table:
    """Return the scores as a rich table; the `overall` rows are bold."""
    table = Table(title=title)
    table.add_column("score", overflow="fold")
    for heading in ("value", "95 % interval", "n"):
        table.add_column(heading, justify="right")
    for path, score in main_rows(scores):
        table.add_row(*_texts(path, score), style="bold" if path[-1] == "overall" else None)
    return table


def markdown(scores: Mapping[str, Any], recipe: Mapping[str, Any]) -> str:
    """Return the scores as a Markdown table, and under it one line of the recipe."""
    lines = ["| score | value | 95 % interval | n |", "| --- | ---: | ---: | ---: |"]
    for path, score in main_rows(scores):
        cells = _texts(path, score)
        if path[-1] == "overall":
            cells = [f"**{cell}**" for cell in cells]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", recipe_line(recipe), ""])


def recipe_line(recipe: Mapping[str, Any]) -> str:
    """Return the recipe in one line: what the numbers depend on, hashes cut to 12 digits. Of what
    has names of its own the versions of packages are told.
    """
    told = {
        name: f"({recipe_line(value)})" if name == "versions" else _short(value)
        for name, value in recipe.items()
        if name == "versions" or not isinstance(value, Mapping)
    }
    return ", ".join(f"{name.replace('_', ' ')} {text}" for name, text in told.items())


def contact_sheet(cells: Sequence[Cell], columns: int = 8, scale: int = 2) -> Image.Image:
    """Draw the cells; the largest image is enlarged `scale` times, the others as far as it."""
    largest = max(max(image.shape[:2]) for cell in cells for image in cell.images)
    return sheet([cell.parts for cell in cells], columns, scale * largest)


def _texts(path: Sequence[str], score: Estimate) -> list[str]:
    interval = (
        "" if score.low is None or score.high is None else f"{score.low:.3f} to {score.high:.3f}"
    )
    value = "not measured" if score.value is None else f"{score.value:.3f}"
    return [" / ".join(name.replace("_", " ") for name in path), value, interval, str(score.n)]


def _short(value: str | int | float | None) -> str:
    if isinstance(value, str):
        return HASH.sub(lambda found: found[0][:12], value).replace("\n", "\\n")
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
