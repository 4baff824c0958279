"""Plan which document stands where in which row, from lengths alone.

In: streams with their index of lengths, and settings. Out: `Window`s of `window_rows` planned rows
each, one after another: a pure function of (settings, seed, number of the window).

1. Each stream offers its next units, each due when the tokens of the stream before it are its share
   of the window's. What a window gives too little or too much, the next one makes up for.
2. As many are taken as pack into exactly `window_rows` rows (packing.py). In groups of several rows
   long documents come in length groups, whose rows are a group; a window ends with units that stand
   alone, which fill it best.
3. The other rows are sorted by predicted cost and cut into groups of `group_rows`, whose rows cost
   the same; groups are shuffled, and the rows inside each. A group of one row is a row: then any
   batch of rows is what chance gives, while a larger group, which is of one length and so often of
   one task, has its share of the batch.

The LoaderState is where the next row is, and what each stream has given before its window: from it
planning goes on at once, on any number of ranks. Costs about 20 us a document and core.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from . import order
from .packing import pack_prefix
from .sources import Mixture
from .streams import GROUPS, Stream, Taken, Units

OFFER_UNITS = 256  # that a stream is asked for, at first,
OFFER_MARGIN = 1.05  # and then so many times what fills the window by the lengths of these
TAIL_GROUPS = 2  # groups of rows at the end of a window, where no length group begins
ROWS_BEFORE_NEXT = 32  # of a window are taken before the next one is planned beside them


@dataclass(frozen=True)
class LoaderState:
    """Where the next row is: row `row` of window `window`."""

    seed: int = 0
    window: int = 0
    row: int = 0
    taken: tuple[Taken, ...] = ()
    """What each stream has given before this window."""
    owed: tuple[float, ...] = ()
    """Tokens by which that is less than the stream's share."""
    group_rows: int = 1
    """Units of a length group, by which `taken` counts."""

    @classmethod
    def of(cls, noted: Mapping[str, Any]) -> "LoaderState":
        """Return the state that was noted as plain values; ValueError for another version's."""
        names = [one.name for one in fields(cls)]
        if sorted(noted) != sorted(names):
            raise ValueError(
                f"the state has {', '.join(sorted(noted))} and not {', '.join(names)}: it is of "
                "another version of the loader; go on with that version, or begin anew"
            )
        return cls(**noted)

    @property
    def units(self) -> tuple[int, ...]:
        """Count the units that each stream has given before the window."""
        return tuple(self.group_rows * groups + alone for groups, alone in self.taken)


@dataclass(frozen=True)
class Placement:
    """A unit in a row: its stream, pass and number, which of its Documents it is, its tokens."""

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
    """(stream, epoch, unit, record, drop) of each unit in the window, int64."""
    lengths_n: np.ndarray
    """Tokens of each unit, int64."""
    rows: list[list[int]]
    """For each row the indices of its units, in order."""
    after: LoaderState
    """The begin of the window that follows."""

    def row(self, number: int) -> list[Placement]:
        """Return the units of a row, in order."""
        items = self.rows[number]
        columns = zip(self.items_n5[items].tolist(), self.lengths_n[items].tolist(), strict=True)
        return [Placement(*[*item, length]) for item, length in columns]


