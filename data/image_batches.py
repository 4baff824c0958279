"""Batches of images of one size each, in an order that can be resumed anywhere.

In: an ImageIndex, a seed. Out: batches of pixels, without end, each with the number of the next.

1. The images of a size are read in passes, each in a random order of its own, cut into batches of
   equally many images: so a size of few images is read as often as any other.
2. Batch j of a size of n images is due after (j + 1/2) B / n passes, and batches of all sizes come
   as they are due: batch number i is a pure function of (seed, i).
3. Where an image is cropped and whether it is mirrored is keyed by (seed, pass, image).
4. An image that turns out to be bad is missing from its batch, and is noted.

The next batches are read by a thread, or by processes, while one is learned from.
"""

import heapq
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from functools import cached_property
from itertools import islice
from multiprocessing import get_context

import numpy as np

from unimodal.document import StoredFile

from . import order
from .formats import SampleError
from .image_index import ImageIndex, image_file
from .lengths import Bad
from .quarantine import Quarantine
from .rows import read, sized
from .seen import Seen
from .sizes import ImageRule
from .streams import IMAGES, ORDER
from .tar import ShardError

AHEAD = 2  # batches that are read before they are asked for
TRIED = 256  # images that are read before the first batch
SOURCE = "images"  # their name in counts


