"""Draw contact sheets: documents side by side in one image, for people to look at."""

from collections.abc import Sequence
from textwrap import wrap

from PIL import Image as PILImage
from PIL import ImageDraw, ImageFont

from unimodal.document import Document, Image

CELL_WIDTH = 208  # pixels
MARGIN = 8  # pixels around a cell and between its parts
LINE_HEIGHT = 12  # pixels
LINE_CHARACTERS = 34
ROLE_COLOURS = {"user": (30, 60, 160), "assistant": (20, 110, 40)}


def sheet(documents: Sequence[Document], columns: int = 6) -> PILImage.Image:
    """Draw documents in reading order, `columns` a row; texts have the colour of their role.

    ValueError for an image without pixels.
    """
    cells = [_cell(document) for document in documents]
    rows = [cells[at : at + columns] for at in range(0, len(cells), columns)]
    heights = [max(cell.height for cell in row) for row in rows]
    page = PILImage.new("RGB", (columns * CELL_WIDTH, sum(heights)), "white")
    top = 0
    for row, height in zip(rows, heights, strict=True):
        for column, cell in enumerate(row):
            page.paste(cell, (column * CELL_WIDTH, top))
        top += height
    return page


def _cell(document: Document) -> PILImage.Image:
    blocks = [_image(part) if isinstance(part, Image) else _text(part.text, part.role)
              for part in document.parts]  # fmt: skip
    height = sum(block.height + MARGIN for block in blocks) + 2 * MARGIN
    cell = PILImage.new("RGB", (CELL_WIDTH, height), "white")
    top = MARGIN
    for block in blocks:
        cell.paste(block, (MARGIN, top))
        top += block.height + MARGIN
    ImageDraw.Draw(cell).line((0, 0, CELL_WIDTH, 0), "lightgrey")
    return cell


def _text(text: str, role: str | None) -> PILImage.Image:
    lines = wrap(text, LINE_CHARACTERS) or [""]
    block = PILImage.new("RGB", (CELL_WIDTH - MARGIN, LINE_HEIGHT * len(lines)), "white")
    draw, font = ImageDraw.Draw(block), ImageFont.load_default(size=10)
    for number, line in enumerate(lines):
        at = (0, number * LINE_HEIGHT)
        draw.text(at, line, ROLE_COLOURS.get(role or "", (0, 0, 0)), font)
    return block


def _image(image: Image) -> PILImage.Image:
    if image.pixels is None:
        raise ValueError("a contact sheet shows images as pixels; decode codes first")
    thumbnail = PILImage.fromarray(image.pixels)
    thumbnail.thumbnail((CELL_WIDTH - 2 * MARGIN, CELL_WIDTH - 2 * MARGIN))
    return thumbnail
