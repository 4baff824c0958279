"""Streams: sources, each read at one size of images, with its index of lengths.

A stream's passes over its units are random orders, each keyed by (seed, stream, epoch) and never
written down (see order.py). What is shuffled are items: a length group (packing.py), which is taken
whole, or a unit that stands alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np

from unimodal.document import Text
from unimodal.sequencer import DROPS, Sequencer
from unimodal.tokenizer.codec import Geometry

from . import formats, order
from .estimator import LengthEstimator
from .formats import SampleError
from .found import FoundShards, Place, found_at
from .joined import Together
from .lengths import Lengths, lengths_of
from .measured import LEARNS_NOTHING, WITH_IMAGES, WITH_TEXT, in_split
from .shards import Shard
from .sizes import ImageRule, buckets
from .sources import Mixture, SourceConfig
from .tar import ShardError

ORDER, VARIANT, DROP, IMAGES, GROUPS, UNREAD = range(6)  # what a hash decides

Taken = tuple[int, int]
"""How many length groups, and how many units that stand alone, a stream has given."""


@dataclass(frozen=True)
class Units:
    """Units of a stream in its order, by what planning needs of them: arrays (n,)."""

    epochs: np.ndarray
    numbers: np.ndarray
    records: np.ndarray
    """Index of the Document that each unit is this time, among all records."""
    drops: np.ndarray
    """Index in DROPS of what guidance dropout takes from it."""
    lengths: np.ndarray
    """Tokens."""
    begins_item: np.ndarray
    """True for the first unit of an item."""
    in_group: np.ndarray
    """True for the units of length groups."""


@dataclass(frozen=True)
class Stream:
    """A source read at one size of images, with its index of lengths."""

    name: str
    source: SourceConfig
    rule: ImageRule | None
    lengths: Lengths
    group_rows: int = 1
    """Units of a length group."""

    @property
    def title(self) -> str:
        """Return its name, with the pixels of its images where a rule sets them."""
        return f"{self.name} at {self.rule.target_pixels} pixels" if self.rule else self.name

    @cached_property
    def word(self) -> int:
        """Return the number that keys its random draws."""
        return order.word(self.title)

    @property
    def num_learned(self) -> int:
        """Count the units of which something is learned, whatever the loss weighs."""
        notes = self.lengths.notes
        if self.source.text_weight and self.source.image_weight:
            return len(self.lengths) - notes[LEARNS_NOTHING]
        return sum(
            notes[kind]
            for kind, weight in (
                (WITH_TEXT, self.source.text_weight),
                (WITH_IMAGES, self.source.image_weight),
            )
            if weight
        )

    def why_idle(self, loss: Mapping[str, float]) -> str:
        """Return why nothing of it is learned, "" where something is.

        loss: what the loss weighs text and images ("text", "image") with.
        """
        notes, of = self.lengths.notes, f"its {len(self.lengths):,} documents"
        weights = {
            f"sources.{self.name}.text_weight": (notes[WITH_TEXT], self.source.text_weight),
            f"sources.{self.name}.image_weight": (notes[WITH_IMAGES], self.source.image_weight),
        }
        found = []
        for (name, (count, weight)), kind in zip(weights.items(), ("text", "image"), strict=True):
            if count and weight and loss[kind]:
                return ""
            if count:
                zero = f"loss.{kind}" if weight else name
                found.append(f"{count:,} of {of} have {kind} to learn, but {zero} is 0")
        if not found:
            found = [f"none of {of} has an assistant's turn, or another part with a loss weight"]
        return f"nothing of {self.name} is learned: {' and '.join(found)}"

    @cached_property
    def sizes(self) -> tuple[int, int]:
        """Count the length groups and the units that stand alone of a pass."""
        num_groups = self.lengths.num_length_groups(self.group_rows)
        return num_groups, len(self.lengths) - self.group_rows * num_groups

    def units(
        self, taken: Taken, count: int, seed: int, dropout: float, unread: float = 0.0
    ) -> Units:
        """Return at least `count` units that follow what was taken, of endless passes.

        Length groups and units that stand alone are each in a random order, and both are spread
        evenly over a pass. `dropout`: the chance of guidance dropout, 0 to 1. `unread`: the chance
        that what nothing has to read at a document's end is left out.
        """
        kinds, epochs, at = self._items(taken, count)
        numbers = np.empty(len(at), np.int64)
        for kind, size in enumerate(self.sizes):
            mine = kinds == kind
            key = (seed, ORDER, self.word, kind, epochs[mine])
            numbers[mine] = order.permuted(at[mine], size, *key)
        is_group = kinds == 0
        sizes = np.where(is_group, self.group_rows, 1)
        # `members` has the units of all groups first, group by group, then those that stand alone.
        first_alone = self.group_rows * self.sizes[0]
        begins = np.where(is_group, self.group_rows * numbers, first_alone + numbers)
        inside = np.arange(sizes.sum()) - np.repeat(sizes.cumsum() - sizes, sizes)
        units = self.lengths.members[np.repeat(begins, sizes) + inside].astype(np.int64)
        in_group = np.repeat(is_group, sizes)
        drawn = (seed, dropout, unread)
        return self._drawn(units, np.repeat(epochs, sizes), inside == 0, in_group, *drawn)

    def _items(self, taken: Taken, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the items that follow: kind (0: length group), epoch, and number in the epoch.

        Item i of n of a kind comes at time (i + 1/2) / n of a pass, so both kinds are merged by
        time.
        """
        columns = []
        now = min((t + 0.5) / n for t, n in zip(taken, self.sizes, strict=True) if n)
        until = now + count / len(self.lengths)
        for kind, (first, size) in enumerate(zip(taken, self.sizes, strict=True)):
            numbers = np.arange(first, max(first, int(np.ceil(until * size - 0.5))))
            columns.append((np.full(len(numbers), kind), numbers, (numbers + 0.5) / max(size, 1)))
        kinds, numbers, times = (np.concatenate(column) for column in zip(*columns, strict=True))
        in_time = np.argsort(times, kind="stable")
        kinds, numbers = kinds[in_time], numbers[in_time]
        epochs, at = np.divmod(numbers, np.array(self.sizes)[kinds])
        return kinds, epochs, at

    def _drawn(
        self, numbers: np.ndarray, epochs: np.ndarray, begins_item: np.ndarray,
        in_group: np.ndarray, seed: int, dropout: float, unread: float,
    ) -> Units:  # fmt: skip
        """Draw for each unit which of its Documents it is in its epoch, what is dropped, and
        whether it is read to its end.
        """
        begins = self.lengths.units["record"][numbers].astype(np.int64)
        counts = self.lengths.units["record"][numbers + 1].astype(np.int64) - begins
        chance = order.uniform(seed, VARIANT, self.word, epochs, numbers)
        records = begins + (chance * counts).astype(np.int64)
        table = self.lengths.records[records]
        hashes = order.hashed(seed, DROP, self.word, epochs, numbers)
        drops = _drops(table["drops"], hashes, dropout)
        lengths = table["lengths"][np.arange(len(numbers)), drops].astype(np.int64)
        is_cut = order.uniform(seed, UNREAD, self.word, epochs, numbers) < unread
        lengths -= np.where(is_cut, table["unread"], 0)
        return Units(epochs, numbers, records, drops, lengths, begins_item, in_group)


