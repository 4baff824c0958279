"""What people look at: a table on the terminal or in Markdown, and a contact sheet of images.

A score is never shown alone: each row has its 95 % interval and the number of its samples, and the
recipe follows.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from unimodal.atomic import write_bytes
from unimodal.transcript import save_image

from .intervals import Estimate
from .score import write

PAPER, INK, FAINT = (255, 255, 255), (30, 30, 30), (110, 110, 110)
GREEN, RED = (0, 130, 60), (190, 30, 30)
FONT_PIXELS = 13
GAP_PIXELS = 10

Item = TypeVar("Item")


@dataclass(frozen=True)
class Cell:
    """One place of a contact sheet: images from left to right, under them words and verdict."""

    images: tuple[np.ndarray, ...]  # uint8 (H, W, 3); two of them stand for before -> after
    words: str
    verdict: str = ""  # the answer, or why it is wrong
    right: bool | None = None  # None: nothing was judged


@contextmanager
def bar(total: int, words: str) -> Iterator[Callable[[], None]]:
    """A progress bar on standard error if that is a terminal; what it yields moves it on by one."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as shown:
        task = shown.add_task(words, total=total)
        yield lambda: shown.advance(task)


def progress(items: Sequence[Item], words: str) -> Iterator[Item]:
    """The items, with a bar that moves on with each."""
    with bar(len(items), words) as advance:
        for item in items:
            yield item
            advance()


def show(
    title: str, report: dict[str, Any], json_file: Path | None, markdown_file: Path | None
) -> None:
    """Print the report's table and recipe, and write its JSON and Markdown files if asked to."""
    console = Console()  # first, so that a full disk does not cost the scores too
    console.print(terminal_table(report["scores"], title))
    console.print(recipe_line(report["recipe"]), highlight=False)
    if json_file:
        write(json_file, report)
    if markdown_file:
        markdown_file.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(markdown_file, markdown(report["scores"], report["recipe"]).encode())


def rows(
    scores: Mapping[str, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Estimate]]:
    """Every estimate in the nested scores with its path, in the order of the file."""
    for name, score in scores.items():
        if isinstance(score, Estimate):
            yield (*path, name), score
        elif isinstance(score, Mapping):
            yield from rows(score, (*path, name))


def card_scores(scores: Mapping[str, Any]) -> dict[str, dict[str, float | int | None]]:
    """What a model's card tells: each part's overall and kinds, and the blind baseline's."""
    return {
        ".".join(path): score.json()
        for path, score in rows(scores)
        if len(path) == 2 or path[1:] == ("blind", "overall")
    }


def main_rows(scores: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Estimate]]:
    """The rows of a table: of what lies deeper than the kinds of a part, `overall` alone."""
    return (row for row in rows(scores) if len(row[0]) <= 2 or row[0][-1] == "overall")


def terminal_table(scores: Mapping[str, Any], title: str) -> Table:
    """The scores as a rich table; the `overall` rows are bold."""
    table = Table(title=title)
    table.add_column("score")
    for heading in ("value", "95 % interval", "n"):
        table.add_column(heading, justify="right")
    for path, score in main_rows(scores):
        table.add_row(*_texts(path, score), style="bold" if path[-1] == "overall" else None)
    return table


def markdown(scores: Mapping[str, Any], recipe: Mapping[str, Any]) -> str:
    """The scores as a Markdown table, and under it one line of the recipe."""
    lines = ["| score | value | 95 % interval | n |", "| --- | ---: | ---: | ---: |"]
    for path, score in main_rows(scores):
        cells = _texts(path, score)
        if path[-1] == "overall":
            cells = [f"**{cell}**" for cell in cells]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", recipe_line(recipe), ""])


def recipe_line(recipe: Mapping[str, Any]) -> str:
    """The recipe in one line: what the numbers depend on, hashes cut to 12 digits."""
    shown = {name: value for name, value in recipe.items() if not isinstance(value, Mapping)}
    return ", ".join(f"{name.replace('_', ' ')} {_short(value)}" for name, value in shown.items())


