"""Which sequences share a row, inside one window.

In: the lengths of a window's sequences. Out: rows, each a list of numbers of sequences whose
lengths sum to at most the row length. Every sequence is in exactly one row and is never cut.

1. A row begins with the longest sequence left.
2. Beside it comes the set of others that leaves the least room: a subset sum, exact, over bits
   (bit s of an integer: the sum s can be reached).

Lengths that hardly differ, as of one kind of document, still fill rows, where placing one sequence
after the other leaves the same gap in each. Costs 5 to 15 us a sequence at 8,000 sequences and rows
of 1,024; grows with the row length and the number of different lengths.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Sequence

import numpy as np


def pack(
    lengths_n: np.ndarray, sequence_length: int, groups_kG: Sequence[Sequence[int]] = ()
) -> list[list[int]]:
    """Rows of numbers 0 .. n - 1; lengths_n: int (n,), each 1 .. sequence_length positions.

    Length groups are sequences of about equal lengths, one for each of G rows: rows with
    length_groups come first, G by G. A pure function: of equally long sequences the one with the
    lower number goes first.
    """
    lengths_n = np.asarray(lengths_n, dtype=np.int64)
    outside = np.flatnonzero((lengths_n < 1) | (lengths_n > sequence_length))
    if outside.size:
        first = int(outside[0])
        raise ValueError(
            f"sequence {first} has {lengths_n[first]} tokens: a row holds 1 to {sequence_length}; "
            "give a larger row length or a shorter document"
        )
    rows = _side_by_side(lengths_n, sequence_length, groups_kG)
    left = _Left(lengths_n, {number for row in rows for number in row})
    for row in rows:
        room = sequence_length - sum(int(lengths_n[number]) for number in row)
        row += [left.take(length) for length in left.beside(room)]
    while left.lengths:
        longest = left.lengths[-1]
        row = [left.take(longest)]
        row += [left.take(length) for length in left.beside(sequence_length - longest)]
        rows.append(row)
    return rows


def _side_by_side(
    lengths_n: np.ndarray, sequence_length: int, groups_kG: Sequence[Sequence[int]]
) -> list[list[int]]:
    """Rows of whole length_groups alone: each goes, the longest first, where it leaves the least
    room, but not where it leaves some that is less than any other sequence needs.
    """
    alone = np.delete(lengths_n, np.ravel(groups_kG).astype(np.int64))
    least, little = int(alone.min(initial=sequence_length)), sequence_length // 100
    longest_k = [
        max(int(lengths_n[number]) for number in length_group) for length_group in groups_kG
    ]
    groups: list[list[list[int]]] = []  # of rows of sequences
    rooms: list[int] = []
    for k in sorted(range(len(longest_k)), key=lambda k: (-longest_k[k], k)):
        fitting = [
            (room, at)
            for at, room in enumerate(rooms)
            if 0 <= room - longest_k[k] <= little or room - longest_k[k] >= least
        ]
        if not fitting:
            groups.append([[] for _ in groups_kG[k]])
            rooms.append(sequence_length)
        at = min(fitting)[1] if fitting else -1
        # The longest of one beside the shortest of the other.
        shortest_first = sorted(groups_kG[k], key=lambda number: (int(lengths_n[number]), number))
        groups[at].sort(key=lambda row: -sum(int(lengths_n[number]) for number in row))
        for row, number in zip(groups[at], shortest_first, strict=True):
            row.append(number)
        rooms[at] = sequence_length - max(int(lengths_n[row].sum()) for row in groups[at])
    return [row for group in groups for row in group]


def fill(lengths_n: np.ndarray, rows: Sequence[Sequence[int]], sequence_length: int) -> float:
    """The fraction of positions in use, 0 to 1."""
    return float(np.sum(lengths_n)) / (len(rows) * sequence_length) if rows else 1.0


class _Left:
    """The sequences that have no row yet."""

    def __init__(self, lengths_n: np.ndarray, placed: Collection[int]) -> None:
        self.numbers: dict[int, list[int]] = {}  # by length, the lowest number last
        for number in range(len(lengths_n) - 1, -1, -1):
            if number not in placed:
                self.numbers.setdefault(int(lengths_n[number]), []).append(number)
        self.lengths = sorted(self.numbers)  # each once, ascending

    def take(self, length: int) -> int:
        """The first sequence of this length; it is no longer left."""
        numbers = self.numbers[length]
        number = numbers.pop()
        if not numbers:
            del self.numbers[length]
            del self.lengths[bisect_left(self.lengths, length)]
        return number

    def beside(self, room: int) -> list[int]:
        """The lengths among those left whose sum comes nearest to `room` from below.

        Bit s of `reached`: the sum s can be made. Any number of copies of a length is a sum of
        lots of 1, 2, 4, ... copies.
        """
        reached, below, full = 1, (2 << room) - 1, 1 << room
        steps: list[tuple[int, int, int]] = []  # (length, copies, what was reached without them)
        for at in range(bisect_right(self.lengths, room) - 1, -1, -1):
            length, copies = self.lengths[at], 1
            more = len(self.numbers[length])
            if more * length > room:
                more = room // length
            while more > 0 and not reached & full:
                if copies > more:
                    copies = more
                steps.append((length, copies, reached))
                reached |= (reached << length * copies) & below
                more, copies = more - copies, 2 * copies
            if reached & full:
                break
        return _chosen(steps, reached.bit_length() - 1)


def _chosen(steps: list[tuple[int, int, int]], total: int) -> list[int]:
    """The lengths that were summed up to `total`."""
    chosen: list[int] = []
    for length, copies, before in reversed(steps):
        if not before >> total & 1:
            chosen += [length] * copies
            total -= length * copies
    assert total == 0, "a reached sum is made of the steps that reached it"
    return chosen
