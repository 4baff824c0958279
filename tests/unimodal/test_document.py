"""Documents: what an image may hold, and what is refused when it is made."""

import numpy as np
import pytest

from unimodal.document import MAX_WEIGHT, Document, Image, StoredFile, Text
from unimodal.tokenizer.grid import Grid

PIXELS = np.zeros((16, 24, 3), np.uint8)
CODES = np.zeros((6, 2), np.int64)
LATENTS = np.zeros((6, 4), np.float32)
STORED = StoredFile(b"...", "a.png")
GRID = {"grid": Grid(2, 3), "codec_hash": "x"}


@pytest.mark.parametrize(
    "content",
    [
        {"pixels": PIXELS},
        {"stored": STORED},
        {"stored": STORED, "grid": Grid(5, 7)},  # what it will fill
        {"codes": CODES, **GRID},
        {"latents": LATENTS, **GRID},
        {"codes": CODES, "latents": LATENTS, "pixels": PIXELS, "stored": STORED, **GRID},
        {"codes": np.zeros((14, 1), int), "grid": Grid(3, 3, ((1, 1), (2, 2), (3, 3))),
         "codec_hash": "x"},
        {"codes": np.zeros((128, 1), int), "grid": Grid(1, 128), "codec_hash": "x"},
    ],
    ids=lambda content: "+".join(content),
)  # fmt: skip
def test_an_image_holds_one_or_more_contents(content: dict) -> None:
    image = Image(**content, role="user")
    assert all(getattr(image, name) is value for name, value in content.items())
    assert (image.role, image.weight) == ("user", 1.0)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, "needs pixels, codes, latents or a stored file"),
        (GRID, "needs pixels, codes, latents or a stored file"),
        ({"pixels": PIXELS.astype(np.float32)}, "not float32"),
        ({"pixels": PIXELS[..., 0]}, r"not uint8 \(16, 24\)"),
        ({"pixels": PIXELS[..., :1]}, r"not uint8 \(16, 24, 1\)"),
        ({"codes": CODES, "grid": Grid(2, 3)}, "codes come with their grid and the hash"),
        ({"latents": LATENTS, "codec_hash": "x"}, "latents come with their grid and the hash"),
        ({"codes": CODES[:5], **GRID}, r"codes of shape \(5, 2\) do not fill"),
        ({"codes": CODES[:, 0], **GRID}, r"codes of shape \(6,\) do not fill"),
        ({"latents": LATENTS[None], **GRID}, r"latents of shape \(1, 6, 4\) do not fill"),
        ({"pixels": PIXELS, "weight": -1.0}, "weight -1.0"),
        ({"pixels": PIXELS, "weight": 2 * MAX_WEIGHT}, "weight 2000000.0"),
        ({"pixels": PIXELS, "weight": float("nan")}, "weight nan"),
        ({"pixels": PIXELS, "role": "tool"}, "role 'tool'"),
    ],
)
def test_what_is_no_image_is_refused(content: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Image(**content)


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(ValueError, match="role 'tool'"):
        Text("a", "tool")
    with pytest.raises(ValueError, match="weight inf"):
        Text("a", weight=float("inf"))


def test_neighbours_of_one_role_are_a_turn() -> None:
    a, b, c, d = Text("a", "user"), Image(PIXELS, role="user"), Text("c"), Text("d", "user")
    assert Document((a, b, c, d)).turns() == [("user", [a, b]), (None, [c]), ("user", [d])]
    assert Document(()).turns() == []
