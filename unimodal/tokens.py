"""Tokens are what a branch has yet to read, or has read: columns with an entry for each token."""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from .sequence import Span

PLAIN = ("ids", "positions", "address")
COLUMNS = (*PLAIN, "block", "private")


@dataclass(eq=False)
class Tokens:
    """Tokens hold ids, RoPE positions, block and private numbers, and addresses as in Sequence.

    spans: the images among them, counted from the first token.
    """

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    block: list[int] = field(default_factory=list)
    private: list[int] = field(default_factory=list)
    address: list[tuple[int, int]] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    def append(self, others: "Tokens", num: int) -> None:
        """Add the first `num` of other tokens, and those of their images that end among them."""
        start = len(self)
        for name in COLUMNS:
            getattr(self, name).extend(getattr(others, name)[:num])
        self.spans += [span.moved(start) for span in others.spans if span.stop <= num]

    def remove_last(self, num: int) -> None:
        """Remove the last `num` tokens, and the images that end among them."""
        left = len(self) - num
        for name in COLUMNS:
            del getattr(self, name)[left:]
        self.spans = [span for span in self.spans if span.stop <= left]

    def remove_first(self, num: int) -> None:
        """Remove the first `num` tokens, and the images that begin among them.

        Of an image that goes on behind them the ids suffice: see `shared`.
        """
        for name in COLUMNS:
            del getattr(self, name)[:num]
        self.spans = [span.moved(-num) for span in self.spans if span.start >= num]


def shared(held: Tokens, wanted: Tokens, most: int) -> int:
    """Return how many first tokens, up to `most`, are the same to the model in both.

    Block and private numbers are names: only which tokens have the same one counts. A token of a
    bidirectional block has seen all of the block, and an image that is given by more than its ids
    enters as a whole: each is shared from its first to its last token, or not at all.
    """
    num = min(_equal(held, wanted), most)
    while True:
        least = min(_cuts(held, num) | _cuts(wanted, num) | _different(held, wanted, num))
        if least == num:
            return num
        num = least


def _equal(held: Tokens, wanted: Tokens) -> int:
    """Return how many first tokens are equal, of images their ids alone."""
    num = min(len(held), len(wanted))
    if all(getattr(held, name)[:num] == getattr(wanted, name)[:num] for name in COLUMNS):
        return num  # as in most turns of a conversation
    plain = _equal_plain(held, wanted, num)
    named = (held.block, held.private, wanted.block, wanted.private)
    if not any(any(numbers[:plain]) for numbers in named):
        return plain
    rows = zip(_rows(held), _rows(wanted), range(plain), strict=False)
    return next((at for mine, theirs, at in rows if mine != theirs), plain)


def _equal_plain(held: Tokens, wanted: Tokens, num: int) -> int:
    """Return how many of the first `num` tokens are equal but for block and private numbers."""
    columns = [(getattr(held, name), getattr(wanted, name)) for name in PLAIN]

    def differ(at: int) -> bool:
        return any(mine[: at + 1] != theirs[: at + 1] for mine, theirs in columns)

    return bisect_left(range(num), True, key=differ)


def _rows(tokens: Tokens) -> Iterator[tuple]:
    """Return an iterator over tokens, block and private numbers as they first come."""
    numbers = map(_renamed, (tokens.block, tokens.private))
    return zip(tokens.ids, tokens.positions, tokens.address, *numbers, strict=True)


def _renamed(numbers: list[int]) -> Iterator[int]:
    """Yield 1 in place of the first number above 0, 2 in place of the next other one."""
    names = {0: 0}
    return (names.setdefault(number, len(names)) for number in numbers)


def _cuts(tokens: Tokens, num: int) -> set[int]:
    """Return num, and where the block and the image begin that it would cut."""
    images = [span for span in tokens.spans if span.has_content]
    found = {num} | {span.start for span in images if span.start < num < span.stop}
    if 0 < num < len(tokens) and (block := tokens.block[num]):
        found |= {tokens.block.index(block)} if block == tokens.block[num - 1] else set()
    return found


def _different(held: Tokens, wanted: Tokens, num: int) -> set[int]:
    """Return num, and where images begin before it that are not the same in both."""
    mine, theirs = (
        {span.start: span for span in one.spans if span.has_content and span.start < num}
        for one in (held, wanted)
    )
    starts = mine.keys() | theirs.keys()
    return {num} | {at for at in starts if not _same_image(mine.get(at), theirs.get(at))}


def _same_image(mine: Span | None, theirs: Span | None) -> bool:
    if mine is None or theirs is None:
        return False
    plain = (mine.stop, mine.grid, mine.time) == (theirs.stop, theirs.grid, theirs.time)
    return plain and all(
        _same_array(getattr(mine, name), getattr(theirs, name))
        for name in ("codes", "latents", "pixels", "noise")
    )


def _same_array(mine: np.ndarray | None, theirs: np.ndarray | None) -> bool:
    if mine is None or theirs is None:
        return mine is theirs
    return np.array_equal(mine, theirs)
