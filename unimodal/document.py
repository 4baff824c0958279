"""A document is an ordered list of texts and images.

A shard stores documents, a chat is a document that grows, and an evaluation asks with documents.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from unimodal.tokenizer.grid import Grid

MAX_WEIGHT = 1e6  # sums with larger weights lose small terms, and soon overflow
ROLES = (None, "system", "user", "assistant")


@dataclass(frozen=True)
class Box:
    """A Box is a rectangle of an image, in fractions of its width (to the right) and height (down).

    Raises ValueError where it is empty or leaves the image.
    """

    left: float
    top: float
    right: float
    bottom: float

    def __post_init__(self) -> None:
        if not (0 <= self.left < self.right <= 1 and 0 <= self.top < self.bottom <= 1):
            raise ValueError(
                f"box {self.left:g}, {self.top:g}, {self.right:g}, {self.bottom:g}: left < right"
                " and top < bottom, within the image (0 to 1), are wanted"
            )


@dataclass(frozen=True)
class Text:
    """A Text is a piece of text.

    `weight` is the loss weight of its tokens; 0 marks context that is not learned. A text with a
    box names what is to stand there in the image that answers it.
    """

    text: str
    role: str | None = None
    weight: float = 1.0
    box: Box | None = None

    def __post_init__(self) -> None:
        _check(self.role, self.weight)


@dataclass(frozen=True)
class StoredFile:
    """A StoredFile holds the bytes of an image file or a codes file that is not opened yet."""

    content: bytes
    name: str
    """The file's name, or its extension within the sample that it comes from."""


@dataclass(frozen=True, eq=False)
class Image:
    """An image holds one or more of pixels, codes, latents and a stored file.

    A codec (codec.py) converts one into another. Codes and latents belong to the codec with
    `codec_hash` and fill `grid`. For a stored file, `grid` is the grid that its codes will fill,
    where that is known. Of a grid of scales the codes of the coarser ones may stand alone, as while
    it is drawn. Raises ValueError where contents, grid and hash do not fit together.

    pixels: uint8 (H, W, 3). codes: int (n, groups). latents: float32 (n, d).
    """

    pixels: np.ndarray | None = None
    codes: np.ndarray | None = None
    latents: np.ndarray | None = None
    stored: StoredFile | None = None
    grid: Grid | None = None
    codec_hash: str | None = None
    role: str | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        _check(self.role, self.weight)
        if all(one is None for one in (self.pixels, self.codes, self.latents, self.stored)):
            raise ValueError("an Image needs pixels, codes, latents or a stored file")
        if self.pixels is not None and (
            self.pixels.dtype != np.uint8 or self.pixels.ndim != 3 or self.pixels.shape[2] != 3
        ):
            raise ValueError(
                f"pixels are uint8 (H, W, 3), not {self.pixels.dtype} {self.pixels.shape}"
            )
        for name in ("codes", "latents"):
            self._check_grid(name, getattr(self, name))

    def _check_grid(self, name: str, content: np.ndarray | None) -> None:
        if content is None:
            return
        if self.grid is None or self.codec_hash is None:
            raise ValueError(f"{name} come with their grid and the hash of their codec")
        if content.ndim != 2 or len(content) not in self.grid.counts:
            raise ValueError(f"{name} of shape {content.shape} do not fill a grid of {self.grid}")


Part = Text | Image


@dataclass(frozen=True)
class Document:
    """A document is a tuple of parts in reading order.

    Neighbouring parts with the same role form one turn of a conversation.
    """

    parts: tuple[Part, ...]

    def turns(self) -> list[tuple[str | None, list[Part]]]:
        """Return the (role, parts) of each turn in order."""
        return [
            (role, list(parts)) for role, parts in groupby(self.parts, key=lambda part: part.role)
        ]


def _check(role: str | None, weight: float) -> None:
    """Raise ValueError where the role is unknown or the weight is outside 0 .. MAX_WEIGHT."""
    if role not in ROLES:
        raise ValueError(f"role {role!r}: one of {ROLES}")
    if not 0 <= weight <= MAX_WEIGHT:
        raise ValueError(f"weight {weight}: a number from 0 to {MAX_WEIGHT:,.0f}")


def with_words(document: Document, words: str) -> Document:
    """Return a document whose latest turn of the user has other words, behind its images."""
    parts = document.parts
    stop = max((n for n, part in enumerate(parts, 1) if part.role == "user"), default=0)
    start = stop
    while start and parts[start - 1].role == "user":
        start -= 1
    shown = [part for part in parts[start:stop] if isinstance(part, Image)]
    return Document((*parts[:start], *shown, Text(words, role="user"), *parts[stop:]))


def encoded(
    document: Document,
    images: Iterator[Image],
    replaces: Callable[[Part], bool] | None = None,
) -> Document:
    """Return the document with its images that are not encoded replaced by `images`, in order.

    Roles and weights are kept. replaces: which parts are replaced, instead.
    """
    is_replaced = replaces or needs_codec
    parts = [
        replace(next(images), role=part.role, weight=part.weight) if is_replaced(part) else part
        for part in document.parts
    ]
    return Document(tuple(parts))


def needs_codec(part: Part) -> bool:
    """Return whether a part is an image that has neither codes nor latents."""
    return isinstance(part, Image) and part.codes is None and part.latents is None
