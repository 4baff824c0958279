"""Prefixes are keys and values of token sequences that were read, kept for those that go on.

A conversation's next turn begins with all that was said before, with and without the user's words;
what the cache held of it is copied here when its branch ends, and back when a branch begins with
the same tokens. So a turn runs the transformer over its own tokens only.
"""

from dataclasses import dataclass, replace

from torch import Tensor

from .tokens import Tokens, shared


@dataclass(frozen=True, eq=False)
class Prefix:
    """A Prefix holds tokens, and their keys and values as KVCache.stored returns them.

    owner: the number of the request that they are of, while it is in work; None after that.
    """

    tokens: Tokens
    stored: tuple[Tensor, ...]
    owner: int | None

    @property
    def num_bytes(self) -> int:
        """Return the bytes of keys and values."""
        return sum(one.nbytes for one in self.stored)


class Prefixes:
    """Prefixes are kept up to a number; the oldest ones go first."""

    def __init__(self, most: int = 0) -> None:
        """most: how many prefixes are kept at most."""
        self._most = most
        self._kept: list[Prefix] = []

    @property
    def are_kept(self) -> bool:
        """Return whether any are kept."""
        return self._most > 0

    @property
    def num_bytes(self) -> int:
        """Return the bytes of all keys and values."""
        return sum(one.num_bytes for one in self._kept)

    def add(self, prefix: Prefix) -> None:
        """Keep a prefix of a request in work, which alone can use it until it is done."""
        mine = [one for one in self._kept if one.owner == prefix.owner]
        gone = [one for one in mine if _continued(one, [prefix])]
        self._kept = [*(one for one in self._kept if one not in gone), prefix][-self._most :]

    def settle(self, owner: int) -> None:
        """Open the prefixes of a request that is done to all; those that they continue go."""
        mine = [replace(one, owner=None) for one in self._kept if one.owner == owner]
        others = [one for one in self._kept if one.owner != owner]
        self._kept = [*(one for one in others if not _continued(one, mine)), *mine]

    def forget(self, owner: int) -> None:
        """Drop the prefixes of a request that was cancelled."""
        self._kept = [one for one in self._kept if one.owner != owner]

    def drop_oldest(self) -> None:
        """Drop the oldest prefix."""
        self._kept = self._kept[1:]

    def best(
        self, wanted: Tokens, owner: int | None, num_read: int = 1
    ) -> tuple[Prefix, int] | None:
        """Return the prefix with which tokens share most, and how many; None: they share none.

        num_read: how many of the last tokens are left to be read, at least 1, so that there are
        hidden vectors to look at: drafts of a drawing may be those of a kept one.
        """
        found: tuple[Prefix, int] | None = None
        for prefix in self._kept:
            if prefix.owner is None or prefix.owner == owner:
                num = shared(prefix.tokens, wanted, max(0, len(wanted) - num_read))
                if num > (found[1] if found else 0):
                    found = prefix, num
        return found


def _continued(prefix: Prefix, others: list[Prefix]) -> bool:
    """Return whether one of the others begins with all of a prefix."""
    n = len(prefix.tokens)
    return any(shared(prefix.tokens, other.tokens, n) == n for other in others)