@dataclass(frozen=True)
class WindowPlanner:
    """Plans windows; its fields are all that decides them."""

    streams: Sequence[Stream]
    mixtures: Sequence[Mixture]
    seed: int
    sequence_length: int
    window_rows: int
    """A multiple of `group_rows`."""
    batch_rows: int
    """Rows of a step, over all ranks: tells at which step a window begins."""
    dropout: float
    group_rows: int = 1
    """Rows that cost the same."""
    unread: float = 0.0
    """Share of documents that are not read to their end."""

    @property
    def _window_tokens(self) -> int:
        """Return how many tokens a window has room for."""
        return self.window_rows * self.sequence_length

    @property
    def _tail(self) -> int:
        """Return how many rows at the end of a window no length group may begin in."""
        return min(TAIL_GROUPS * self.group_rows, self.window_rows // 4)

    @property
    def _ahead(self) -> float:
        """Return how many windows are offered: a quarter of short units still fills the tail."""
        return 1 + 4 * self._tail / self.window_rows

    def begin(self) -> LoaderState:
        """Return the state before the first row."""
        num = len(self.streams)
        begun = ((0, 0),) * num
        return LoaderState(self.seed, taken=begun, owed=(0.0,) * num, group_rows=self.group_rows)

    def mixture(self, window: int) -> Mixture:
        """Return the mixture of a window: that of the step which its first row belongs to."""
        step = window * self.window_rows // self.batch_rows
        return [mixture for mixture in self.mixtures if mixture.from_step <= step][-1]

    def shares(self, window: int) -> np.ndarray:
        """Return each stream's share of the tokens of a window, float64, summing to 1."""
        mixture = self.mixture(window)
        weights = np.array([
            mixture.weights[stream.name] if stream.rule == mixture.rule else 0.0
            for stream in self.streams
        ])  # fmt: skip
        return weights / weights.sum()

    def window(self, state: LoaderState) -> Window:
        """Plan the window that a LoaderState lies in, from its first row on."""
        offered = self._candidates(state)
        count, rows = pack_prefix(
            offered.lengths, offered.ends, offered.in_group, self.sequence_length, self.window_rows,
            self.group_rows,
        )  # fmt: skip
        ordered = self._ordered(rows, offered, state.window)
        items, lengths = offered.items[:count], offered.lengths[:count]
        taken = tuple(
            (groups + more_groups, alone + more_alone)
            for (groups, alone), (more_groups, more_alone) in zip(
                state.taken, offered.given(count), strict=True
            )
        )
        given = np.bincount(items[:, 0], lengths, minlength=len(self.streams))
        owed = np.array(state.owed) + self.shares(state.window) * given.sum() - given
        after = replace(
            state, window=state.window + 1, row=0, taken=taken, owed=tuple(owed.tolist())
        )
        return Window(items, lengths, ordered, after)

    def _candidates(self, state: LoaderState) -> "_Candidates":
        """Return units in the order in which they are taken, enough to fill the window."""
        offers = [
            self._offer(number, state, share)
            for number, share in enumerate(self.shares(state.window).tolist())
            if share > 0
        ]
        columns = zip(*offers, strict=True)
        late, times, items, lengths, begins, in_group = (np.concatenate(c) for c in columns)
        in_order = np.lexsort((times, late))  # stable
        tokens = lengths[in_order].cumsum()
        fits = int(np.searchsorted(tokens, self._window_tokens, side="right"))  # at the very most
        taken = in_order[:fits]
        return _Candidates(
            len(self.streams), items[taken], lengths[taken], begins[in_order[: fits + 1]],
            in_group[taken],
        )  # fmt: skip

    def _offer(self, number: int, state: LoaderState, share: float) -> tuple[np.ndarray, ...]:
        """Return a stream's next units, more than the whole window at its share.

        Columns: how late each is, when it is due, items (n, 5), lengths, whether it begins an item,
        whether it is of a length group.
        """
        stream, taken, owed = self.streams[number], state.taken[number], state.owed[number]
        offered = self._ahead * self._window_tokens
        count, wanted = OFFER_UNITS, offered * share + owed  # units, tokens
        while True:
            units = stream.units(taken, count, self.seed, self.dropout, self.unread)
            begins = np.flatnonzero(units.begins_item)
            sizes = np.diff(begins, append=len(units.lengths))
            totals = np.add.reduceat(units.lengths, begins)
            # An item is due when the window's tokens reach the middle of it in its stream.
            times = np.repeat((totals.cumsum() - totals / 2 - owed) / share, sizes)
            if times[-1] > offered:
                break
            count = 1 + int(OFFER_MARGIN * count * max(1, wanted / totals.sum()))
        streams = np.full(len(times), number)
        columns = (streams, units.epochs, units.numbers, units.records, units.drops)
        items = np.stack(columns, axis=1)
        late = self._late(units, times)
        return late, times, items, units.lengths, units.begins_item, units.in_group

    def _late(self, units: Units, times: np.ndarray) -> np.ndarray:
        """Return the order of classes in which units are taken.

        0 for what is due in this window; 1 for units alone that are due later, and fill its end; 2
        for length groups that would begin in the tail, where nothing fills the rows they open, and
        for whatever would overtake a pass that they are of.
        """
        tail = self._tail * self.sequence_length
        late = units.in_group & (times > self._window_tokens - tail)
        late |= units.epochs > units.epochs[late].min(initial=units.epochs[-1])
        return np.where(late, 2, times > self._window_tokens)

    def _ordered(
        self, rows: list[list[int]], offered: "_Candidates", window: int
    ) -> list[list[int]]:
        """Return exactly `window_rows` rows: groups of `group_rows` of equal cost, shuffled."""
        num_grouped = sum(bool(offered.in_group[row[0]]) for row in rows)  # these come first
        grouped, rest = self._halved(rows[:num_grouped], rows[num_grouped:])
        squares_n = offered.lengths**2  # what costs differ by: all rows have as many tokens
        rows = grouped + sorted(rest, key=lambda row: int(squares_n[row].sum()))
        chance = order.hashed(self.seed, GROUPS, window, np.arange(len(rows)))
        inside = np.argsort(chance.reshape(-1, self.group_rows), axis=1, kind="stable")
        groups = inside + self.group_rows * np.arange(len(inside))[:, None]
        groups = groups[np.argsort(chance[: len(groups)], kind="stable")]
        return [rows[number] for number in groups.reshape(-1).tolist()]

    def _halved(
        self, grouped: list[list[int]], rest: list[list[int]]
    ) -> tuple[list[list[int]], list[list[int]]]:
        """Halve rows of several documents until there are `window_rows` of them.

        Rows of length groups are halved by whole groups, and only where no other can be.
        """
        while (missing := self.window_rows - len(grouped) - len(rest)) > 0:
            longest = max(rest, key=len, default=[])
            if len(longest) > 1 or missing < self.group_rows or not grouped:
                half = len(longest) // 2
                rest = [*(r for r in rest if r is not longest), longest[:half], longest[half:]]
            else:
                grouped = _with_a_group_halved(grouped, self.group_rows)
        return grouped, rest


@dataclass(frozen=True)
class _Candidates:
    """Units that a window may take, from the first on: columns (n,)."""

    num_streams: int
    items: np.ndarray
    lengths: np.ndarray
    begins_item: np.ndarray
    """True where an item begins, (n + 1,): the last one says it of the unit behind."""
    in_group: np.ndarray
    """True for the units of length groups."""

    @property
    def ends(self) -> np.ndarray:
        """Return how many units stand before the end of each whole item."""
        return np.flatnonzero(self.begins_item)[1:]

    def given(self, count: int) -> list[Taken]:
        """Count the items of each stream among the first `count` units."""
        begins = self.begins_item[:count]  # one for each item
        streams, in_group = self.items[:count, 0][begins], self.in_group[:count][begins]
        n = self.num_streams
        groups = np.bincount(streams[in_group], minlength=n).tolist()
        alone = np.bincount(streams[~in_group], minlength=n).tolist()
        return list(zip(groups, alone, strict=True))


def _with_a_group_halved(rows: list[list[int]], group_rows: int) -> list[list[int]]:
    """Split the group of rows with the most documents into two: the first of each row, the rest."""
    groups = [rows[at : at + group_rows] for at in range(0, len(rows), group_rows)]
    many = max(range(len(groups)), key=lambda at: min(map(len, groups[at])))
    group = groups.pop(many)
    groups += [[row[:1] for row in group], [row[1:] for row in group]]
    return [row for group in groups for row in group]


def planned_rows(
    planner: WindowPlanner, state: LoaderState
) -> Iterator[tuple[list[Placement], LoaderState]]:
    """Yield each planned row from a LoaderState on, with the LoaderState behind it, without end.

    A thread plans the next window while this one's rows are taken: not at once, for the first rows
    are waited for and want the core for themselves.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="plan") as thread:
        window = planner.window(state)
        while True:
            after, coming = window.after, None
            for row in range(state.row, len(window.rows)):
                if row == min(state.row + ROWS_BEFORE_NEXT, len(window.rows) - 1):
                    coming = thread.submit(planner.window, after)
                behind = replace(state, row=row + 1)
                yield window.row(row), after if row + 1 == len(window.rows) else behind
            assert coming is not None, "every window has a last row"
            state, window = after, coming.result()
