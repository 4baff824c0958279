"""A judging is a choice among candidates that a client waits for: the serving loop's thread, which
alone uses the model, makes it; the server's event loop listens.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..candidates import Kept
from ..checks import Check
from ..document import Part
from .errors import ApiError, client_left


def _future() -> "asyncio.Future[Kept]":
    return asyncio.get_running_loop().create_future()


@dataclass(eq=False)
class Judging:
    """A Judging is made in the event loop that listens."""

    replies: Sequence[Sequence[Part]]
    """Of one request, in the order of their seeds; their images have codes or latents."""
    checks: Sequence[Check]
    _kept: "asyncio.Future[Kept]" = field(default_factory=_future)

    @property
    def gone(self) -> bool:
        """Return whether nobody listens any more."""
        return self._kept.done()

    def leave(self) -> None:
        """Tell who listens that the client has gone, and nothing after that."""
        self._settle(client_left())

    def tell(self, found: Kept | ApiError) -> None:
        """Pass on which reply is kept, or why none could be chosen, from any thread."""
        self._kept.get_loop().call_soon_threadsafe(self._settle, found)

    def _settle(self, found: Kept | ApiError) -> None:
        if self._kept.done():
            return
        if isinstance(found, ApiError):
            self._kept.set_exception(found)
        else:
            self._kept.set_result(found)

    async def kept(self) -> Kept:
        """Wait for the choice and return it; raise ApiError where it failed."""
        return await self._kept