def _drops(allowed_n: np.ndarray, hashes_n: np.ndarray, dropout: float) -> np.ndarray:
    """Draw the drop of each document: one of those allowed (bits), with the chance `dropout`."""
    dropped_n = (order.uniform(hashes_n, 0) < dropout) & (allowed_n > 0)
    options = np.stack([allowed_n >> bit & 1 for bit in range(len(DROPS) - 1)], axis=1)
    taken_n = (order.uniform(hashes_n, 1) * options.sum(axis=1)).astype(np.int64)
    chosen_n = (options.cumsum(axis=1) > taken_n[:, None]).argmax(axis=1) + 1
    return np.where(dropped_n, chosen_n, 0)


Found = Mapping[Place, FoundShards]
"""The shards of each place, where they have been found already."""


def estimators(
    sources: Mapping[str, SourceConfig],
    mixed: Sequence[Mixture],
    sequencer: Sequencer,
    sequence_length: int,
    geometry: Geometry,
) -> dict[tuple[str, ImageRule | None], LengthEstimator]:
    """Return by what every source is measured, at every image size that it is read at.

    ValueError for sizes of images that the model cannot read.
    """
    for mixture in mixed:
        _check_sizes(mixture.rule, sequencer, geometry)
    return {
        (name, mixture.rule): LengthEstimator(
            sequencer, sequence_length, geometry, mixture.rule, source.format, source.pairs,
            source.split, source.split_by, source.image_weight > 0, source.ignore, source.fields,
        )
        for mixture in mixed
        for name, source in sources.items()
        if mixture.weights[name]
    }  # fmt: skip


def streams(
    sources: Mapping[str, SourceConfig],
    measured_by: Mapping[tuple[str, ImageRule | None], LengthEstimator],
    workers: int = 1,
    group_rows: int = 1,
    found: Found | None = None,
) -> list[Stream]:
    """Return every source at every image size that it is read at, with its lengths.

    `workers` processes measure shards that are not in the cache; a length group has `group_rows`
    units. ShardError for bad shards, and for files to ignore that are not there.
    """
    made = []
    for (name, rule), estimator in measured_by.items():
        source = sources[name]
        shards = found[source.place] if found is not None else found_at(source.place)
        lengths = lengths_of(shards, estimator, Together(workers=workers))
        _check_ignored(name, source, lengths.notes)
        made.append(Stream(name, source, rule, lengths, group_rows))
    return made


def _check_sizes(rule: ImageRule | None, sequencer: Sequencer, geometry: Geometry) -> None:
    """ValueError where the layout has no opening for the grid of one of the sizes of images."""
    for width, height in buckets(rule) if rule is not None else ():
        try:
            sequencer.layout.opening(geometry.grid_of(height, width))
        except ValueError as error:
            assert rule is not None, "without a rule there are no buckets"
            raise ValueError(
                f"images of target_pixels {rule.target_pixels:,} and max_aspect_ratio "
                f"{rule.max_aspect_ratio:g} may be {width} x {height} pixels, {error}; lower one "
                "of the two"
            ) from error


def _check_ignored(name: str, source: SourceConfig, notes: Mapping[str, int]) -> None:
    """ShardError where the source ignores files that it does not have."""
    if missing := source.not_ignored(notes):
        raise ShardError(
            f"sources.{name}.ignore: no sample of {source.shards} has a file {', '.join(missing)}"
        )


def texts(
    sources: Mapping[str, SourceConfig], samples: int, found: Found | None = None
) -> Iterator[str]:
    """Yield the texts of the first `samples` samples of each source, for a text tokenizer.

    Samples that are no document, or not of the split, give none.
    """
    for source in sources.values():
        shards = found[source.place] if found is not None else found_at(source.place)
        stored = (
            shard.sample(number, source.fields)
            for path in shards.paths
            for shard in [Shard(path, [])]
            for number in range(len(shard))
        )
        for sample in islice(stored, samples):
            sample = sample.without(source.ignore)
            with suppress(SampleError):
                if in_split(sample, source.split, source.split_by):
                    document = formats.document(
                        sample, source.format or formats.detect_format(sample)
                    )
                    yield from (part.text for part in document.parts if isinstance(part, Text))
