"""Which document stands where in which row, planned from lengths alone.

In: streams with their index of lengths, and settings. Out: `Window`s of `window_rows` planned rows
each, one after another: a pure function of (settings, seed, number of the window).

1. Each stream offers its next units, each due when the positions of the stream before it are its
   share of the window's. What a window gives too little or too much, the next one makes up for.
2. As many are taken as pack into exactly `window_rows` rows (packing.py). Long documents come in
   length groups, whose rows are a group; a window ends with units alone, which
   fill it best.
3. The other rows are sorted by predicted cost and cut into groups of GROUP_ROWS, whose rows cost
   the same; groups are shuffled, and the rows inside each.

The LoaderState is where the next row is, and what each stream has given before its window: from it
planning goes on at once, on any number of ranks. Costs about 20 us a document and core.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from . import order
from .packing import GROUP_ROWS, pack
from .sources import GROUPS, Mixture, Stream, Taken, Units

ENOUGH = 1000
USUAL = 0.998  # of the positions are filled where many lengths meet: tried first
NEARLY = 1 - 1 / ENOUGH  # of the positions that can be packed, a window has as many as this
AT_ONCE = 256  # units that a stream is asked for, at first
MORE = 1.05  # and then as many as fill the window by the lengths of these, and some more
TAIL_ROWS = 2 * GROUP_ROWS  # at the end of a window, where no length_group begins
LATER = 32  # rows of a window are taken before the next one is planned: the first are waited for


@dataclass(frozen=True)
class LoaderState:
    """Where the next row is: row `row` of window `window`; `taken`: what each stream has given
    before this window; `owed`: the positions by which that is less than its share.
    """

    seed: int = 0
    window: int = 0
    row: int = 0
    taken: tuple[Taken, ...] = ()
    owed: tuple[float, ...] = ()

    @classmethod
    def of(cls, noted: Mapping[str, Any]) -> "LoaderState":
        """The LoaderState that was noted as plain numbers; ValueError for one of another
        version.
        """
        names = [one.name for one in fields(cls)]
        if sorted(noted) != sorted(names):
            raise ValueError(
                f"the state has {', '.join(sorted(noted))} and not {', '.join(names)}: it is of "
                "another version of the loader; go on with that version, or begin anew"
            )
        return cls(**noted)

    @property
    def units(self) -> tuple[int, ...]:
        """How many units each stream has given before the window."""
        return tuple(GROUP_ROWS * length_groups + alone for length_groups, alone in self.taken)


@dataclass(frozen=True)
class Placement:
    """A unit in a row: which, as which of its Documents, and how many positions it takes."""

    stream: int
    epoch: int
    unit: int
    record: int
    drop: int
    length: int


@dataclass(frozen=True)
class Window:
    """Planned rows."""

    items_n5: np.ndarray
    """(stream, epoch, unit, record, drop) of each unit in it."""
    lengths_n: np.ndarray
    rows: list[list[int]]
    """For each row the numbers of its units, in order."""
    after: LoaderState
    """The begin of the window that follows."""

    def row(self, number: int) -> list[Placement]:
        """The units of a row, in order."""
        items = self.rows[number]
        places = zip(self.items_n5[items].tolist(), self.lengths_n[items].tolist(), strict=True)
        return [Placement(*[*item, length]) for item, length in places]


@dataclass(frozen=True)
class _Candidates:
    """Units that a window may take, from the first on: columns (n,)."""

    num_streams: int
    items: np.ndarray
    lengths: np.ndarray
    first: np.ndarray
    """True where an item begins, (n + 1,): the last one says it of the unit behind."""
    together: np.ndarray
    """True for the units of length_groups."""

    @property
    def ends(self) -> np.ndarray:
        """Behind which units an item ends."""
        return np.flatnonzero(self.first)[1:]

    def length_groups(self, count: int) -> list[list[int]]:
        """The GROUP_ROWS units of each length_group among the first `count` units."""
        return np.flatnonzero(self.together[:count]).reshape(-1, GROUP_ROWS).tolist()

    def given(self, count: int) -> list[Taken]:
        """The items of each stream among the first `count` units."""
        first = self.first[:count]  # one for each item
        streams, together = self.items[:count, 0][first], self.together[:count][first]
        n = self.num_streams
        length_groups = np.bincount(streams[together], minlength=n).tolist()
        alone = np.bincount(streams[~together], minlength=n).tolist()
        return list(zip(length_groups, alone, strict=True))


@dataclass(frozen=True)
class WindowPlanner:
    """Plans windows; everything that decides them."""

    streams: Sequence[Stream]
    mixtures: Sequence[Mixture]
    seed: int
    sequence_length: int
    window_rows: int
    batch_rows: int
    """Rows of a step, over all ranks: says at which step a window begins."""
    dropout: float

    @property
    def _tail(self) -> int:
        """Rows at the end of a window, where no length_group begins."""
        return min(TAIL_ROWS, self.window_rows // 4)

    @property
    def _ahead(self) -> float:
        """How much of a window is offered: what fills its end though a quarter alone is short."""
        return 1 + 4 * self._tail / self.window_rows

    def begin(self) -> LoaderState:
        """Before the first row."""
        num = len(self.streams)
        return LoaderState(self.seed, taken=((0, 0),) * num, owed=(0.0,) * num)

    def mixture(self, window: int) -> Mixture:
        """What holds in a window: that of the step which its first row belongs to."""
        step = window * self.window_rows // self.batch_rows
        return [mixture for mixture in self.mixtures if mixture.from_step <= step][-1]

    def shares(self, window: int) -> np.ndarray:
        """Of the positions of a window, each stream's share."""
        mixture = self.mixture(window)
        weights = np.array([
            mixture.weights[stream.name] if stream.rule == mixture.rule else 0.0
            for stream in self.streams
        ])  # fmt: skip
        return weights / weights.sum()

    def window(self, state: LoaderState) -> Window:
        """The rows of the window that a LoaderState lies in."""
        found = self._candidates(state)
        count, rows = self._packed(found)
        ordered = self._grouped(rows, found, state.window)
        items, lengths = found.items[:count], found.lengths[:count]
        taken = tuple(
            (before[0] + length_groups, before[1] + alone)
            for before, (length_groups, alone) in zip(state.taken, found.given(count), strict=True)
        )
        given = np.bincount(items[:, 0], lengths, minlength=len(self.streams))
        owed = np.array(state.owed) + self.shares(state.window) * given.sum() - given
        after = LoaderState(self.seed, state.window + 1, 0, taken, tuple(owed.tolist()))
        return Window(items, lengths, ordered, after)

    def _candidates(self, state: LoaderState) -> "_Candidates":
        """Units in the order in which they are taken, enough to fill the window."""
        budget = self.window_rows * self.sequence_length
        offers = [
            self._offer(number, state, share, budget)
            for number, share in enumerate(self.shares(state.window).tolist())
            if share > 0
        ]
        columns = zip(*offers, strict=True)
        late, times, items, lengths, first, together = (np.concatenate(c) for c in columns)
        in_order = np.lexsort((times, late))  # stable
        fits = int(np.searchsorted(lengths[in_order].cumsum(), budget, side="right"))
        taken, begins = in_order[:fits], first[in_order[: fits + 1]]
        n = len(self.streams)
        return _Candidates(n, items[taken], lengths[taken], begins, together[taken])

    def _offer(self, number: int, state: LoaderState, share: float, budget: int) -> tuple:
        """A stream's next units, more than the whole budget at its share: how late, times, items
        (n, 5), lengths, which begin an item, which are of a length_group.
        """
        stream, taken, owed = self.streams[number], state.taken[number], state.owed[number]
        count, wanted = AT_ONCE, self._ahead * budget * share + owed  # positions
        while True:
            units = stream.units(taken, count, self.seed, self.dropout)
            begins = np.flatnonzero(units.first)
            sizes = np.diff(begins, append=len(units.lengths))
            totals = np.add.reduceat(units.lengths, begins)
            times = np.repeat((totals.cumsum() - totals / 2 - owed) / share, sizes)
            if times[-1] > self._ahead * budget:
                break
            count = 1 + int(MORE * count * max(1, wanted / totals.sum()))
        streams = np.full(len(times), number)
        columns = (streams, units.epochs, units.numbers, units.records, units.drops)
        late = self._late(units, times, budget)
        items = np.stack(columns, axis=1)
        return late, times, items, units.lengths, units.first, units.together

    def _late(self, units: Units, times: np.ndarray, budget: int) -> np.ndarray:
        """1 for units alone that are not yet due, and fill the end of the window; 2 for
        length_groups, which would not, and for what would come before its pass that way.
        """
        tail = self._tail * self.sequence_length
        late = units.together & (times > budget - tail)
        late |= units.epochs > units.epochs[late].min(initial=units.epochs[-1])
        return np.where(late, 2, times > budget)

    def _packed(self, found: "_Candidates") -> tuple[int, list[list[int]]]:
        """(count, rows): about the largest number of first units, of whole items, that fits
        `window_rows` rows.
        """
        ends_k, lengths_n = found.ends, found.lengths  # item k ends with unit ends_k[k] - 1
        positions_k = lengths_n.cumsum()[ends_k - 1]
        slots = self.window_rows * self.sequence_length
        fits, too_many, fill = 0, len(ends_k) + 1, 1.0  # `fill`: what these lengths allow
        items = max(1, int(np.searchsorted(positions_k, USUAL * slots)))
        best: list[list[int]] = []
        while not best or too_many - fits > 1 and positions_k[fits - 1] < fill * slots * NEARLY:
            count = ends_k[items - 1]
            rows = pack(lengths_n[:count], self.sequence_length, found.length_groups(count))
            if len(rows) >= self.window_rows > 1:  # the last row may have room by chance
                whole = positions_k[items - 1] - lengths_n[rows[-1]].sum()
                fill = min(fill, whole / ((len(rows) - 1) * self.sequence_length))
            if len(rows) <= self.window_rows:
                fits, best = items, rows
                items = (fits + too_many) // 2
                continue
            too_many = items
            likely = int(np.searchsorted(positions_k, fill * slots, side="right")) - 1
            items = (fits + too_many) // 2 if best else max(1, min(likely, too_many - 1))
        return int(ends_k[fits - 1]), best

    def _grouped(self, rows: list[list[int]], found: "_Candidates", window: int) -> list[list[int]]:
        """Exactly `window_rows` rows in groups of GROUP_ROWS of equal cost, in random order."""
        grouped = sum(bool(found.together[row[0]]) for row in rows)
        rest = rows[grouped:]
        while grouped + len(rest) < self.window_rows:
            longest = max(rest, key=len, default=[])
            if (
                len(longest) > 1
                or grouped + len(rest) + GROUP_ROWS > self.window_rows
                or not grouped
            ):
                half = len(longest) // 2
                rest = [*(r for r in rest if r is not longest), longest[:half], longest[half:]]
            else:
                rows = _with_a_group_halved(rows[:grouped])
                grouped = len(rows)
        squares_n = found.lengths**2  # what costs differ by: all rows have as many positions
        rest = sorted(rest, key=lambda row: int(squares_n[row].sum()))
        rows = rows[:grouped] + rest
        chance = order.hashed(self.seed, GROUPS, window, np.arange(len(rows)))
        inside = np.argsort(chance.reshape(-1, GROUP_ROWS), axis=1, kind="stable")
        groups = inside + GROUP_ROWS * np.arange(len(inside))[:, None]
        groups = groups[np.argsort(chance[: len(groups)], kind="stable")]
        return [rows[number] for number in groups.reshape(-1).tolist()]


def _with_a_group_halved(rows: list[list[int]]) -> list[list[int]]:
    """Rows of length_groups, of which a group of many documents is two: the first ones, and the
    rest.
    """
    groups = [rows[at : at + GROUP_ROWS] for at in range(0, len(rows), GROUP_ROWS)]
    many = max(range(len(groups)), key=lambda at: min(map(len, groups[at])))
    group = groups.pop(many)
    groups += [[row[:1] for row in group], [row[1:] for row in group]]
    return [row for group in groups for row in group]


def planned_rows(
    planner: WindowPlanner, state: LoaderState
) -> Iterator[tuple[list[Placement], LoaderState]]:
    """Each planned row from a LoaderState on, with the LoaderState behind it, without end.

    The next window is planned by a thread while this one's rows are taken.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="plan") as thread:
        window = planner.window(state)
        while True:
            after, coming = window.after, None
            for row in range(state.row, len(window.rows)):
                if row == min(state.row + LATER, len(window.rows) - 1):
                    coming = thread.submit(planner.window, after)
                behind = replace(state, row=row + 1)
                yield window.row(row), after if row + 1 == len(window.rows) else behind
            assert coming is not None, "every window has a last row"
            state, window = after, coming.result()
