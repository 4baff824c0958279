"""A job is one reply that a client waits for: what was asked, and what it is told meanwhile.

The serving loop's thread tells; the server's event loop listens.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..document import Document
from ..events import ImageProgress, ReplyDone, TextDelta, TokenScored
from ..grammar import Modality
from ..sampling import Sampling
from .errors import ApiError, client_left


@dataclass(frozen=True)
class Accepted:
    """The request was checked and will be worked on; its prompt has so many tokens, of which so
    many are of images.
    """

    num_tokens: int
    num_image_tokens: int

    def usage(
        self,
        replies: Sequence[ReplyDone],
        names: tuple[str, str] = ("input_tokens", "output_tokens"),
    ) -> dict[str, Any]:
        """Return what the request and all its replies cost, in tokens, as an answer names it."""
        spent = self.num_tokens, sum(len(one.ids) for one in replies)
        return dict(zip(names, spent, strict=True)) | {"total_tokens": sum(spent)}


@dataclass(frozen=True, eq=False)
class Partial:
    """What an image that is being drawn will be, uint8 (H, W, 3); its number among those told."""

    pixels: np.ndarray
    number: int


@dataclass(frozen=True, eq=False)
class Drawn:
    """An image of the reply, uint8 (H, W, 3)."""

    pixels: np.ndarray


Told = Accepted | TextDelta | TokenScored | Partial | Drawn | ReplyDone | ApiError
"""What a client is told; ReplyDone and ApiError are the last of it."""


@dataclass(eq=False)
class Job:
    """A Job is made in the event loop that listens."""

    document: Document
    sampling: Sampling
    modality: Modality | None
    client: tuple[str, str]
    """Whose turn it uses: the client's name, and what it calls its user."""
    num_partial: int = 0
    """Partial images that are told of each drawing."""
    likeliest: int | None = None
    """How many ids are told beside each of words; None: nothing is told of them."""
    gone: bool = False
    """Whether nobody listens any more."""
    _told: asyncio.Queue[Told] = field(default_factory=asyncio.Queue)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    _num_told: int = 0  # of the partial images of the drawing in work

    def tell(self, event: Told) -> None:
        """Pass an event on to who listens, from any thread."""
        if not self.gone:
            self._loop.call_soon_threadsafe(self._told.put_nowait, event)

    def is_due(self, progress: ImageProgress) -> bool:
        """Return whether a partial image is due: they part the drawing into equal shares."""
        passed = progress.done * (self.num_partial + 1) // progress.total
        return progress.done < progress.total and passed > self._num_told

    def next_number(self) -> int:
        """Return the number of the next partial image, and count it."""
        self._num_told += 1
        return self._num_told - 1

    def end_image(self) -> None:
        """Begin to count anew: the next drawing has partial images of its own."""
        self._num_told = 0

    def leave(self) -> None:
        """Tell who listens that the client has gone, and nothing after that."""
        if not self.gone:
            self._told.put_nowait(client_left())
            self.gone = True

    async def accepted(self) -> Accepted:
        """Wait until the job was checked; raise ApiError where it is refused."""
        event = await self._told.get()
        if isinstance(event, ApiError):
            raise event
        assert isinstance(event, Accepted), f"first a job is accepted, not {event}"
        return event

    async def events(self) -> AsyncIterator[TextDelta | TokenScored | Partial | Drawn | ReplyDone]:
        """Yield what an accepted job is told, to its ReplyDone; raise ApiError where it fails."""
        while True:
            event = await self._told.get()
            if isinstance(event, ApiError):
                raise event
            assert not isinstance(event, Accepted), "a job is accepted once"
            yield event
            if isinstance(event, ReplyDone):
                return