def contact_sheet(cells: Sequence[Cell], columns: int = 8, scale: int = 2) -> Image.Image:
    """The cells in a grid: images enlarged `scale` times, below them words and verdict."""
    assert cells, "a contact sheet of no images"
    images = [image for cell in cells for image in cell.images]
    high, wide = (scale * max(image.shape[axis] for image in images) for axis in (0, 1))
    wide += 2 * GAP_PIXELS
    return _grid(
        [_block(cell, scale, wide * len(cell.images), high) for cell in cells], wide * columns
    )


def save_sheet(sheet: Image.Image, path: str | Path) -> None:
    """Write the sheet as PNG, in one step."""
    save_image(sheet, Path(path))


def _grid(blocks: Sequence[Image.Image], width: int) -> Image.Image:
    """Blocks from left to right and top to bottom, each row as high as its highest block."""
    lines: list[list[Image.Image]] = [[]]
    for block in blocks:
        if lines[-1] and sum(b.width for b in lines[-1]) + block.width > width:
            lines.append([])
        lines[-1].append(block)
    height = sum(max(block.height for block in line) for line in lines)
    sheet = Image.new("RGB", (max(sum(b.width for b in line) for line in lines), height), PAPER)
    top = 0
    for line in lines:
        left = 0
        for block in line:
            sheet.paste(block, (left, top))
            left += block.width
        top += max(block.height for block in line)
    return sheet


def _block(cell: Cell, scale: int, width: int, image_high: int) -> Image.Image:
    """One cell: its images in a frame of the verdict's colour, its words, its verdict."""
    colour = {True: GREEN, False: RED, None: FAINT}[cell.right]
    mark = {True: "right", False: "wrong", None: ""}[cell.right]
    verdict = ": ".join(text for text in (mark, cell.verdict) if text)
    lines = [(line, INK) for line in _wrap(cell.words, width - 2 * GAP_PIXELS)]
    lines += [(line, colour) for line in _wrap(verdict, width - 2 * GAP_PIXELS)]
    line_high = FONT_PIXELS + 3
    block = Image.new("RGB", (width, GAP_PIXELS * 2 + image_high + line_high * len(lines)), PAPER)
    draw = ImageDraw.Draw(block)
    left = GAP_PIXELS
    for k, image in enumerate(cell.images):
        shown = Image.fromarray(image).resize(
            (image.shape[1] * scale, image.shape[0] * scale), Image.Resampling.NEAREST
        )
        last = k == len(cell.images) - 1
        edge = colour if last else FAINT
        draw.rectangle(
            (left - 3, GAP_PIXELS - 3, left + shown.width + 2, GAP_PIXELS + shown.height + 2), edge
        )
        block.paste(shown, (left, GAP_PIXELS))
        if not last:  # the arrow from before to after, in the gap
            middle = GAP_PIXELS + shown.height // 2
            tip = left + shown.width + 2 * GAP_PIXELS - 4
            draw.polygon([(tip - 10, middle - 7), (tip, middle), (tip - 10, middle + 7)], fill=INK)
        left += shown.width + 2 * GAP_PIXELS
    for k, (line, ink) in enumerate(lines):
        draw.text(
            (GAP_PIXELS, GAP_PIXELS + image_high + 4 + k * line_high), line, ink, font=_font()
        )
    return block


def _wrap(text: str, width: int) -> list[str]:
    """The text in lines no wider than `width` pixels; a longer word stands alone on its line."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and _font().getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(FONT_PIXELS)


def _texts(path: Sequence[str], score: Estimate) -> list[str]:
    interval = (
        "" if score.low is None or score.high is None else f"{score.low:.3f} to {score.high:.3f}"
    )
    value = "not measured" if score.value is None else f"{score.value:.3f}"
    return [" / ".join(name.replace("_", " ") for name in path), value, interval, str(score.n)]


def _short(value: str | int | float | None) -> str:
    if isinstance(value, str):
        return value[:12] if len(value) >= 40 else value
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
