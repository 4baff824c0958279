"""Shards -> packed batches, in an order that can be taken up again anywhere, bit for bit.

In: sources of shards, a Sequencer, and what turns pixels into codes. Out: (Batch, LoaderState),
without end.

1. Rows are planned from an index of lengths (plan.py): a pure function of (settings, seed, number
   of the row), whatever the ranks and workers.
2. Each rank makes its own rows only: their samples are read, their images brought to size and
   encoded, row by row, and laid out where the plan has them.
3. A sample that turns out to be bad becomes masked padding in its place, and is noted.

The next rows are made while the current ones are trained on: by a thread, or by processes. Costs
1.3 ms a 64-pixel image and core, most of it the tokenizer's; nothing of it for code shards.
Memory of a worker: two windows' plans and the rows in work; the index is mapped, never loaded.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import torch

from unimodal.sequence import Batch, Row, Sequencer

from .groups import GROUP
from .quarantine import Quarantine
from .rows import Encode, Made, Rows
from .sizes import ImageRule, patch_problems
from .sources import SourceConfig, Stage, mixtures, streams
from .windows import LoaderState, Place, Planner, rows


@dataclass(frozen=True)
class LoaderConfig:
    """How documents become batches."""

    sequence_length: int = 1024
    """Positions in a row."""
    batch_rows: int = 8
    """Rows in a batch, over all ranks: 1, 2, 4 or a multiple of 8, which cost the same."""
    window_rows: int = 1024
    """Rows that are planned together; a multiple of 8."""
    seed: int = 0
    """Decides the order, the choices and the dropped prompts."""
    caption_dropout: float = 0.1
    """Share of documents with a learned image whose prompt is dropped (0 to 1)."""
    images: ImageRule | None = None
    """How large images are read; None: as they are, of whole patches of the tokenizer."""
    stages: tuple[Stage, ...] = ()
    """From a step on, another mixture or other images."""
    bad_share: float = 0.01
    """Share of samples that cannot be used (0 to 1) above which the run stops."""

    def problems(self) -> list[str]:
        """What is wrong with these settings, in words."""
        least = {"sequence_length": 16, "batch_rows": 1, "window_rows": GROUP, "seed": 0}
        found = [
            f"{name} {getattr(self, name)}: at least {bound}"
            for name, bound in least.items()
            if getattr(self, name) < bound
        ]
        if self.window_rows % GROUP:
            found.append(f"window_rows {self.window_rows}: a multiple of {GROUP}")
        if self.batch_rows > 0 and self.batch_rows % GROUP and GROUP % self.batch_rows:
            found.append(f"batch_rows {self.batch_rows}: 1, 2, 4 or a multiple of {GROUP}")
        for name in ("caption_dropout", "bad_share"):
            if not 0 <= getattr(self, name) <= 1:
                found.append(f"{name} {getattr(self, name)}: from 0 to 1")
        return found


@dataclass
class Seen:
    """What a loader has met so far, for metrics."""

    documents: int = 0
    bad: dict[str, int] = field(default_factory=dict)
    """Documents that became masked padding, by reason."""


class Loader:
    """Iterates over (Batch, LoaderState) without end; the LoaderState is where the next batch
    begins.

    `Loader(..., state=state)` goes on from a LoaderState as if it had never stopped.
    """

    def __init__(
        self,
        sources: Mapping[str, SourceConfig],
        sequencer: Sequencer,
        encode: Encode,
        config: LoaderConfig,
        state: LoaderState | None = None,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        quarantine: Path | None = None,
        measurers: int = 1,
    ) -> None:
        """ValueError for bad settings or a LoaderState of another seed; ShardError for bad shards.

        `workers` processes make rows ahead; with 0 a thread does. With processes, `encode` is sent
        to each of them, so it must not live on a GPU. `quarantine`: the file of bad samples;
        `measurers`: processes that measure shards which are not in the cache.
        """
        problems = config.problems()
        if config.batch_rows % world_size or not 0 <= rank < world_size:
            problems.append(
                f"{config.batch_rows} rows on rank {rank} of {world_size}: do not divide"
            )
        problems += patch_problems(config.images, encode.patch)
        if problems:
            raise ValueError("; ".join(problems))
        mixed = mixtures(sources, config.stages, config.images)
        found = streams(sources, mixed, sequencer, config.sequence_length, encode.patch, measurers)
        self.quarantine = Quarantine(quarantine, config.bad_share)
        for stream in found:
            notes = stream.lengths.notes
            samples = notes["samples"] - notes.get("in another split", 0)
            self.quarantine.measured(stream.lengths.bad(), samples)
        self.planner = Planner(
            found, mixed, config.seed, config.sequence_length, config.window_rows,
            config.batch_rows, config.caption_dropout,
        )  # fmt: skip
        self.rows = Rows(found, sequencer, encode, config.sequence_length, config.seed)
        self.config = config
        self.go_to(state or self.planner.begin())
        self.rank, self.world_size, self.workers = rank, world_size, workers
        self.seen = Seen()

    def go_to(self, state: LoaderState) -> None:
        """Let the next iteration begin at a LoaderState; ValueError for one of other settings."""
        if state.seed != self.config.seed:
            raise ValueError(
                f"the state is of seed {state.seed}, the settings of {self.config.seed}"
            )
        if not len(state.taken) == len(state.owed) == len(self.planner.streams):
            raise ValueError(
                f"the state is of {len(state.taken)} streams, the settings make "
                f"{len(self.planner.streams)}"
            )
        if not 0 <= state.row < self.config.window_rows or state.window < 0:
            raise ValueError(
                f"the state is at row {state.row} of window {state.window}, and windows have "
                f"{self.config.window_rows} rows"
            )
        taken = tuple(
            (length_groups, alone) for length_groups, alone in state.taken
        )  # JSON makes lists
        self.state = replace(state, taken=taken, owed=tuple(state.owed))

    @property
    def documents(self) -> int:
        """Units of all streams: documents, or pieces of over-long ones."""
        return sum(len(stream.lengths) for stream in self.planner.streams)

    def notes(self) -> dict[str, dict[str, int]]:
        """For each stream what became of its samples: documents, and counts by what happened."""
        return {
            stream.title: {"documents": len(stream.lengths), **stream.lengths.notes}
            for stream in self.planner.streams
        }

    def summary(self) -> list[str]:
        """The notes, a line for each stream."""
        return [
            f"{name}: " + ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
            for name, counts in self.notes().items()
        ]

    def __iter__(self) -> Iterator[tuple[Batch, LoaderState]]:
        mine: list[Row] = []
        for number, (row, state) in enumerate(self._rows(), start=1):
            if row is not None:
                mine.append(row)
            if number % self.config.batch_rows == 0:
                yield Batch.stack(mine), state
                mine = []

    def _rows(self) -> Iterator[tuple[Row | None, LoaderState]]:
        """Each row from `state` on, with the LoaderState behind it; None for the other ranks'
        rows.
        """
        planned = self._planned()
        ahead = 2 * self.config.batch_rows + self.world_size * self.workers
        with self._pool() as pool:
            coming = deque(self._submit(pool, one) for one in islice(planned, ahead))
            while True:
                future, state = coming.popleft()
                coming.append(self._submit(pool, next(planned)))
                yield self._made(future), state

    def _planned(self) -> Iterator[tuple[list[Place] | None, LoaderState]]:
        for number, (places, behind) in enumerate(rows(self.planner, self.state)):
            is_mine = number % self.config.batch_rows % self.world_size == self.rank
            yield places if is_mine else None, behind

    def _made(self, future: Future[Made] | None) -> Row | None:
        if future is None:
            return None
        made = future.result()
        self.seen.documents += made.documents
        self.quarantine.made(made.bad, self.seen.documents)
        for bad in made.bad:
            self.seen.bad[bad.reason] = self.seen.bad.get(bad.reason, 0) + 1
        return made.row

    def _pool(self) -> Executor:
        if self.workers == 0:
            return ThreadPoolExecutor(1, thread_name_prefix="loader")
        spawn = get_context("spawn")  # a forked copy of a process with threads may hang
        return ProcessPoolExecutor(self.workers, spawn, _begin_worker, (self.rows,))

    def _submit(
        self, pool: Executor, planned: tuple[list[Place] | None, LoaderState]
    ) -> tuple[Future[Made] | None, LoaderState]:
        places, state = planned
        if places is None:
            return None, state
        make = self.rows.make if self.workers == 0 else _make_in_worker
        return pool.submit(make, places), state


_worker: list[Rows] = []  # in a worker process: what makes its rows


def _begin_worker(made: Rows) -> None:
    torch.set_num_threads(1)  # the processes share the cores between them
    _worker.append(made)


def _make_in_worker(places: list[Place]) -> Made:
    return _worker[0].make(places)
