"""Events tell what happens while replies are generated; each names its request."""

from dataclasses import dataclass

import numpy as np

from .document import Image, Part
from .grammar import End


@dataclass(frozen=True)
class TextDelta:
    """A TextDelta continues the text of reply `request` by `text`, in whole characters."""

    request: int
    text: str


@dataclass(frozen=True)
class TokenScored:
    """A TokenScored says how likely the token of words was that reply `request` goes on by.

    logprob: its log-probability in nats, before any temperature, among the ids that were allowed.
    likeliest: the likeliest ids in its place with theirs, the likeliest first.
    """

    request: int
    token: int
    logprob: float
    likeliest: tuple[tuple[int, float], ...]


@dataclass(frozen=True, eq=False)
class ImageProgress:
    """An ImageProgress says that `done` of `total` codes or latents of an image are drawn.

    partial: what the image will be, as far as its head can tell, as codes or latents; None: it
    cannot. known: which of its codes are drawn, bool (n,), where the others stand for nothing yet;
    None: the others are what the head expects. `ImageCodec.decode_partial` makes pixels of both.
    """

    request: int
    done: int
    total: int
    partial: Image | None = None
    known: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class ImageDone:
    """An ImageDone gives an image that reply `request` has finished, as codes or latents."""

    request: int
    image: Image


@dataclass(frozen=True, eq=False)
class ReplyDone:
    """A ReplyDone ends reply `request`, with its parts, of role 'assistant', and all its ids.

    `parts` is empty where the reply's ids do not complete a single character.
    """

    request: int
    parts: tuple[Part, ...]
    ids: tuple[int, ...]
    end: End  # why it ended


Event = TextDelta | TokenScored | ImageProgress | ImageDone | ReplyDone
