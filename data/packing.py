"""Which sequences share a row: best-fit decreasing inside one window.

In: the lengths of a window's sequences. Out: rows, each a list of numbers of sequences whose
lengths sum to at most the row length. Every sequence is in exactly one row and is never cut.

Longest first, each sequence goes to the row that it leaves the least room in (Johnson 1973: at
most 11/9 of the fewest rows, plus 4). Costs about 2 us a sequence.
"""

from bisect import bisect_left, insort
from collections.abc import Sequence

import numpy as np


def pack(lengths_n: np.ndarray, row_length: int) -> list[list[int]]:
    """Rows of numbers 0 .. n - 1; lengths_n: int (n,), each 1 .. row_length positions.

    A pure function: ties go to the lower number and to the row opened first.
    """
    lengths_n = np.asarray(lengths_n, dtype=np.int64)
    outside = np.flatnonzero((lengths_n < 1) | (lengths_n > row_length))
    if outside.size:
        first = int(outside[0])
        raise ValueError(
            f"sequence {first} has {lengths_n[first]} positions: a row holds 1 to {row_length}; "
            "give a larger row length or a shorter document"
        )
    rows: list[list[int]] = []
    free: list[tuple[int, int]] = []  # (positions left, row), sorted
    for number in np.argsort(-lengths_n, kind="stable").tolist():
        length = int(lengths_n[number])
        at = bisect_left(free, (length, 0))
        if at < len(free):
            room, row = free.pop(at)
        else:
            room, row = row_length, len(rows)
            rows.append([])
        rows[row].append(number)
        insort(free, (room - length, row))
    return rows


def fill(lengths_n: np.ndarray, rows: Sequence[Sequence[int]], row_length: int) -> float:
    """The fraction of positions in use, 0 to 1."""
    return float(np.sum(lengths_n)) / (len(rows) * row_length) if rows else 1.0
