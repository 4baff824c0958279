"""Decide which sequences share a row, inside one window.

In: the lengths of a window's sequences, in tokens, in the order in which they are due. Out: packed
rows, each a list of numbers of sequences whose lengths sum to at most the sequence length. Every
sequence is in exactly one row and is never cut.

1. Each row begins with the first sequence that is left, so that none waits for long.
2. Beside it comes the set of others that leaves the least room: a subset sum, exact, over bits (bit
   s of an integer: the sum s can be reached). They are offered in their order, and no more of them
   than it takes to fill the row: so a row's documents are neighbours in a random order, of whatever
   length and task, and not the longest or the most alike.
3. Where groups of rows are to cost the same: a row's attention costs the sum of its documents'
   squared lengths. Rows with a long document are rare in a window, and neighbours in cost among
   them may differ by a tenth. So long documents come in length groups (`length_groups`), of about
   equal lengths, one for each row of a group of rows. These rows come first, and the others are
   offered longest first, all of them, for gaps of a few sizes are hard to fill.
4. `pack_prefix` packs as many of an endless order's first sequences as a window's rows hold.

Lengths that hardly differ, as of one kind of document, still fill rows, where placing one sequence
after the other leaves the same gap in each. Costs 1 to 6 us a sequence at 8,000 sequences and rows
of 1,024, beside length groups thrice that.
"""

from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from . import order

SHORT = 8  # documents of which so many fit into a row are short,
FILLER = 256  # and so are those of at most so many tokens: without them rows could not be filled
SPARE = 128  # sequences that are offered to a row beyond those that fill it
USUAL_FILL = 0.998  # of a window's token slots are in use where many lengths meet: tried first
FULL_ENOUGH = 0.999  # of the slots that can be filled: a window that fills them is taken


