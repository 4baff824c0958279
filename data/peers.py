"""Processes that begin together, as far as data needs to know of them.

`train/ranks.py:Ranks` is such processes. Some of them may share a cache, as those of one machine
do; what one of these has put there, the others find.
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from .cache import cache, write

T = TypeVar("T")


class Peers(Protocol):
    """One process of `world_size`; all call the same methods in the same order."""

    @property
    def rank(self) -> int:
        """Return its number."""
        ...

    @property
    def world_size(self) -> int:
        """Return how many there are."""
        ...

    @property
    def local_rank(self) -> int:
        """Return its number on its machine."""
        ...

    def together(self, work: Callable[[], T]) -> T:
        """Return what `work` gives here, once it is done everywhere, however long that takes."""
        ...

    def all_gather(self, text: str) -> list[str]:
        """Return the text of each, in order."""
        ...

    def first_says(self, text: str) -> str:
        """Return the text of the first."""
        ...


@dataclass(frozen=True)
class Alone:
    """A process without peers."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    def together(self, work: Callable[[], T]) -> T:
        """Return what `work` gives."""
        return work()

    def all_gather(self, text: str) -> list[str]:
        """Return the text."""
        return [text]

    def first_says(self, text: str) -> str:
        """Return the text."""
        return text


ALONE = Alone()


@dataclass(frozen=True)
class CacheMates:
    """The processes that share a cache with this one."""

    ranks: tuple[int, ...]
    rank: int
    """This one."""
    are_all: bool

    @property
    def is_first(self) -> bool:
        """Return whether this is the one that writes what they share."""
        return self.ranks[0] == self.rank

    def share(self, work: Sequence[T]) -> Sequence[T]:
        """Return what of the work they share falls to this one."""
        return work[self.ranks.index(self.rank) :: len(self.ranks)]


def cache_mates(peers: Peers) -> CacheMates:
    """Find out which processes share this one's cache: those that see one another's marks in it.

    The first one of each machine makes a mark.
    """
    if peers.world_size == 1:
        return CacheMates((0,), 0, True)
    mark = secrets.token_hex(16) if peers.local_rank == 0 else ""
    here = cache() / "begun"
    if mark:
        peers.together(lambda: write(here / mark, b""))
    else:
        peers.together(lambda: None)
    marks = list(filter(None, peers.all_gather(mark)))
    seen = peers.together(lambda: next((one for one in marks if (here / one).exists()), ""))
    groups = peers.all_gather(seen or f"alone {peers.rank}")  # all have looked
    if mark:
        (here / mark).unlink()
    mine = [rank for rank, group in enumerate(groups) if group == groups[peers.rank]]
    return CacheMates(tuple(mine), peers.rank, len(mine) == peers.world_size)


def share_of(count: int, number: int, shares: int) -> slice:
    """Return which of so many neighbouring items fall to share `number` of `shares`."""
    return slice(count * number // shares, count * (number + 1) // shares)
