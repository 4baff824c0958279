"""Contact sheets: every part of every document is on the page."""

import numpy as np
import pytest

from unimodal.data.sheet import CELL_WIDTH, sheet
from unimodal.document import Document, Image, Text
from unimodal.tokenizer.grid import Grid


def flat(colour):
    return Image(np.full((64, 64, 3), colour, dtype=np.uint8), role="assistant")


def test_documents_stand_in_columns_with_all_their_parts():
    documents = [Document((Text("draw it", "user"), flat((200, k, 0)))) for k in range(5)]
    page = np.asarray(sheet(documents, columns=2))
    assert page.shape[1] == 2 * CELL_WIDTH
    places = [np.argwhere((page == (200, k, 0)).all(axis=2)) for k in range(5)]
    assert [len(pixels) for pixels in places] == [64 * 64] * 5
    tops, lefts = zip(*(pixels[0] for pixels in places), strict=True)
    assert tops[0] == tops[1] < tops[2] == tops[3] < tops[4]
    assert lefts[0] == lefts[2] == lefts[4] == lefts[1] - CELL_WIDTH
    blue_HW = page[..., 2] > page[..., 0].astype(int) + 50
    assert blue_HW.any(), "the words of the user are blue"


def test_large_images_are_scaled_and_codes_refused():
    large = Image(np.zeros((512, 512, 3), dtype=np.uint8))
    assert sheet([Document((large,))]).height < CELL_WIDTH + 24
    codes = Image(codes=np.zeros((1, 1), int), grid=Grid(1, 1), codec_hash="x")
    with pytest.raises(ValueError, match="decode codes first"):
        sheet([Document((codes,))])
