"""Which sequences share a row, inside one window.

In: the lengths of a window's sequences. Out: rows, each a list of numbers of sequences whose
lengths sum to at most the row length. Every sequence is in exactly one row and is never cut.

1. A row begins with the longest sequence left.
2. Beside it comes the set of others that leaves the least room: a subset sum, exact, over bits
   (bit s of an integer: the sum s can be reached).

Lengths that hardly differ, as of one kind of document, still fill rows, where placing one sequence
after the other leaves the same gap in each. Costs 2 us a sequence at 2,048 sequences and rows of
1,024; grows with the row length and the number of different lengths.
"""

from collections.abc import Iterator, Sequence

import numpy as np


def pack(lengths_n: np.ndarray, row_length: int) -> list[list[int]]:
    """Rows of numbers 0 .. n - 1; lengths_n: int (n,), each 1 .. row_length positions.

    A pure function: of equally long sequences the one with the lower number goes first.
    """
    lengths_n = np.asarray(lengths_n, dtype=np.int64)
    outside = np.flatnonzero((lengths_n < 1) | (lengths_n > row_length))
    if outside.size:
        first = int(outside[0])
        raise ValueError(
            f"sequence {first} has {lengths_n[first]} positions: a row holds 1 to {row_length}; "
            "give a larger row length or a shorter document"
        )
    left: dict[int, list[int]] = {}  # numbers by length, longest length first, lowest number last
    for number in np.lexsort((-np.arange(len(lengths_n)), -lengths_n)).tolist():
        left.setdefault(int(lengths_n[number]), []).append(number)
    rows: list[list[int]] = []
    while left:
        longest = next(iter(left))
        row = [_take(left, longest)]
        row += [_take(left, length) for length in _beside(left, row_length - longest)]
        rows.append(row)
    return rows


def fill(lengths_n: np.ndarray, rows: Sequence[Sequence[int]], row_length: int) -> float:
    """The fraction of positions in use, 0 to 1."""
    return float(np.sum(lengths_n)) / (len(rows) * row_length) if rows else 1.0


def _take(left: dict[int, list[int]], length: int) -> int:
    number = left[length].pop()
    if not left[length]:
        del left[length]
    return number


def _beside(left: dict[int, list[int]], room: int) -> list[int]:
    """The lengths among those left whose sum comes nearest to `room` from below."""
    reached, below = 1, (2 << room) - 1
    steps: list[tuple[int, int, int]] = []  # (length, copies, what was reached without them)
    for length, copies in _pieces(left, room):
        steps.append((length, copies, reached))
        reached |= (reached << (length * copies)) & below
        if reached >> room:
            break
    total = reached.bit_length() - 1
    chosen: list[int] = []
    for length, copies, before in reversed(steps):
        if not before >> total & 1:
            chosen += [length] * copies
            total -= length * copies
    assert total == 0, "a reached sum is made of the steps that reached it"
    return chosen


def _pieces(left: dict[int, list[int]], room: int) -> Iterator[tuple[int, int]]:
    """(length, copies): each length that fits in lots of 1, 2, 4, ...: any number of copies."""
    for length, numbers in left.items():
        more, copies = min(len(numbers), room // length), 1
        while more > 0:
            copies = min(copies, more)
            yield length, copies
            more, copies = more - copies, 2 * copies
