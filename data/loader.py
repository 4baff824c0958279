"""Shards -> packed batches, in an order that can be taken up again anywhere, bit for bit.

In: shards, a Sequencer, and what turns pixels into codes. Out: (Batch, State), without end.

1. An epoch is one random order of all samples of all shards, keyed by (seed, epoch).
2. It is cut into windows of `window_samples`. A window's pictures are encoded, its documents laid
   out (some with their prompt dropped, for guidance), packed into rows, and the rows shuffled.
3. The rows of all windows in turn are one endless sequence, a pure function of (seed, row); a
   batch is its next `batch_rows` rows, so none is lost where a window or an epoch ends. A rank
   takes every `world_size`-th of them.

The next windows are prepared while the current one is trained on: by a thread, or by processes.
Costs 1.3 ms a 64-pixel picture and core, most of it the tokenizer's. Memory: 16 bytes a sample for
order and places, and the windows at work (one more than workers).
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import accumulate
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from unimodal.document import Document, Picture, Text
from unimodal.sequence import Batch, Row, Sequencer, encoded
from unimodal.sequence import Sequence as Positions
from unimodal.tokenizer.autoencoder import ImageTokenizer
from unimodal.tokenizer.pixels import to_tensor

from .packing import pack
from .shards import Shard, ShardError

Encode = Callable[[list[np.ndarray]], list[Picture]]
DOCUMENTS_AT_ONCE = 256  # whose pictures are encoded together: bounds the pixels held
PICTURES_AT_ONCE = 64  # in one call of the tokenizer; always the same, so codes are reproducible
ORDER, ROWS, DROP, FORM = range(4)  # what a generator is for


@dataclass(frozen=True)
class LoaderConfig:
    """How documents become batches."""

    row_length: int = 1024
    """Positions in a row."""
    batch_rows: int = 8
    """Rows in a batch, over all ranks."""
    window_samples: int = 2048
    """Samples that are shuffled into rows together."""
    seed: int = 0
    """Decides the order and the dropped prompts."""
    caption_dropout: float = 0.1
    """Share of documents with a learned picture whose prompt is dropped (0 to 1)."""

    def problems(self) -> list[str]:
        """What is wrong with these settings, in words."""
        least = {"row_length": 2, "batch_rows": 1, "window_samples": 1, "seed": 0}
        found = [
            f"{name} {getattr(self, name)}: at least {bound}"
            for name, bound in least.items()
            if getattr(self, name) < bound
        ]
        if not 0 <= self.caption_dropout <= 1:
            found.append(f"caption_dropout {self.caption_dropout}: from 0 to 1")
        return found


@dataclass(frozen=True)
class State:
    """Where the next batch begins: row `row` of window `window` of epoch `epoch`."""

    seed: int = 0
    epoch: int = 0
    window: int = 0
    row: int = 0


def generator(seed: int, epoch: int, purpose: int, index: int) -> np.random.Generator:
    """The counter-based generator of these four non-negative integers."""
    key = np.array([seed, epoch], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, purpose, index]))


class PictureEncoder:
    """A frozen image tokenizer as pixels -> Pictures with codes."""

    def __init__(self, tokenizer: ImageTokenizer, device: torch.device | str = "cpu") -> None:
        self.tokenizer = tokenizer.to(device).eval().requires_grad_(False)
        self.device = device
        self.hash = tokenizer.hash

    @torch.no_grad()
    def __call__(self, pixels: list[np.ndarray]) -> list[Picture]:
        """Pixels, uint8 (H, W, 3) of any mix of sizes -> Pictures with codes, in that order."""
        pictures: dict[int, Picture] = {}
        for numbers in _same_size(pixels):
            images_BCHW = to_tensor([pixels[number] for number in numbers]).to(self.device)
            codes_Bn1, grid = self.tokenizer.encode(images_BCHW)
            for number, codes_n in zip(numbers, codes_Bn1[:, :, 0].cpu().numpy(), strict=True):
                pictures[number] = Picture(codes=codes_n, grid=grid, tokenizer_hash=self.hash)
        return [pictures[number] for number in range(len(pixels))]


class Loader:
    """Iterates over (Batch, State) without end; the State is where the next batch begins.

    `Loader(..., state=state)` goes on from a State as if it had never stopped.
    """

    def __init__(
        self,
        shards: Sequence[str | Path],
        sequencer: Sequencer,
        encode: Encode,
        config: LoaderConfig,
        state: State | None = None,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
    ) -> None:
        """ValueError for bad settings or a State of another seed; ShardError for bad shards.

        `workers` processes prepare windows ahead; with 0 a thread does. With processes, `encode`
        is sent to each of them, so it must not live on a GPU.
        """
        problems = config.problems()
        if config.batch_rows % world_size or not 0 <= rank < world_size:
            problems.append(
                f"{config.batch_rows} rows on rank {rank} of {world_size}: do not divide"
            )
        if state is not None and state.seed != config.seed:
            problems.append(f"the state is of seed {state.seed}, the settings of {config.seed}")
        if problems:
            raise ValueError("; ".join(problems))
        self.windows = Windows(shards, sequencer, encode, config)
        self.config, self.state = config, state or State(config.seed)
        self.rank, self.world_size, self.workers = rank, world_size, workers

    @property
    def samples(self) -> "Samples":
        """All samples, by number."""
        return self.windows.samples

    def __iter__(self) -> Iterator[tuple[Batch, State]]:
        batch_rows = self.config.batch_rows
        rows: list[Row] = []
        for row, state in self._rows():
            rows.append(row)
            if len(rows) == batch_rows:
                yield Batch.stack(rows[self.rank :: self.world_size]), state
                rows = []

    def _rows(self) -> Iterator[tuple[Row, State]]:
        """Each row from `state` on, with the State behind it."""
        with self._pool() as pool:
            state, last = self.state, self.state
            coming = deque([self._submit(pool, last)])
            while True:
                while len(coming) <= max(1, self.workers):
                    last = self._after(last)
                    coming.append(self._submit(pool, last))
                window, after = coming.popleft().result(), self._after(state)
                for number in range(state.row, len(window)):
                    behind = replace(state, row=number + 1)
                    yield window[number], after if behind.row == len(window) else behind
                state = after

    def _pool(self) -> Executor:
        if self.workers == 0:
            return ThreadPoolExecutor(1, thread_name_prefix="loader")
        spawn = get_context("spawn")  # a forked copy of a process with threads may hang
        return ProcessPoolExecutor(self.workers, spawn, _begin_worker, (self.windows,))

    def _submit(self, pool: Executor, state: State) -> Future[list[Row]]:
        rows = self.windows.rows if self.workers == 0 else _rows_of_worker
        return pool.submit(rows, state.epoch, state.window)

    def _after(self, state: State) -> State:
        """The begin of the next window."""
        if state.window + 1 < self.windows.num_windows:
            return State(state.seed, state.epoch, state.window + 1)
        return State(state.seed, state.epoch + 1)


class Windows:
    """The rows of each window of each epoch: a pure function of (settings, epoch, window)."""

    def __init__(
        self,
        shards: Sequence[str | Path],
        sequencer: Sequencer,
        encode: Encode,
        config: LoaderConfig,
    ) -> None:
        self.samples = Samples(shards)
        self.sequencer, self.encode, self.config = sequencer, encode, config

    @property
    def num_windows(self) -> int:
        """Windows in an epoch; the last one may be short."""
        return -(-len(self.samples) // self.config.window_samples)

    def rows(self, epoch: int, window: int) -> list[Row]:
        """The shuffled rows of a window; ShardError for a bad sample or one longer than a row."""
        first = window * self.config.window_samples
        numbers = self._order(epoch)[first : first + self.config.window_samples].tolist()
        sequences: list[Positions] = []
        for at in range(0, len(numbers), DOCUMENTS_AT_ONCE):
            sequences += self._sequences(epoch, numbers[at : at + DOCUMENTS_AT_ONCE])
        length, pad = self.config.row_length, self.sequencer.vocabulary.control("pad")
        rows = pack(np.array([len(sequence) for sequence in sequences]), length)
        order = generator(self.config.seed, epoch, ROWS, window).permutation(len(rows))
        return [Row.pack([sequences[k] for k in rows[row]], length, pad) for row in order]

    def _order(self, epoch: int) -> np.ndarray:
        return generator(self.config.seed, epoch, ORDER, 0).permutation(len(self.samples))

    def _sequences(self, epoch: int, numbers: list[int]) -> list[Positions]:
        documents = [self.samples.document(n, self.config.seed, epoch) for n in numbers]
        parts = [part for document in documents for part in document.parts]
        pictures = iter(self.encode([pixels for part in parts for pixels in _to_encode(part)]))
        return [
            self._sequence(epoch, number, encoded(document, pictures))
            for number, document in zip(numbers, documents, strict=True)
        ]

    def _sequence(self, epoch: int, number: int, document: Document) -> Positions:
        drop = dropped(document, self.config, epoch, number)
        sequence = self.sequencer.sequence(document, drop)
        if len(sequence) > self.config.row_length:
            raise ShardError(
                f"{self.samples.name(number)}: {len(sequence)} positions do not fit a row of "
                f"{self.config.row_length}; give a larger row_length"
            )
        return sequence


_worker: list[Windows] = []  # in a worker process: what it makes rows of


def _begin_worker(windows: Windows) -> None:
    torch.set_num_threads(1)  # the processes share the cores between them
    _worker.append(windows)


def _rows_of_worker(epoch: int, window: int) -> list[Row]:
    return _worker[0].rows(epoch, window)


class Samples:
    """The samples of several shards under one running number."""

    def __init__(self, paths: Sequence[str | Path]) -> None:
        """Index the shards; ShardError when one is damaged or all are empty."""
        self.shards = [Shard(path) for path in paths]
        self._ends = list(accumulate(len(shard) for shard in self.shards))
        if not len(self):
            raise ShardError(f"no samples in the {len(self.shards)} shards given")

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def document(self, number: int, seed: int = 0, epoch: int = 0) -> Document:
        """A sample as a Document; (seed, epoch) decide what its form leaves open."""
        shard, index = self._place(number)
        return shard.document(index, generator(seed, epoch, FORM, number))

    def name(self, number: int) -> str:
        """The shard and key of a sample, for messages."""
        shard, index = self._place(number)
        return f"{shard.path}, key {shard.key(index)}"

    def _place(self, number: int) -> tuple[Shard, int]:
        at = bisect_right(self._ends, number)
        return self.shards[at], number - (self._ends[at - 1] if at else 0)


def dropped(document: Document, config: LoaderConfig, epoch: int, number: int) -> str | None:
    """What of the user's parts is dropped: None, "text", "pictures" or "both".

    Only documents with a learned picture of the assistant are touched, as guidance serves nothing
    else. Of the drops that change such a document one is taken uniformly.
    """
    if not any(_is_drawn(part) for part in document.parts):
        return None
    rng = generator(config.seed, epoch, DROP, number)
    if rng.random() >= config.caption_dropout:
        return None
    user = [part for part in document.parts if part.role == "user"]
    has_text = any(isinstance(part, Text) for part in user)
    has_pictures = any(isinstance(part, Picture) for part in user)
    if has_text and has_pictures:
        return ("text", "pictures", "both")[rng.integers(3)]
    return "text" if has_text else "pictures" if has_pictures else None


def _is_drawn(part: Text | Picture) -> bool:
    return isinstance(part, Picture) and part.role == "assistant" and part.weight > 0


def _to_encode(part: Text | Picture) -> list[np.ndarray]:
    """The pixels of a picture that has no codes yet."""
    if isinstance(part, Text) or part.codes is not None or part.pixels is None:
        return []
    return [part.pixels]


def _same_size(pixels: list[np.ndarray]) -> Iterator[list[int]]:
    """Numbers of pictures of equal size, at most PICTURES_AT_ONCE together."""
    by_size: dict[tuple[int, ...], list[int]] = {}
    for number, array in enumerate(pixels):
        by_size.setdefault(array.shape, []).append(number)
    for numbers in by_size.values():
        for at in range(0, len(numbers), PICTURES_AT_ONCE):
            yield numbers[at : at + PICTURES_AT_ONCE]
