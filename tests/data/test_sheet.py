"""Contact sheets: every part of every cell is on the page, and what corresponds is aligned."""

import numpy as np
import pytest

from unimodal.data.lettering import LINE_PIXELS
from unimodal.data.sheet import (
    FRAME,
    GAP,
    INK,
    MARGIN,
    SIDE,
    Paragraph,
    Strip,
    document_sheet,
    sheet,
)
from unimodal.document import Document, Image, Text
from unimodal.tokenizer.grid import Grid

COLUMN = SIDE + 2 * (FRAME + MARGIN)


def flat(colour, height=64, width=64):
    return np.full((height, width, 3), colour, dtype=np.uint8)


def places(page, colour):
    """Top, left, bottom and right of the pixels of a colour, the last two exclusive."""
    found = np.argwhere((np.asarray(page) == colour).all(axis=2))
    return *found.min(axis=0).tolist(), *(found.max(axis=0) + 1).tolist()


def count(page, colour):
    return int((np.asarray(page) == colour).all(axis=2).sum())


def test_documents_stand_in_columns_with_all_their_parts():
    documents = [
        Document((Text("draw it", "user"), Image(flat((200, k, 0)), role="assistant")))
        for k in range(5)
    ]
    page = document_sheet(documents, columns=2)
    assert page.width == 2 * COLUMN
    assert [count(page, (200, k, 0)) for k in range(5)] == [SIDE**2] * 5
    tops, lefts, _, _ = zip(*(places(page, (200, k, 0)) for k in range(5)), strict=True)
    assert tops[0] == tops[1] < tops[2] == tops[3] < tops[4]
    assert lefts[0] == lefts[2] == lefts[4] == lefts[1] - COLUMN
    pixels = np.asarray(page)
    is_blue = pixels[..., 2] > pixels[..., 0].astype(int) + 50
    assert is_blue.any(), "the words of the user are blue"


def test_small_images_are_enlarged_and_large_ones_reduced():
    for height, width, shown in (
        (64, 64, (192, 192)), (80, 60, (160, 120)), (192, 1, (192, 1)), (1024, 512, (192, 96)),
        (10, 4000, (1, 192)),
    ):  # fmt: skip
        page = sheet([[Strip((flat((200, 0, 0), height, width),))]], 1)
        top, left, bottom, right = places(page, (200, 0, 0))
        assert (bottom - top, right - left) == shown
        assert count(page, (200, 0, 0)) == shown[0] * shown[1], "no smoothing"


def test_codes_are_refused():
    codes = Image(codes=np.zeros((1, 1), int), grid=Grid(1, 1), codec_hash="x")
    with pytest.raises(ValueError, match="decode codes first"):
        document_sheet([Document((codes,))])


def test_images_of_unlike_size_and_what_follows_them_stand_at_one_height():
    sizes = ((64, 64), (100, 400), (400, 100), (8, 8))
    cells = [
        [Paragraph("name " * (20 if k == 1 else 1)), Strip((flat((200, k, 0), *size),)),
         Strip((flat((0, k, 200), 16, 16),))]
        for k, size in enumerate(sizes)
    ]  # fmt: skip
    page = sheet(cells, 4)
    assert len({places(page, (200, k, 0))[0] for k in range(4)}) == 1
    assert len({places(page, (0, k, 200))[0] for k in range(4)}) == 1
    highest = max(places(page, (200, k, 0))[2] for k in range(4))
    assert places(page, (0, 0, 200))[0] == highest + GAP


def test_cells_of_other_kinds_of_parts_are_not_stretched():
    talk = [Paragraph("words"), Paragraph("more"), Strip((flat((200, 0, 0)),))]
    shown = [Strip((flat((0, 0, 200)),)), Paragraph("words")]
    alone, beside = sheet([talk], 1), sheet([talk, shown], 2)
    assert places(alone, (200, 0, 0)) == places(beside, (200, 0, 0))
    assert places(beside, (0, 0, 200))[0] == MARGIN


def test_before_and_after_take_two_columns():
    pair = [Strip((flat((200, 0, 0)), flat((0, 0, 200))), frame=(0, 130, 60)), Paragraph("to blue")]
    one = [Strip((flat((0, 200, 0)),)), Paragraph("words")]
    page = sheet([pair, one, pair], 3)
    assert page.width == 3 * COLUMN
    first, second, third = (
        places(page.crop((0, 0, page.width, SIDE + 40)), colour)
        for colour in ((200, 0, 0), (0, 0, 200), (0, 200, 0))
    )
    assert second[1] - first[1] == COLUMN
    assert third[1] - second[1] == COLUMN - FRAME, "only the framed ones are moved in by the frame"
    assert count(page, (0, 130, 60)) == 2 * ((SIDE + 2 * FRAME) ** 2 - SIDE**2)
    arrow = np.argwhere((np.asarray(page)[: SIDE + 20] == INK).all(axis=2))[:, 1]
    assert first[3] < arrow.min() and arrow.max() < second[1]


def test_a_cell_wider_than_a_row_has_one_of_its_own():
    page = sheet([[Strip((flat((200, 0, 0)),) * 3)], [Strip((flat((0, 0, 200)),))]], 2)
    assert page.width == 3 * COLUMN and count(page, (200, 0, 0)) == 3 * SIDE**2
    assert places(page, (0, 0, 200))[0] > places(page, (200, 0, 0))[2]


def test_long_words_and_long_texts_stay_in_their_cell():
    for text in ("Donaudampfschifffahrtsgesellschaft" * 3, "a long caption " * 40, "日本語" * 60):
        page = sheet([[Paragraph(text)], [Paragraph("", (200, 0, 0))]], 2)
        assert page.width == 2 * COLUMN
        first_lines = np.asarray(page)[1 : MARGIN + 3 * LINE_PIXELS]
        assert (first_lines[:, : COLUMN - MARGIN] < 128).any()
        assert (first_lines[:, COLUMN - MARGIN :] == 255).all()


def test_characters_without_a_font_are_named_below():
    plain, foreign = (sheet([[Paragraph(text)]], 1) for text in ("ab", "a\U000f1234"))
    assert foreign.height > plain.height + 30