def longest_first(lengths_n: np.ndarray, sequence_length: int) -> tuple[np.ndarray, int]:
    """Put units in order of length; return (members uint32 (n,), k), a permutation of 0 .. n - 1
    of which the first k are long.

    lengths_n: int (n,), each 1 .. sequence_length tokens. Among units of one length chance decides,
    equally for every pass, which are neighbours: those in a shard need not be.
    """
    lengths_n = np.asarray(lengths_n).astype(np.uint64)
    chance_n = order.hashed(np.arange(len(lengths_n))) >> np.uint64(32)
    members_n = np.argsort(lengths_n << np.uint64(32) | chance_n)[::-1].astype(np.uint32)
    return members_n, int((lengths_n > max(sequence_length // SHORT, FILLER)).sum())


def length_groups(
    lengths_n: np.ndarray, sequence_length: int, group_rows: int
) -> tuple[np.ndarray, int]:
    """Group long units by length; return (members uint32 (n,), k), a permutation of 0 .. n - 1.

    members[: group_rows * k] are k length groups, one after another; the units behind them stand
    alone, all of them where a group is one row. See `longest_first`.
    """
    members_n, num_long = longest_first(lengths_n, sequence_length)
    return members_n, num_long // group_rows if group_rows > 1 else 0


def pack(
    lengths_n: np.ndarray, sequence_length: int, groups_kG: Sequence[Sequence[int]] = ()
) -> list[list[int]]:
    """Pack the sequences 0 .. n - 1 into rows; return the numbers of the sequences in each row.

    lengths_n: int (n,), each 1 .. sequence_length tokens, else ValueError. groups_kG: the sequences
    of k length groups, G each; each takes G rows, one sequence a row, and their rows come first, G
    by G. A pure function of the lengths and their order.
    """
    lengths_n = np.asarray(lengths_n, dtype=np.int64)
    outside = np.flatnonzero((lengths_n < 1) | (lengths_n > sequence_length))
    if outside.size:
        first = int(outside[0])
        raise ValueError(
            f"sequence {first} has {lengths_n[first]} tokens: a row holds 1 to {sequence_length}; "
            "give a larger sequence_length or a shorter document"
        )
    rows = _side_by_side(lengths_n, sequence_length, groups_kG)
    left = _Left(lengths_n, {number for row in rows for number in row}, bool(rows))
    for row in rows:
        row += left.beside(sequence_length - sum(int(lengths_n[number]) for number in row))
    while (number := left.first()) is not None:
        rows.append([number, *left.beside(sequence_length - int(lengths_n[number]))])
    return rows


def pack_prefix(
    lengths_n: np.ndarray, ends_k: np.ndarray, in_group_n: np.ndarray, sequence_length: int,
    num_rows: int, group_rows: int,
) -> tuple[int, list[list[int]]]:  # fmt: skip
    """Pack about as many of the first sequences, of whole items, as `num_rows` rows hold.

    Item k ends before sequence ends_k[k]; it is one sequence, or the `group_rows` of a length
    group, for which in_group_n (bool) is True. Return (count, rows): the sequences 0 .. count - 1
    in at most `num_rows` rows; `num_rows` is at least `group_rows`.
    """
    search = _PrefixSearch(lengths_n.cumsum()[ends_k - 1], num_rows * sequence_length)
    best: list[list[int]] = []
    while not search.is_over:
        count = ends_k[search.items - 1]
        groups_kG = np.flatnonzero(in_group_n[:count]).reshape(-1, group_rows).tolist()
        rows = pack(lengths_n[:count], sequence_length, groups_kG)
        if len(rows) >= num_rows:
            search.note_fill(_fill(lengths_n[:count], rows, sequence_length))
        if len(rows) <= num_rows:
            best = rows
            search.note_fit()
        else:
            search.note_overflow()
    return int(ends_k[search.fits - 1]), best


class _PrefixSearch:
    """Searches how many first items fit a window, each trial being a packing.

    Packing is dear, so trials are few. The first guess takes the usual fill. While none has fitted,
    each overflow tells how full rows of these very lengths get, and the next guess interpolates by
    that. Then bisection closes the bracket, but only until the window is as good as full.
    """

    def __init__(self, tokens_k: np.ndarray, num_slots: int) -> None:
        """`tokens_k`: the tokens of items 0 .. k together; `num_slots`: those a window holds."""
        self.tokens_k, self.num_slots = tokens_k, num_slots
        self.fits, self.too_many = 0, len(tokens_k) + 1  # the bracket, in items
        self.fill = 1.0  # the share of slots that these lengths can fill, as far as is known
        self.items = max(1, int(np.searchsorted(tokens_k, USUAL_FILL * num_slots)))  # to try next

    @property
    def is_over(self) -> bool:
        """Return whether some number fits, and no larger one is worth a trial."""
        if not self.fits:
            return False
        is_full = self.tokens_k[self.fits - 1] >= self.fill * self.num_slots * FULL_ENOUGH
        return bool(is_full) or self.too_many - self.fits <= 1

    def note_fill(self, fill: float) -> None:
        """Note how full the rows of a trial were, 0 to 1."""
        self.fill = min(self.fill, fill)

    def note_fit(self) -> None:
        """Note that `items` fit, and choose the next trial."""
        self.fits = self.items
        self.items = self._middle()

    def note_overflow(self) -> None:
        """Note that `items` do not fit, and choose the next trial."""
        self.too_many = self.items
        self.items = self._middle() if self.fits else self._interpolated()

    def _middle(self) -> int:
        return (self.fits + self.too_many) // 2

    def _interpolated(self) -> int:
        """Return as many items as the slots that these lengths can fill have room for, less one."""
        likely = int(np.searchsorted(self.tokens_k, self.fill * self.num_slots, side="right")) - 1
        return max(1, min(likely, self.too_many - 1))


def _fill(lengths_n: np.ndarray, rows: list[list[int]], sequence_length: int) -> float:
    """Return the share of slots in use in all rows but the last, which has room by chance."""
    if len(rows) == 1:
        return 1.0
    used = lengths_n.sum() - lengths_n[rows[-1]].sum()
    return float(used / ((len(rows) - 1) * sequence_length))


def _side_by_side(
    lengths_n: np.ndarray, sequence_length: int, groups_kG: Sequence[Sequence[int]]
) -> list[list[int]]:
    """Place whole length groups into groups of rows, nothing else beside them yet.

    Best fit, the longest first: each goes where it leaves the least room, but not where it leaves
    a gap that no other sequence is short enough for, unless that gap is under 1 % of the row.
    """
    alone = np.delete(lengths_n, np.ravel(groups_kG).astype(np.int64))
    least, little = int(alone.min(initial=sequence_length)), sequence_length // 100
    longest_k = [max(int(lengths_n[number]) for number in group) for group in groups_kG]
    row_groups: list[list[list[int]]] = []  # of rows of sequences
    rooms: list[int] = []  # tokens that the fullest row of each has left
    for k in sorted(range(len(longest_k)), key=lambda k: (-longest_k[k], k)):
        fitting = [
            (room, at)
            for at, room in enumerate(rooms)
            if 0 <= room - longest_k[k] <= little or room - longest_k[k] >= least
        ]
        if not fitting:
            row_groups.append([[] for _ in groups_kG[k]])
            rooms.append(sequence_length)
        at = min(fitting)[1] if fitting else -1
        # The longest of one beside the shortest of the other keeps the rows about equally full.
        shortest_first = sorted(groups_kG[k], key=lambda number: (int(lengths_n[number]), number))
        row_groups[at].sort(key=lambda row: -sum(int(lengths_n[number]) for number in row))
        for row, number in zip(row_groups[at], shortest_first, strict=True):
            row.append(number)
        rooms[at] = sequence_length - max(int(lengths_n[row].sum()) for row in row_groups[at])
    return [row for rows in row_groups for row in rows]


class _Left:
    """The sequences that have no row yet, in their order or the longest first."""

    def __init__(self, lengths_n: np.ndarray, placed: Collection[int], longest_first: bool) -> None:
        self.lengths = lengths_n.tolist()
        left = [number for number in range(len(lengths_n)) if number not in placed]
        if longest_first:
            left.sort(key=self._shortness)
        self.longest_first = longest_first
        self._near = left if longest_first else []  # those that may be offered to a row at once
        self._rest = iter([] if longest_first else left)

    def first(self) -> int | None:
        """Remove and return the first one; None where none is left."""
        for _ in self._offered(0):
            return self._near.pop(0)
        return None

    def beside(self, room: int) -> list[int]:
        """Remove and return those whose lengths' sum comes nearest to `room` from below.

        Subset sum over bits: bit s of `reached` says that the sum s can be made.
        """
        reached, below, full = 1, (2 << room) - 1, 1 << room
        steps: list[tuple[int, int]] = []  # (place, what was reached without it)
        longer = bisect_left(self._near, -room, key=self._shortness) if self.longest_first else 0
        spare = len(self.lengths) if self.longest_first else SPARE
        tokens = useless = 0
        for place, number in self._offered(longer):
            length = self.lengths[number]
            if length <= room and length != useless:  # one more copy of it reaches nothing either
                more = (reached | reached << length) & below
                if more == reached:
                    useless = length
                else:
                    steps.append((place, reached))
                reached, tokens = more, tokens + length
            spare -= length > room or tokens > room
            if reached & full or not spare:
                break
        return self._take(steps, reached.bit_length() - 1)

    def _shortness(self, number: int) -> int:
        return -self.lengths[number]

    def _offered(self, first: int) -> Iterator[tuple[int, int]]:
        """Yield the place and the number of each, from place `first` on."""
        for place in range(first, len(self._near)):
            yield place, self._near[place]
        for number in self._rest:
            self._near.append(number)
            yield len(self._near) - 1, number

    def _take(self, steps: list[tuple[int, int]], total: int) -> list[int]:
        """Walk the steps back, and remove and return those that were summed up to `total`."""
        taken: list[int] = []
        for place, before in reversed(steps):
            if not before >> total & 1:
                taken.append(self._near.pop(place))  # the last place first: others stay right
                total -= self.lengths[taken[-1]]
        assert total == 0, "a reached sum is made of the steps that reached it"
        return taken[::-1]
