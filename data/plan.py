"""Which document stands where in which row, planned from lengths alone.

In: streams with their index of lengths, and settings. Out: `Window`s of `window_rows` planned rows
each, one after another: a pure function of (settings, seed, number of the window).

1. Each stream offers its next units. They are taken in the order of (positions of the stream
   before a unit) / (weight of the stream), so every stream has its share of positions; a hashed
   phase for each window keeps the shares of rare streams unbiased.
2. As many are taken as pack into exactly `window_rows` rows (see packing.py).
3. The rows are sorted by predicted cost and cut into groups of GROUP, whose rows cost the same;
   groups are shuffled, and the rows inside each.

The State is where the next row is, and how many units each stream has given before its window: from
it planning goes on at once, on any number of ranks. Costs about 30 us a document and core.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from . import order
from .packing import pack
from .sources import GROUPS, PHASE, Mixture, Stream

GROUP = 8  # rows that cost the same: a micro-step takes whole groups
ENOUGH = 1000
NEARLY = 1 - 1 / ENOUGH  # of the positions that can be packed, a window has as many as this
AT_ONCE = 256  # units that a stream is asked for, at first
MORE = 1.05  # and then as many as fill the window by the lengths of these, and some more
LATER = 32  # rows of a window are taken before the next one is planned: the first are waited for


@dataclass(frozen=True)
class State:
    """Where the next row is: row `row` of window `window`; `taken`: the units that each stream has
    given before this window.
    """

    seed: int = 0
    window: int = 0
    row: int = 0
    taken: tuple[int, ...] = ()


@dataclass(frozen=True)
class Place:
    """A unit in a row: which, as which of its Documents, and how many positions it takes."""

    stream: int
    epoch: int
    unit: int
    record: int
    drop: int
    length: int


@dataclass(frozen=True)
class Window:
    """Planned rows; `taken` is what the streams have given when it ends."""

    items_n5: np.ndarray
    """(stream, epoch, unit, record, drop) of each unit in it."""
    lengths_n: np.ndarray
    rows: list[list[int]]
    """For each row the numbers of its units, in order."""
    taken: tuple[int, ...]

    def row(self, number: int) -> list[Place]:
        """The units of a row, in order."""
        items = self.rows[number]
        places = zip(self.items_n5[items].tolist(), self.lengths_n[items].tolist(), strict=True)
        return [Place(*[*item, length]) for item, length in places]


@dataclass(frozen=True)
class Planner:
    """Plans windows; everything that decides them."""

    streams: Sequence[Stream]
    mixtures: Sequence[Mixture]
    seed: int
    row_length: int
    window_rows: int
    batch_rows: int
    """Rows of a step, over all ranks: says at which step a window begins."""
    dropout: float
    pair_cost: float
    """FLOPs of a pair of positions that see each other, over those of a position."""

    def begin(self) -> State:
        """Before the first row."""
        return State(self.seed, taken=(0,) * len(self.streams))

    def after(self, state: State, window: Window) -> State:
        """The begin of the window that follows."""
        return State(self.seed, state.window + 1, 0, window.taken)

    def mixture(self, window: int) -> Mixture:
        """What holds in a window: that of the step which its first row belongs to."""
        step = window * self.window_rows // self.batch_rows
        return [mixture for mixture in self.mixtures if mixture.from_step <= step][-1]

    def window(self, state: State) -> Window:
        """The rows of the window that a State lies in."""
        items_n5, lengths_n = self._candidates(state)
        count, rows = self._packed(lengths_n)
        items_n5, lengths_n = items_n5[:count], lengths_n[:count]
        given = np.bincount(items_n5[:, 0], minlength=len(self.streams))
        taken = tuple(int(before + more) for before, more in zip(state.taken, given, strict=True))
        ordered = self._grouped(rows, lengths_n, state.window)
        return Window(items_n5, lengths_n, ordered, taken)

    def cost(self, lengths_n: np.ndarray) -> float:
        """What a row of documents of these lengths costs, in FLOPs over those of a position."""
        lengths_n = lengths_n.astype(np.float64)
        return self.row_length + self.pair_cost * float(lengths_n @ lengths_n)

    def _candidates(self, state: State) -> tuple[np.ndarray, np.ndarray]:
        """Units in the order in which they are taken, enough to fill the window."""
        mixture = self.mixture(state.window)
        shares = [
            mixture.weights[stream.name] if stream.rule == mixture.rule else 0.0
            for stream in self.streams
        ]
        budget = self.window_rows * self.row_length
        offers = [
            self._offer(number, state, share / sum(shares), budget)
            for number, share in enumerate(shares)
            if share > 0
        ]
        times, items, lengths = (np.concatenate(column) for column in zip(*offers, strict=True))
        first = np.argsort(times, kind="stable")
        lengths = lengths[first]
        fits = int(np.searchsorted(lengths.cumsum(), budget, side="right"))
        return items[first][:fits], lengths[:fits]

    def _offer(
        self, number: int, state: State, share: float, budget: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A stream's next units: times, items (n, 5), lengths; enough for the whole budget at its
        share, and one more.
        """
        stream, before = self.streams[number], state.taken[number]
        phase = float(order.uniform(self.seed, PHASE, stream.word, state.window)[0])
        count = AT_ONCE
        while True:
            units = stream.units(before, count, self.seed, self.dropout)
            times = (units.lengths.cumsum() - (1 - phase) * units.lengths) / share
            if times[-1] > budget:
                break
            count = 1 + int(MORE * max(count, count * budget / times[-1]))
        streams = np.full(count, number)
        columns = (streams, units.epochs, units.numbers, units.records, units.drops)
        return times, np.stack(columns, axis=1), units.lengths

    def _packed(self, lengths_n: np.ndarray) -> tuple[int, list[list[int]]]:
        """(count, rows): about the largest number of first units that fits `window_rows` rows."""
        positions_n = np.concatenate([[0], lengths_n.cumsum()])
        slots = self.window_rows * self.row_length
        fits, too_many, fill = 0, len(lengths_n) + 1, 1.0  # `fill`: what these lengths allow
        count = max(1, too_many - 1 - too_many // (2 * ENOUGH))
        best: list[list[int]] = []
        while not best or too_many - fits > 1 and positions_n[fits] < fill * slots * NEARLY:
            rows = pack(lengths_n[:count], self.row_length)
            if len(rows) <= self.window_rows:
                fits, best = count, rows
                count = (fits + too_many) // 2
                continue
            too_many = count
            whole = positions_n[count] - lengths_n[rows[-1]].sum()
            fill = min(fill, whole / ((len(rows) - 1) * self.row_length))
            likely = int(np.searchsorted(positions_n, fill * slots, side="right")) - 2
            count = (fits + too_many) // 2 if best else max(1, min(likely, too_many - 1))
        return fits, self._spread(best)

    def _spread(self, rows: list[list[int]]) -> list[list[int]]:
        """Exactly `window_rows` rows: rows of several documents are halved while some are empty."""
        while len(rows) < self.window_rows:
            longest = max(rows, key=len)
            half = len(longest) // 2
            rows = [*(row for row in rows if row is not longest), longest[:half], longest[half:]]
        return rows

    def _grouped(
        self, rows: list[list[int]], lengths_n: np.ndarray, window: int
    ) -> list[list[int]]:
        """Rows of equal cost side by side, in groups of GROUP, in random order."""
        squares_n = lengths_n**2  # what costs differ by: all rows have as many positions
        costs = np.array([squares_n[row].sum() for row in rows])
        by_cost = np.argsort(costs, kind="stable")
        chance = order.hashed(self.seed, GROUPS, window, np.arange(len(rows)))
        groups = by_cost.reshape(-1, GROUP)
        inside = np.argsort(chance.reshape(-1, GROUP), axis=1, kind="stable")
        groups = np.take_along_axis(groups, inside, axis=1)
        groups = groups[np.argsort(chance[: len(groups)], kind="stable")]
        return [rows[number] for number in groups.reshape(-1).tolist()]


def rows(planner: Planner, state: State) -> Iterator[tuple[list[Place], State]]:
    """Each planned row from a State on, with the State behind it, without end.

    The next window is planned by a thread while this one's rows are taken.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="plan") as thread:
        window = planner.window(state)
        while True:
            after, coming = planner.after(state, window), None
            for row in range(state.row, len(window.rows)):
                if row == min(state.row + LATER, len(window.rows) - 1):
                    coming = thread.submit(planner.window, after)
                behind = replace(state, row=row + 1)
                yield window.row(row), after if row + 1 == len(window.rows) else behind
            assert coming is not None, "every window has a last row"
            state, window = after, coming.result()
