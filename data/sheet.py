"""Contact sheets: cells side by side in one image, for people to look at.

In: cells, each a column of paragraphs and strips of images; or Documents. Out: an RGB image.

1. An image is shown in a square of `side` pixels: a small one enlarged by a whole factor, without
   smoothing, a large one reduced.
2. Cells fill rows of so many columns; a cell with a strip of two images takes two columns.
3. Images that correspond stand at one height, whatever their own: where all cells of a row have a
   strip, and the same kinds of parts above it, these parts take the height of the highest.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from PIL import Image as PILImage
from PIL import ImageDraw

from unimodal.document import Document, Image

from .lettering import LINE_PIXELS, Colour, draw_line, has_font, wrap

SIDE = 192  # pixels
MARGIN = 9  # pixels around a cell
GAP = 6  # pixels below a paragraph or a strip
FRAME = 3  # pixels
PAPER, INK, FAINT = (255, 255, 255), (30, 30, 30), (160, 160, 160)
ROLE_COLOURS = {"user": (30, 60, 160), "assistant": (20, 110, 40)}
MAX_NAMED = 6  # characters without a font


@dataclass(frozen=True)
class Paragraph:
    """A text in lines as wide as its cell."""

    text: str
    colour: Colour = INK
    num_columns = 1

    def drawn(self, width: int, side: int) -> PILImage.Image:
        """Draw the text `width` pixels wide."""
        lines = wrap(self.text, width)
        block = PILImage.new("RGB", (width, LINE_PIXELS * len(lines)), PAPER)
        draw = ImageDraw.Draw(block)
        for number, line in enumerate(lines):
            draw_line(draw, (0, LINE_PIXELS * number), line, self.colour)
        return block


@dataclass(frozen=True, eq=False)
class Strip:
    """Images side by side, an arrow from each to the next."""

    images: tuple[np.ndarray, ...]
    """uint8 (H, W, 3) each."""
    frame: Colour | None = None
    """The colour of the frame around the last one, the others having a faint one; None: none."""

    @property
    def num_columns(self) -> int:
        """How many columns of the sheet it takes."""
        return len(self.images)

    def drawn(self, width: int, side: int) -> PILImage.Image:
        """Draw each image in a square of `side` pixels, all in `width` pixels."""
        shown = [_fitted(image, side) for image in self.images]
        edge = FRAME if self.frame else 0
        block = PILImage.new("RGB", (width, max(i.height for i in shown) + 2 * edge), PAPER)
        draw = ImageDraw.Draw(block)
        for number, image in enumerate(shown):
            left, is_last = number * _column_width(side), number == len(shown) - 1
            if self.frame:
                corner = left + image.width + 2 * edge - 1, image.height + 2 * edge - 1
                draw.rectangle((left, 0, *corner), self.frame if is_last else FAINT)
            block.paste(image, (left + edge, edge))
            if not is_last:
                _draw_arrow(draw, left + _column_width(side) - MARGIN, edge + image.height // 2)
        return block


Cell = Sequence[Paragraph | Strip]


def sheet(cells: Sequence[Cell], columns: int, side: int = SIDE) -> PILImage.Image:
    """Draw the cells in reading order; a line below tells of characters that no font here has."""
    assert cells, "a contact sheet of no cells"
    rows = [_row(row, side) for row in _rows(cells, columns)]
    width = max(row.width for row in rows)
    rows += [_row([[note]], width - 2 * (MARGIN + FRAME)) for note in _notes(cells)]
    page = PILImage.new("RGB", (width, sum(row.height for row in rows)), PAPER)
    top = 0
    for row in rows:
        page.paste(row, (0, top))
        ImageDraw.Draw(page).line((0, top, width, top), "lightgrey")
        top += row.height
    return page


def document_sheet(documents: Sequence[Document], columns: int = 6) -> PILImage.Image:
    """Draw Documents in reading order: texts in the colour of their role, and images.

    ValueError for an image without pixels.
    """
    return sheet([list(_parts(document)) for document in documents], columns)


def _parts(document: Document) -> Iterator[Paragraph | Strip]:
    for part in document.parts:
        if not isinstance(part, Image):
            yield Paragraph(part.text, ROLE_COLOURS.get(part.role or "", INK))
        elif part.pixels is None:
            raise ValueError("a contact sheet shows images as pixels; decode codes first")
        else:
            yield Strip((part.pixels,))


def _rows(cells: Sequence[Cell], columns: int) -> Iterator[list[Cell]]:
    """Fill rows from left to right; a cell that is wider than a row has one of its own."""
    row: list[Cell] = []
    for cell in cells:
        if row and sum(map(_num_columns, row)) + _num_columns(cell) > columns:
            yield row
            row = []
        row.append(cell)
    yield row


def _num_columns(cell: Cell) -> int:
    return max((part.num_columns for part in cell), default=1)


def _column_width(side: int) -> int:
    return side + 2 * (FRAME + MARGIN)


def _row(cells: Sequence[Cell], side: int) -> PILImage.Image:
    """Draw the cells of one row."""
    widths = [_num_columns(cell) * _column_width(side) for cell in cells]
    columns = [
        [part.drawn(width - 2 * MARGIN, side) for part in cell]
        for cell, width in zip(cells, widths, strict=True)
    ]
    heights = _shared_heights(cells, columns)
    tops = [_tops(column, heights) for column in columns]
    page = PILImage.new("RGB", (sum(widths), max(at[-1] for at in tops) + MARGIN), PAPER)
    left = MARGIN
    for column, at, width in zip(columns, tops, widths, strict=True):
        for block, top in zip(column, at, strict=False):
            page.paste(block, (left, top))
        left += width
    return page


def _shared_heights(
    cells: Sequence[Cell], columns: Sequence[Sequence[PILImage.Image]]
) -> list[int]:
    """Return the heights of all parts down to the last strips that have a counterpart in all cells.

    Parts are counterparts as long as all cells have the same kinds of parts in the same order.
    """
    heights: list[int] = []
    num_shared = 0
    for kinds in zip(*(map(type, cell) for cell in cells), strict=False):
        if len(set(kinds)) > 1:
            break
        heights.append(max(column[len(heights)].height for column in columns))
        num_shared = len(heights) if kinds[0] is Strip else num_shared
    return heights[:num_shared]


def _tops(column: Sequence[PILImage.Image], heights: Sequence[int]) -> list[int]:
    """Return where each block of a cell begins, and where the last one ends with its gap."""
    own = [block.height for block in column]
    return list(
        accumulate([*heights, *own[len(heights) :]], lambda a, b: a + b + GAP, initial=MARGIN)
    )


def _fitted(pixels: np.ndarray, side: int) -> PILImage.Image:
    image = PILImage.fromarray(pixels)
    if factor := side // max(image.size):
        size = image.width * factor, image.height * factor
        return image.resize(size, PILImage.Resampling.NEAREST)
    image.thumbnail((side, side))
    return image


def _draw_arrow(draw: ImageDraw.ImageDraw, x: int, y: int) -> None:
    """Draw an arrow to the right around the middle of the space between two images."""
    draw.polygon([(x - 5, y - 7), (x + 5, y), (x - 5, y + 7)], INK)


def _notes(cells: Sequence[Cell]) -> Iterator[Paragraph]:
    """Name the characters of the cells that no font of this machine has, if there are any."""
    texts = [part.text for cell in cells for part in cell if isinstance(part, Paragraph)]
    missing = [f"U+{ord(one):04X}" for one in sorted(set("".join(texts))) if not has_font(one)]
    if missing:
        more = f" and {len(missing) - MAX_NAMED} more" if len(missing) > MAX_NAMED else ""
        yield Paragraph(
            f"In boxes: {', '.join(missing[:MAX_NAMED])}{more}, which no font of this machine has. "
            "Noto Sans has fonts for all scripts, Noto Sans CJK those of East Asia.",
            FAINT,
        )
