"""Text of any script as lines of an image.

In: a text and a width in pixels. Out: lines that are no wider, and their drawing.

1. A character is drawn in the first of these fonts that has it: DejaVu Sans, which comes with
   matplotlib and has the scripts of Europe, Hebrew and Arabic; the font of this machine that has
   most of the character's block of Unicode; the Last Resort font, which boxes a sign of the block.
2. Lines break at spaces, and inside a word longer than a line, as in scripts without spaces.
"""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import groupby
from pathlib import Path
from unicodedata import category, normalize

import matplotlib
from matplotlib.font_manager import fontManager
from matplotlib.ft2font import FT2Font
from PIL import ImageDraw, ImageFont

FONT_PIXELS = 12
LINE_PIXELS = 15  # from one line to the next
ASCENT_PIXELS = 12  # from the top of a line to where its letters stand
SHIPPED = Path(matplotlib.get_data_path(), "fonts", "ttf")
FIRST, LAST_RESORT = SHIPPED / "DejaVuSans.ttf", SHIPPED / "LastResortHE-Regular.ttf"
BLOCK_BITS = 8  # characters that share all but these bits are one block

Colour = tuple[int, int, int]


def wrap(text: str, width: int) -> list[str]:
    """Return the text in lines of at most `width` pixels; any white space is one space."""
    lines = [""]
    for word in normalize("NFC", text).split():
        longer = f"{lines[-1]} {word}".lstrip()
        if length(longer) <= width:
            lines[-1] = longer
            continue
        first, *more = _pieces(word, width)
        lines[-1:] = [lines[-1], first, *more] if lines[-1] else [first, *more]
    return lines


def draw_line(draw: ImageDraw.ImageDraw, at: tuple[int, int], line: str, colour: Colour) -> None:
    """Draw a line of text whose top left corner is `at`, (x, y) in pixels."""
    x, y = at
    for font, run in _runs(line):
        draw.text((x, y + ASCENT_PIXELS), run, colour, font, anchor="ls")
        x += round(font.getlength(run))


def length(line: str) -> float:
    """Return how wide a line is, in pixels."""
    return sum(font.getlength(run) for font, run in _runs(line))


def families(text: str) -> list[str]:
    """Return the names of the fonts in which a text is drawn, the usual one first."""
    files = dict.fromkeys([FIRST, *map(_font_file, text)])
    return [FT2Font(str(file)).family_name for file in files]


def has_font(character: str) -> bool:
    """Tell whether a font of this machine has a character."""
    return _font_file(character) != LAST_RESORT


def _pieces(word: str, width: int) -> Iterator[str]:
    """Cut a word into pieces of at most `width` pixels, each as long as can be."""
    while length(word) > width and len(word) > 1:
        ends = range(1, len(word))
        end = max(1, bisect_right(ends, width, key=lambda n: math.ceil(length(word[:n]))))
        while end > 1 and category(word[end]).startswith("M"):  # it belongs to the letter before
            end -= 1
        yield word[:end]
        word = word[end:]
    yield word


def _runs(line: str) -> Iterator[tuple[ImageFont.FreeTypeFont, str]]:
    """Split a line where its font changes."""
    for file, characters in groupby(line, _font_file):
        yield _font(file), "".join(characters)


@cache
def _font(file: Path) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(file), FONT_PIXELS)


@cache
def _font_file(character: str) -> Path:
    """Return the font in which a character is drawn; for control characters any will do."""
    code = ord(character)
    if code in _codes(FIRST) or category(character) in ("Cc", "Cf"):
        return FIRST
    counts = {file: blocks[code >> BLOCK_BITS] for file, blocks in _blocks().items()}
    best = max(counts, key=counts.__getitem__, default=LAST_RESORT)
    return best if code in _codes(best) else LAST_RESORT


@cache
def _codes(file: Path) -> frozenset[int]:
    """Return the characters that a font has."""
    return frozenset(FT2Font(str(file)).get_charmap())


@cache
def _blocks() -> dict[Path, Counter[int]]:
    """Return how many characters of each block the upright fonts of this machine have."""
    files = {
        Path(font.fname)
        for font in fontManager.ttflist
        if font.style == "normal" and SHIPPED not in Path(font.fname).parents
    }
    return {file: Counter(code >> BLOCK_BITS for code in _codes(file)) for file in sorted(files)}
