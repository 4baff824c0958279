"""What a chat tells while it replies: notes, text, images as they are drawn, the whole reply."""

from dataclasses import dataclass

from PIL import Image as PILImage

from .document import Image, Part, Text
from .events import ImageProgress, ReplyDone, TextDelta
from .grammar import End


@dataclass(frozen=True)
class Note:
    """A Note tells what was done to a given image before the model saw it, which turns the model
    was not told, and which of several candidates was kept.
    """

    text: str


@dataclass(frozen=True, eq=False)
class Drawn:
    """A Drawn event gives a finished image of the reply, mode RGB, and the seed that drew it."""

    image: PILImage.Image
    seed: int


@dataclass(frozen=True, eq=False)
class Reply:
    """A Reply is a whole reply, and the last event of its stream."""

    text: str  # all its texts, joined by spaces
    images: list[PILImage.Image]  # all its images, mode RGB
    notes: tuple[str, ...]  # see Note
    seed: int  # the seed that it was sampled with
    parts: tuple[Part, ...]  # its texts and images in order, as the conversation keeps them
    end: End  # why it ended: stop, or what was used up


ChatEvent = Note | TextDelta | ImageProgress | Drawn | Reply


def as_picture(image: Image) -> PILImage.Image:
    """Return an image of the conversation, which has pixels, for whoever shows it: mode RGB."""
    assert image.pixels is not None, "images of a conversation have pixels"
    return PILImage.fromarray(image.pixels)


def whole(done: ReplyDone, drawn: list[Image], notes: tuple[str, ...], seed: int) -> Reply:
    """Return the reply that is done; its images are those in `drawn`, which have pixels."""
    with_pixels = iter(drawn)
    parts = tuple(next(with_pixels) if isinstance(part, Image) else part for part in done.parts)
    texts = [part.text.strip() for part in parts if isinstance(part, Text)]
    return Reply(
        text=" ".join(text for text in texts if text),
        images=[as_picture(image) for image in drawn],
        notes=notes,
        seed=seed,
        parts=parts,
        end=done.end,
    )
