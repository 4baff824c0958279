"""What happens while a reply is being generated, request by request."""

from dataclasses import dataclass

from .document import Image, Part


@dataclass(frozen=True)
class TextDelta:
    """The text of reply `request` goes on with `text`: whole characters only."""

    request: int
    text: str


@dataclass(frozen=True)
class ImageProgress:
    """`done` of the `total` codes of the image that reply `request` is drawing."""

    request: int
    done: int
    total: int


@dataclass(frozen=True, eq=False)
class ImageDone:
    """Reply `request` has finished an image: its codes or latents, of which a codec makes pixels.
    """

    request: int
    image: Image


@dataclass(frozen=True, eq=False)
class ReplyDone:
    """Reply `request` is over: its parts, of role 'assistant', and its ids with the turn's end.

    There is no part where all that was said is the beginning of a character.
    """

    request: int
    parts: tuple[Part, ...]
    ids: tuple[int, ...]


Event = TextDelta | ImageProgress | ImageDone | ReplyDone
