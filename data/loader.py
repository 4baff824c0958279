"""Load shards as packed batches, in an order that can be resumed anywhere, bit for bit.

In: sources of shards, a Sequencer, and what encodes pixels into codes. Out: (Batch, LoaderState),
without end.

1. Rows are planned from an index of lengths (windows.py): a pure function of (settings, seed,
   number of the row), whatever the ranks and workers.
2. Each rank builds its own rows only (rows.py): their samples are read, their images resized and
   encoded, row by row, and laid out where the plan has them.
3. A sample that turns out to be bad becomes masked padding in its place, and is noted.

The next rows are built while the current ones are trained on: by a thread, or by processes. Costs
1.3 ms a 64-pixel image and core, most of it the tokenizer's; nothing of it for code shards.
Memory of a worker: two planned windows and the rows in work; the index is mapped, never loaded.
"""

from collections import Counter, deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from unimodal.codec import ImageCodec
from unimodal.heads.next_code import NextCodeInputs
from unimodal.sequence import Batch, Row
from unimodal.sequencer import Sequencer
from unimodal.tokenizer.codec import Geometry

from .estimator import LengthEstimator
from .formats import SampleError
from .found import Place
from .lengths import Bad
from .quarantine import Quarantine
from .rows import BuiltRow, RowBuilder
from .seen import Seen, given_line
from .sizes import ImageRule, patch_problems
from .sources import SourceConfig, Stage, mixtures
from .streams import Found, estimators, streams
from .tar import ShardError
from .windows import LoaderState, Placement, WindowPlanner, planned_rows

TRIED = 256  # documents of each stream that are read before the first row
EVEN: Mapping[str, float] = {"text": 1.0, "image": 1.0}  # what a loss weighs modalities with


@dataclass(frozen=True)
class LoaderConfig:
    """How documents become batches."""

    sequence_length: int = 1024
    """Tokens in a packed sequence."""
    batch_rows: int = 8
    """Packed sequences in a batch, over all ranks; a multiple of `group_rows`."""
    group_rows: int = 1
    """Packed sequences that follow each other and cost the same, for ranks that compute them at the
    same time; 1: any, so that a batch's mix of tasks is what chance gives. Decides which documents
    stand together, and so does not follow the number of ranks."""
    window_rows: int = 1024
    """Packed sequences that are planned together; a multiple of `group_rows`."""
    seed: int = 0
    """Decides the order, the variants, the crops and the dropped prompts."""
    caption_dropout: float = 0.1
    """Share of documents with a learned image whose prompt is dropped (0 to 1)."""
    unread_share: float = 0.0
    """Share of documents ending with a learned image (0 to 1) of which nothing is read behind what
    predicts it: of heads that learn an image from a copy of its own. Below 1, or a model that draws
    in conversations does not learn to end its turn."""
    code_noise: float = 0.0
    """Share of the codes of learned images that enter as any other codes (0 to below 1); what they
    predict stays."""
    images: ImageRule | None = None
    """How images are resized; None: not at all, and their sides are multiples of the patch."""
    stages: tuple[Stage, ...] = ()
    """Changes of the mixture or of the size of images, each from a step on."""
    bad_share: float = 0.01
    """Share of a source's samples that cannot be used (0 to 1) above which the run stops."""

    @property
    def plain(self) -> "LoaderConfig":
        """Return the settings by which held-out rows are read: chance drops and varies nothing."""
        rule = self.images
        fixed = replace(rule, random_crop=False, flip=0.0) if rule is not None else None
        return replace(
            self, batch_rows=1, group_rows=1, caption_dropout=0.0, unread_share=0.0, code_noise=0.0,
            images=fixed, stages=(),
        )  # fmt: skip

    def problems(self) -> list[str]:
        """List what is wrong with the values, one sentence each."""
        least = {"sequence_length": 16, "batch_rows": 1, "group_rows": 1, "window_rows": 1,
                 "seed": 0}  # fmt: skip
        found = [
            f"{name} {getattr(self, name)}: at least {bound}"
            for name, bound in least.items()
            if getattr(self, name) < bound
        ]
        found += [
            f"{name} {getattr(self, name)}: a multiple of group_rows {self.group_rows}"
            for name in ("batch_rows", "window_rows")
            if self.group_rows > 0 and getattr(self, name) % self.group_rows
        ]
        for name in ("caption_dropout", "unread_share", "bad_share"):
            if not 0 <= getattr(self, name) <= 1:
                found.append(f"{name} {getattr(self, name)}: from 0 to 1")
        if not 0 <= self.code_noise < 1:
            found.append(f"code_noise {self.code_noise}: from 0 to below 1")
        return found


