"""Make the parts of a conversation of its turns: the images of a sample come to their places.

In: a sample and its turns (turns.py). Out: texts and images, each with its role. What the assistant
says and draws is learned (weight 1), all else is context (0).
"""

from collections.abc import Iterator

from unimodal.document import Part, Text

from .placeholders import placed
from .sample import Sample
from .sample_error import SampleError
from .turns import Shown, Turn


def talk(sample: Sample, turns: list[Turn], may_lead: bool) -> Iterator[Part]:
    """Yield the turns of a conversation; images that no piece names are taken in their order.

    `may_lead`: where no word and no piece places them, they stand first.
    """
    pieces = [piece for turn in turns for piece in turn.pieces]
    shown = [piece.image for piece in pieces if isinstance(piece, Shown)]
    named = {sample.shown(image) for image in shown if image is not None}
    free = [name for name in sample.images if name not in named]
    yield from told(sample, turns, free, may_lead)


def told(
    sample: Sample, turns: list[Turn], free: list[str], may_lead: bool = True
) -> Iterator[Part]:
    """Yield the turns; `free` are the images for placeholders and for pieces without a name.

    SampleError where they are not as many as the places.
    """
    waiting = sum(piece == Shown() for turn in turns for piece in turn.pieces)
    if waiting > len(free):
        raise SampleError("missing member", f"{waiting} images are shown, {len(free)} are there")
    names = iter(free)
    for turn in placed(turns, len(free) - waiting, may_lead):
        weight = 1.0 if turn.role == "assistant" else 0.0
        for piece in turn.pieces:
            if isinstance(piece, Shown):
                name = next(names) if piece.image is None else sample.shown(piece.image)
                yield sample.image(name, turn.role, weight)
            elif piece:
                yield Text(piece, turn.role, weight)
