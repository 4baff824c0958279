"""Text of any script: no line is too wide, no character is lost, and every one leaves a mark."""

import unicodedata

import numpy as np
import pytest
from PIL import Image, ImageDraw

from unimodal.data.lettering import LINE_PIXELS, draw_line, families, has_font, length, wrap

TEXTS = [
    "a small red circle to the left of a large blue square",
    "日本語の説明文です。赤い円が二つ、青い四角の左にあります。とても長い説明です。",
    "naïve café, Łódź, Straße — “quotes” and Русский и ελληνικά",
    "العربية نص قصير",
    "Donaudampfschifffahrtsgesellschaftskapitänsmützenabzeichen " * 2,
    "हिन्दी में लिखा हुआ पाठ 😀🚀 ∑∞",
]
WIDTHS = (40, 120, 200)
NOWHERE = "\U000f1234"  # for private use: no font of general use has it


def drawn(line: str) -> np.ndarray:
    """Dark pixels of a line, bool (H, W)."""
    page = Image.new("RGB", (400, LINE_PIXELS + 10), "white")
    draw_line(ImageDraw.Draw(page), (0, 5), line, (0, 0, 0))
    return (np.asarray(page) < 128).all(axis=2)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("text", TEXTS)
def test_no_line_is_too_wide_and_no_character_is_lost(text: str, width: int):
    lines = wrap(text, width)
    assert all(length(line) <= width for line in lines)
    kept = "".join("".join(lines).split())
    assert kept == "".join(unicodedata.normalize("NFC", text).split())


def test_lines_are_as_full_as_they_can_be():
    lines = wrap(TEXTS[0], 120)
    assert " ".join(lines) == TEXTS[0], "no word is cut that fits a line"
    for line, after in zip(lines, lines[1:], strict=False):
        assert length(f"{line} {after.split()[0]}") > 120
    word = "日" * 50
    first, *_ = wrap(word, 100)
    assert length(first) <= 100 < length(f"{first}日")


def test_white_space_and_empty_texts():
    assert wrap(" two\n\n lines\tand tabs ", 400) == ["two lines and tabs"]
    assert wrap("", 100) == wrap("  \n", 100) == [""]
    assert wrap("wide", 1) == list("wide"), "one letter is never cut"


def test_a_mark_is_not_parted_from_its_letter():
    text = "q\u0323\u0301" * 30  # no single character stands for it
    for line in wrap(text, 50):
        assert not unicodedata.category(line[0]).startswith("M")


def test_accents_and_other_alphabets_are_drawn():
    for one, other in (("é", "e"), ("Ł", "L"), ("ж", "x"), ("λ", "l"), ("—", "-")):
        assert has_font(one) and (drawn(one) != drawn(other)).any(), one
    assert (drawn("e\u0301") == drawn("é")).mean() > 0.99
    assert families("naïve") == ["DejaVu Sans"]


def test_what_no_font_has_stands_in_a_box():
    assert not has_font(NOWHERE) and has_font(" ") and has_font("\n")
    box = np.argwhere(drawn(NOWHERE))
    assert np.ptp(box, axis=0).min() >= 6, "a box is as high and wide as a letter"
    assert families(f"a{NOWHERE}") == ["DejaVu Sans", "Last Resort High-Efficiency"]


def test_letters_stay_inside_their_line():
    is_ink = drawn("Ågjpqy|日(" * 3)
    rows = np.flatnonzero(is_ink.any(axis=1))
    assert 5 <= rows[0] and rows[-1] < 5 + LINE_PIXELS
    assert np.flatnonzero(is_ink.any(axis=0))[-1] <= length("Ågjpqy|日(" * 3)