class ImageBatches:
    """Yields (pixels uint8 (B, H, W, 3), number of the next batch) without end."""

    def __init__(
        self, index: ImageIndex, rule: ImageRule | None, seed: int, batch_images: int,
        quarantine: Quarantine, rank: int = 0, world_size: int = 1, workers: int = 0,
    ) -> None:  # fmt: skip
        """Read what falls to one of so many ranks of each batch, by `workers` processes, or with 0
        by a thread. ShardError where too many images of the index cannot be used; ValueError where
        the others are fewer than a batch.
        """
        self.index, self.rule, self.seed, self.batch_images = index, rule, seed, batch_images
        self.quarantine, self.seen = quarantine, Seen()
        self.rank, self.world_size, self.workers = rank, world_size, workers
        self._tried = 0  # images, before the first batch
        quarantine.add_measured(index.bad, index.notes["samples"], SOURCE)
        if len(index.images) < batch_images:
            raise ValueError(
                f"{len(index.images)} images do not fill a batch of {batch_images}: give more, or "
                "a smaller batch_images"
            )

    @cached_property
    def sizes(self) -> dict[tuple[int, int], np.ndarray]:
        """Return the numbers of the images of each size, (width, height) in pixels."""
        images = self.index.images
        sides_n2 = np.stack([images["width"], images["height"]], axis=1)
        sizes, of_n = np.unique(sides_n2, axis=0, return_inverse=True)
        return {
            (int(size[0]), int(size[1])): np.flatnonzero(of_n.reshape(-1) == at)
            for at, size in enumerate(sizes)
        }

    def check(self) -> None:
        """Read some images, as batches will; ShardError when too many or all of them are bad."""
        count = len(self.index.images)
        tried = order.permuted(np.arange(min(TRIED, count)), count, self.seed).tolist()
        read = (self._pixels(0, number) for number in tried)
        bad = [one for one in read if isinstance(one, Bad)]
        self._tried = len(tried)
        self.quarantine.add_read(bad, self._tried, SOURCE)
        if len(bad) == len(tried):
            raise ShardError(
                f"none of the {len(tried)} images that were tried can be read; {bad[0].shard}, "
                f"key {bad[0].key}: {bad[0].message}"
            )

    def some(self, count: int) -> list[np.ndarray]:
        """Return up to so many images that can be used, as they are sized for the first pass."""
        total = len(self.index.images)
        numbers = order.permuted(np.arange(total), total, self.seed).tolist()
        found = (self._pixels(0, number) for number in numbers)
        return list(islice((one for one in found if isinstance(one, np.ndarray)), count))

    def given_line(self) -> str:
        """Say in one line what is used, left out and bad."""
        notes, images = self.index.notes, len(self.index.images)
        left_out = [f"{n:,} {what}" for what, n in notes.items() if n and what != "samples"]
        most = sorted(self.sizes.items(), key=lambda item: -len(item[1]))
        sizes = [f"{width} x {height}: {len(n):,}" for (width, height), n in most[:5]]
        more = f" and {len(most) - 5} other sizes" if len(most) > 5 else ""
        return (
            f"{notes['samples']:,} samples; used: {images:,} images ({', '.join(sizes)}{more}); "
            f"left out: {', '.join(left_out) or 'none'}; bad: {len(self.index.bad):,}"
        )

    def batches(self, first: int) -> Iterator[tuple[np.ndarray, int]]:
        """Yield from batch number `first` on."""
        due = enumerate(islice(self._due(), first, None), first + 1)
        with self._pool() as pool:
            ahead = islice(due, AHEAD * max(1, self.workers))
            coming = deque((after, one[0], self._submit(pool, one)) for after, one in ahead)
            for after, one in due:
                coming.append((after, one[0], self._submit(pool, one)))
                number, (width, height), future = coming.popleft()
                images = self._noted(future.result())
                if images or self.world_size > 1:  # ranks take as many steps as one another
                    none = np.empty((0, height, width, 3), np.uint8)
                    yield np.stack(images) if images else none, number

    def _pool(self) -> Executor:
        if self.workers == 0:
            return ThreadPoolExecutor(1, thread_name_prefix="images")
        spawn = get_context("spawn")  # a forked copy of a process with threads may hang
        return ProcessPoolExecutor(self.workers, spawn, _begin_worker, (self,))

    def _submit(self, pool: Executor, batch: tuple[tuple[int, int], int]) -> Future:
        return pool.submit(self._batch if self.workers == 0 else _batch_in_worker, *batch)

    def _noted(self, read: list[np.ndarray | Bad]) -> list[np.ndarray]:
        """Count what was read, and return the images without those that are bad."""
        bad = [one for one in read if isinstance(one, Bad)]
        self.seen.add([SOURCE] * len(read), [(SOURCE, one) for one in bad])
        if bad:
            different = min(self.seen.documents + self._tried, len(self.index.images))
            self.quarantine.add_read(bad, different, SOURCE)
        return [one for one in read if isinstance(one, np.ndarray)]

    def _due(self) -> Iterator[tuple[tuple[int, int], int]]:
        """Yield the size of each batch, from the first one on, and its number among its size's."""
        passes = {size: self.batch_images / len(numbers) for size, numbers in self.sizes.items()}
        due = [(0.5 * each, size, 0) for size, each in passes.items()]
        heapq.heapify(due)
        while True:
            _, size, number = due[0]
            yield size, number
            heapq.heapreplace(due, ((number + 1.5) * passes[size], size, number + 1))

    def _batch(self, size: tuple[int, int], number: int) -> list[np.ndarray | Bad]:
        """Read a batch of a size."""
        numbers_n = self.sizes[size]
        places_B = number * self.batch_images + np.arange(self.batch_images)
        places_B = places_B[self.rank :: self.world_size]
        epochs_B, at_B = np.divmod(places_B, len(numbers_n))
        chosen_B = order.permuted(at_B, len(numbers_n), self.seed, ORDER, *size, epochs_B)
        pairs = zip(epochs_B.tolist(), numbers_n[chosen_B].tolist(), strict=True)
        return [self._pixels(epoch, image) for epoch, image in pairs]

    def _pixels(self, epoch: int, number: int) -> np.ndarray | Bad:
        """Read an image for a pass over it: uint8 (H, W, 3), or why it cannot be used."""
        shard, start, stop, at, width, height = self.index.images[number].item()
        path = self.index.shards[shard]
        sample = read(path, start, stop)
        try:
            pixels = self._sized(StoredFile(*image_file(sample, at)), epoch, number)
        except SampleError as error:
            return Bad(os.fsdecode(path), sample.key, error.reason, str(error))
        if pixels.shape[:2] != (height, width):
            raise ShardError(
                f"{os.fsdecode(path)}, key {sample.key}: {pixels.shape[1]} x {pixels.shape[0]} "
                f"pixels, but {width} x {height} were measured: was the shard changed under way?"
            )
        return pixels

    def _sized(self, stored: StoredFile, epoch: int, number: int) -> np.ndarray:
        x, y, mirror = (self._chance(purpose, epoch, number) for purpose in range(3))
        if self.rule is None or not self.rule.random_crop:
            x = y = 0.5
        mirrored = self.rule is not None and mirror < self.rule.flip
        pixels = sized(stored, self.rule, (x, y), mirrored).pixels
        assert pixels is not None, "files of codes are not in the index"
        return pixels

    def _chance(self, purpose: int, epoch: int, number: int) -> float:
        return float(order.uniform(self.seed, IMAGES, purpose, epoch, number)[0])


_worker: list[ImageBatches] = []  # in a worker process: what reads its batches


def _begin_worker(batches: ImageBatches) -> None:
    _worker.append(batches)


def _batch_in_worker(size: tuple[int, int], number: int) -> list[np.ndarray | Bad]:
    return _worker[0]._batch(size, number)