def places_measured(
    sources: Mapping[str, SourceConfig], config: LoaderConfig, sequencer: Sequencer,
    geometry: Geometry,
) -> list[tuple[Place, LengthEstimator]]:  # fmt: skip
    """Return by what a Loader of these settings measures the shards of which place."""
    mixed = mixtures(sources, config.stages, config.images)
    found = estimators(sources, mixed, sequencer, config.sequence_length, geometry)
    return [(sources[name].place, estimator) for (name, _), estimator in found.items()]


def rank_rows(batch_rows: int, world_size: int, micro_batch_rows: int = 1) -> int:
    """Return the rows that each of so many ranks takes of a batch, in whole micro-batches.

    Where they are more than the batch has, what is missing are rows of padding, of which nothing is
    learned.
    """
    rows = -(-batch_rows // world_size)
    return -(-rows // micro_batch_rows) * micro_batch_rows


class Loader:
    """Yields (Batch, LoaderState) without end; the LoaderState says where the next batch begins.

    `Loader(..., state=state)` goes on from a LoaderState as if it had never stopped.
    """

    def __init__(
        self,
        sources: Mapping[str, SourceConfig],
        sequencer: Sequencer,
        codec: ImageCodec,
        config: LoaderConfig,
        state: LoaderState | None = None,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        quarantine: Path | None = None,
        measurers: int = 1,
        found: Found | None = None,
        micro_batch_rows: int = 1,
    ) -> None:
        """Measure the shards that the cache does not know, and stand at `state`.

        `workers` processes build rows ahead; with 0 a thread does. With processes, `codec` is sent
        to each of them, so it must not live on a GPU. `quarantine`: the file of bad samples;
        `measurers`: processes that measure shards; `found`: the shards of all sources, None: they
        are found now; `micro_batch_rows`: see `rank_rows`. ValueError for bad settings or a state
        of other settings; ShardError for bad shards.
        """
        problems = config.problems()
        if not 0 <= rank < world_size <= config.batch_rows:
            problems.append(f"{config.batch_rows} rows on rank {rank} of {world_size}")
        problems += patch_problems(config.images, codec.geometry.patch)
        if not isinstance(sequencer.inputs, NextCodeInputs):
            problems += _of_codes_in_order(config, sources)
        elif config.unread_share:
            problems.append(
                f"loader.unread_share {config.unread_share}: the image head learns images as they "
                "stand, so that all of a document is read; leave it out"
            )
        if problems:
            raise ValueError("; ".join(problems))
        mixed = mixtures(sources, config.stages, config.images)
        measured_by = estimators(sources, mixed, sequencer, config.sequence_length, codec.geometry)
        made = streams(sources, measured_by, measurers, config.group_rows, found)
        self.quarantine = Quarantine(quarantine, config.bad_share)
        for stream in made:
            notes = stream.lengths.notes
            samples = notes["samples"] - notes.get("in another split", 0)
            self.quarantine.add_measured(stream.lengths.bad(), samples, stream.name)
        self.planner = WindowPlanner(
            made, mixed, config.seed, config.sequence_length, config.window_rows,
            config.batch_rows, config.caption_dropout, config.group_rows, config.unread_share,
        )  # fmt: skip
        self.row_builder = RowBuilder(
            made, sequencer, codec, config.sequence_length, config.seed, config.code_noise
        )
        self.config = config
        self.go_to(state or self.planner.begin())
        self.rank, self.world_size, self.workers = rank, world_size, workers
        self.rank_rows = rank_rows(config.batch_rows, world_size, micro_batch_rows)
        self.seen = Seen()
        self._tried: Counter[str] = Counter()  # documents by source, before the first row

    def go_to(self, state: LoaderState) -> None:
        """Let the next iteration begin at this state; ValueError for a state of other settings."""
        if state.seed != self.config.seed:
            raise ValueError(
                f"the state is of seed {state.seed}, the settings of {self.config.seed}"
            )
        if state.group_rows != self.config.group_rows:
            raise ValueError(
                f"the state is of groups of {state.group_rows} rows, the settings of "
                f"{self.config.group_rows}: group_rows decides the order"
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
        """Count the units of all streams: documents, or pieces of over-long ones."""
        return sum(len(stream.lengths) for stream in self.planner.streams)

    @property
    def sizes(self) -> dict[str, int]:
        """Count the units of a pass over each source."""
        return {stream.name: len(stream.lengths) for stream in self.planner.streams}

    def check(self, loss: Mapping[str, float] = EVEN) -> None:
        """Raise ValueError for a source of which nothing is learned, or can be read.

        Some documents of each stream are read for that, as rows will: what is bad of them is in the
        quarantine, and ShardError says that it is too much. loss: what it weighs "text" and "image"
        with.
        """
        idle = filter(None, (stream.why_idle(loss) for stream in self.planner.streams))
        if problems := list(dict.fromkeys(idle)):
            raise ValueError("\n  ".join(problems))
        for number, stream in enumerate(self.planner.streams):
            units = stream.units((0, 0), TRIED, self.config.seed, self.config.caption_dropout)
            columns = (units.epochs, units.numbers, units.records, units.drops, units.lengths)
            places = [Placement(number, *place) for place in np.stack(columns, 1).tolist()]
            self._try(stream.name, [place for place in places if place.epoch == 0][:TRIED])

    def _try(self, source: str, places: list[Placement]) -> None:
        """Read the documents of different units of a source."""
        bad: list[Bad] = []
        for place in places:
            try:
                self.row_builder.document(place)
            except SampleError as error:
                bad.append(self.row_builder.bad(place, error))
        self._tried[source] += len(places)
        self.quarantine.add_read(bad, self._num_read(source), source)
        if len(bad) == len(places):
            raise ShardError(
                f"nothing of {source} is learned: none of the {len(places)} documents that were "
                f"tried can be read; {bad[0].shard}, key {bad[0].key}: {bad[0].message}"
            )

    def _num_read(self, source: str) -> int:
        """Count the different documents of a source that were read, about."""
        return min(self.seen.read[source] + self._tried[source], self.sizes[source])

    def notes(self) -> dict[str, dict[str, int]]:
        """Return for each stream its documents, and counts of what happened to its samples."""
        return {
            stream.title: {"documents": len(stream.lengths), **stream.lengths.notes}
            for stream in self.planner.streams
        }

    def summary(self) -> list[str]:
        """Say what of each stream is used, left out and bad, a line for each."""
        return [given_line(stream) for stream in self.planner.streams]

    def __iter__(self) -> Iterator[tuple[Batch, LoaderState]]:
        mine: list[Row] = []
        for number, (row, state) in enumerate(self._rows(), start=1):
            if row is not None:
                mine.append(row)
            if number % self.config.batch_rows == 0:
                yield Batch.stack([*mine, *self._padding(self.rank_rows - len(mine))]), state
                mine = []

    def _padding(self, count: int) -> list[Row]:
        """Return so many rows without a document."""
        return [self.row_builder.build([]).row] * count if count else []

    def _rows(self) -> Iterator[tuple[Row | None, LoaderState]]:
        """Yield each row from `state` on, with the LoaderState behind it.

        The rows of other ranks are None.
        """
        planned = self._planned()
        ahead = 2 * self.config.batch_rows + self.world_size * self.workers
        with self._pool() as pool:
            coming = deque(self._submit(pool, one) for one in islice(planned, ahead))
            while True:
                future, state = coming.popleft()
                coming.append(self._submit(pool, next(planned)))
                yield self._made(future), state

    def _planned(self) -> Iterator[tuple[list[Placement] | None, LoaderState]]:
        for number, (places, behind) in enumerate(planned_rows(self.planner, self.state)):
            is_mine = number % self.config.batch_rows % self.world_size == self.rank
            yield places if is_mine else None, behind

    def _made(self, future: Future[BuiltRow] | None) -> Row | None:
        if future is None:
            return None
        made = future.result()
        names = [self.planner.streams[stream].name for stream in made.streams]
        bad = [(names[at], one) for at, one in made.bad.items()]
        self.seen.add(names, bad)
        for name, one in bad:
            self.quarantine.add_read([one], self._num_read(name), name)
        return made.row

    def _pool(self) -> Executor:
        if self.workers == 0:
            return ThreadPoolExecutor(1, thread_name_prefix="loader")
        spawn = get_context("spawn")  # a forked copy of a process with threads may hang
        return ProcessPoolExecutor(self.workers, spawn, _begin_worker, (self.row_builder,))

    def _submit(
        self, pool: Executor, planned: tuple[list[Placement] | None, LoaderState]
    ) -> tuple[Future[BuiltRow] | None, LoaderState]:
        places, state = planned
        if places is None:
            return None, state
        make = self.row_builder.build if self.workers == 0 else _build_in_worker
        return pool.submit(make, places), state


def _of_codes_in_order(config: LoaderConfig, sources: Mapping[str, SourceConfig]) -> list[str]:
    """Return what is wrong: settings for codes that are predicted one by one, as by next_code."""
    changed = {f"sources.{k}.changed_weight": v.changed_weight for k, v in sources.items()}
    found = {"loader.code_noise": (config.code_noise, 0.0)}
    found |= {name: (value, 1.0) for name, value in changed.items()}
    return [
        f"{name} {value}: the image head does not predict codes in their order; leave it out"
        for name, (value, idle) in found.items()
        if value != idle
    ]


_worker: list[RowBuilder] = []  # in a worker process: what makes its rows


def _begin_worker(made: RowBuilder) -> None:
    torch.set_num_threads(1)  # the processes share the cores between them
    _worker.append(made)


def _build_in_worker(places: list[Placement]) -> BuiltRow:
    return _worker[0].build(places)
