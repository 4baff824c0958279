"""Boxes of a request say what is to stand where on the drawing that answers it.

In: each as people write it, `a red circle, 4, 10, 24, 30`: the thing, then left, top, right and
bottom in pixels of the drawing. Out: texts with boxes, which follow the words of the request.

GLIGEN (arXiv:2301.07093) and LMD (arXiv:2305.13655) let users say so; here places are tokens, as in
Pix2Seq (arXiv:2109.10852, section 3.1). The thing's name is text, whatever it spells.
"""

import re
from collections.abc import Sequence

from .document import Box, Text
from .model import Model
from .sequencer import NO_BOXES

MAX_BOXES = 16  # of one request
EXAMPLE = "a red circle, 4, 10, 24, 30"
NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")  # float() reads `1_0` and `inf` too


def boxed(model: Model, said: Sequence[str]) -> tuple[Text, ...]:
    """Return the texts of a request's boxes; raise ValueError for a model that was not trained on
    boxes, for too many, and for one that is not written as EXAMPLE or leaves the drawing.
    """
    if isinstance(said, str):
        raise ValueError(f"boxes {said!r}: give a list, such as [{EXAMPLE!r}]")
    if said and not model.takes_boxes:
        raise ValueError(f"a box was given, and {NO_BOXES}")
    if len(said) > MAX_BOXES:
        raise ValueError(f"{len(said)} boxes: {MAX_BOXES} are the most")
    return tuple(_boxed(one, model.canvas) for one in said)


def _boxed(said: str, canvas: tuple[int, int]) -> Text:
    """Return the text of one box on a canvas of (width, height) pixels."""
    name, *sides = (piece.strip() for piece in said.rsplit(",", 4))
    if len(sides) != 4 or not all(map(NUMBER.fullmatch, sides)) or not name:
        raise _wrong(said, canvas)
    numbers = map(float, sides)
    fractions = [number / side for number, side in zip(numbers, (*canvas, *canvas), strict=True)]
    try:
        return Text(name, "user", box=Box(*fractions))
    except ValueError as error:
        raise _wrong(said, canvas) from error


def _wrong(said: str, canvas: tuple[int, int]) -> ValueError:
    width, height = canvas
    return ValueError(
        f"box {said[:80]!r}: write a thing, then left, top, right and bottom in pixels of the"
        f" drawing, 0 to {width} and 0 to {height}, left below right and top below bottom, such as"
        f" {EXAMPLE!r}"
    )


def spelled(one: Text, canvas: tuple[int, int]) -> str:
    """Return the text of a box as people write it, for a canvas of (width, height) pixels."""
    assert one.box is not None, "a text without a box is written as it is"
    box, (width, height) = one.box, canvas
    sides = box.left * width, box.top * height, box.right * width, box.bottom * height
    return ", ".join([one.text, *(f"{side:g}" for side in sides)])
