"""Contact sheets: documents side by side in one picture, for people to look at."""

from collections.abc import Sequence
from textwrap import wrap

from PIL import Image, ImageDraw, ImageFont

from unimodal.document import Document, Picture

CELL_WIDTH = 208  # pixels
MARGIN = 8  # pixels around a cell and between its parts
LINE_HEIGHT = 12  # pixels
LINE_CHARACTERS = 34
ROLE_COLOURS = {"user": (30, 60, 160), "assistant": (20, 110, 40)}


def sheet(documents: Sequence[Document], columns: int = 6) -> Image.Image:
    """The documents in reading order, `columns` a row: texts by colour of their role, pictures."""
    cells = [_cell(document) for document in documents]
    rows = [cells[at : at + columns] for at in range(0, len(cells), columns)]
    heights = [max(cell.height for cell in row) for row in rows]
    page = Image.new("RGB", (columns * CELL_WIDTH, sum(heights)), "white")
    top = 0
    for row, height in zip(rows, heights, strict=True):
        for column, cell in enumerate(row):
            page.paste(cell, (column * CELL_WIDTH, top))
        top += height
    return page


def _cell(document: Document) -> Image.Image:
    blocks = [_picture(part) if isinstance(part, Picture) else _text(part.text, part.role)
              for part in document.parts]  # fmt: skip
    height = sum(block.height + MARGIN for block in blocks) + 2 * MARGIN
    cell = Image.new("RGB", (CELL_WIDTH, height), "white")
    top = MARGIN
    for block in blocks:
        cell.paste(block, (MARGIN, top))
        top += block.height + MARGIN
    ImageDraw.Draw(cell).line((0, 0, CELL_WIDTH, 0), "lightgrey")
    return cell


def _text(text: str, role: str | None) -> Image.Image:
    lines = wrap(text, LINE_CHARACTERS) or [""]
    block = Image.new("RGB", (CELL_WIDTH - MARGIN, LINE_HEIGHT * len(lines)), "white")
    draw, font = ImageDraw.Draw(block), ImageFont.load_default(size=10)
    for number, line in enumerate(lines):
        at = (0, number * LINE_HEIGHT)
        draw.text(at, line, ROLE_COLOURS.get(role or "", (0, 0, 0)), font)
    return block


def _picture(picture: Picture) -> Image.Image:
    if picture.pixels is None:
        raise ValueError("a contact sheet shows pictures as pixels; decode codes first")
    image = Image.fromarray(picture.pixels)
    image.thumbnail((CELL_WIDTH - 2 * MARGIN, CELL_WIDTH - 2 * MARGIN))
    return image
