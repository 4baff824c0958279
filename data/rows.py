"""Build planned rows: read the samples, resize and encode their images, lay out the tokens.

In: the placements of a row (windows.py). Out: the Row, and the samples that turned out to be bad:
each became masked padding in its place. A row is a pure function of its placements: its images are
encoded together, with no other row's, so that the same codes come out on any rank.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial

import numpy as np

from unimodal.codec import ImageCodec
from unimodal.document import Document, Image, Part, StoredFile, Text, encoded, needs_codec
from unimodal.sequence import Row
from unimodal.sequence import Sequence as TokenSequence
from unimodal.sequencer import DROPS, Sequencer
from unimodal.tokenizer.grid import Grid
from unimodal.tokenizer.pixels import ImageError, image_size, open_image

from . import codes_member as codes
from . import formats, order
from .changed_codes import weighed
from .code_noise import noised
from .cutting import Cut, piece
from .formats import Sample, SampleError
from .lengths import Bad
from .shards import sample_of
from .sizes import ImageRule, bucket, fitted, may_mirror
from .sources import SourceConfig
from .streams import IMAGES, Stream
from .tar import ShardError
from .unread import begun
from .windows import Placement

FIRST_UNITS = 1000  # of each stream, among which an image is looked for
OPEN_FILES = 64  # shards that a process keeps open


@dataclass(frozen=True)
class BuiltRow:
    """A packed row, the stream of each unit that it was planned with, and which of them are bad."""

    row: Row
    streams: tuple[int, ...]
    bad: dict[int, Bad]
    """By place among the units."""


@dataclass(frozen=True)
class RowBuilder:
    """Builds planned rows; can be sent to another process."""

    streams: Sequence[Stream]
    sequencer: Sequencer
    codec: ImageCodec
    sequence_length: int
    seed: int
    code_noise: float = 0.0
    """Share of the codes of learned images that enter as any others."""

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """Return the names of the sources, in the order of a row's `source` numbers.

        A source that is read at two image sizes is two streams and one name.
        """
        return tuple(dict.fromkeys(stream.name for stream in self.streams))

    def build(self, places: Sequence[Placement]) -> BuiltRow:
        """Build the row of these placements; ShardError where a shard is not what was measured."""
        documents: list[Document | None] = []
        bad: dict[int, Bad] = {}
        for at, place in enumerate(places):
            try:
                documents.append(self.document(place))
            except SampleError as error:
                documents.append(None)
                bad[at] = self.bad(place, error)
        whole = [document for document in documents if document is not None]
        unencoded = [
            part for one in whole for part in one.parts
            if isinstance(part, Image) and self._enters(one)(part)
        ]  # fmt: skip
        images = iter(self.codec.encode(unencoded))
        sequences: list[TokenSequence | int] = []
        for place, document in zip(places, documents, strict=True):
            if document is None:
                sequences.append(place.length)
                continue
            key = (self.seed, self.streams[place.stream].word, place.epoch, place.unit)
            drop = DROPS[place.drop]
            whole_one = encoded(document, images, self._enters(document))
            sequence = self.sequencer.sequence(whole_one, drop, key)
            record = self.streams[place.stream].lengths.records[place.record]
            measured = int(record["lengths"][place.drop])
            if len(sequence) != measured:
                name = f"{self._shard(place)}, key {self._read(place).key}"
                raise ShardError(
                    f"{name}: {len(sequence)} tokens, but {measured} were measured: was the "
                    "shard changed under way?"
                )
            sequences.append(self._learned(begun(sequence, place.length), place, key))
        pad = self.sequencer.vocabulary.special("pad")
        sources = [self.sources.index(self.streams[place.stream].name) for place in places]
        row = Row.pack(sequences, self.sequence_length, pad, sources)
        return BuiltRow(row, tuple(place.stream for place in places), bad)

    def _learned(
        self, sequence: TokenSequence, place: Placement, key: tuple[int, ...]
    ) -> TokenSequence:
        """Return a sequence as it is learned: codes that an edit changes weigh more, then noise."""
        vocabulary = self.sequencer.vocabulary
        by = self.streams[place.stream].source.changed_weight
        if by != 1.0:
            sequence = weighed(sequence, vocabulary, by)
        if self.code_noise:
            sequence = noised(sequence, vocabulary, self.code_noise, key)
        return sequence

    def _enters(self, document: Document) -> Callable[[Part], bool]:
        """Return which parts of a document have to be encoded, as what a vision tower alone sees
        has not.
        """
        sequencer = self.sequencer.of(document)
        return lambda part: needs_codec(part) and sequencer.has_codes(part)

    def document(self, place: Placement) -> Document:
        """Return the document of a unit, its images resized to the rule, or with stored codes."""
        stream = self.streams[place.stream]
        record = stream.lengths.records[place.record]
        sample, format = self._sample(place)
        stored = formats.document(sample, format, int(record["variant"]))
        stored = piece(stored, Cut(*record["cut"].tolist()))
        opener = partial(sized, rule=stream.rule, at=self._crop(place), mirror=False)
        if stream.rule is not None and self._is_mirrored(place, stream.rule, stored):
            opener = partial(opener, mirror=True)
        return _weighted(formats.opened(stored, opener), stream.source)

    def _sample(self, place: Placement) -> tuple[Sample, str]:
        """Return the sample of a unit, and the format in which it is read."""
        stream, sample = self.streams[place.stream], self._read(place)
        begin, end = stream.lengths.records[place.record]["other"].tolist()
        if end:
            other = read(os.fsencode(self._shard(place)), begin, end, stream.source.fields)
            return formats.pair(sample, other.without(stream.source.ignore)), "edit"
        return sample, stream.source.format or formats.detect_format(sample)

    def _read(self, place: Placement) -> Sample:
        stream = self.streams[place.stream]
        sample = read(*stream.lengths.locate(place.unit), stream.source.fields)
        return sample.without(stream.source.ignore)

    def _shard(self, place: Placement) -> str:
        return os.fsdecode(self.streams[place.stream].lengths.locate(place.unit)[0])

    def bad(self, place: Placement, error: SampleError) -> Bad:
        """Return a unit's sample as one that cannot be used."""
        return Bad(self._shard(place), self._read(place).key, error.reason, str(error))

    def _chance(self, place: Placement, purpose: int) -> float:
        word = self.streams[place.stream].word
        return float(order.uniform(self.seed, IMAGES, purpose, word, place.epoch, place.unit)[0])

    def _crop(self, place: Placement) -> tuple[float, float]:
        rule = self.streams[place.stream].rule
        if rule is None or not rule.random_crop:
            return 0.5, 0.5
        return self._chance(place, 0), self._chance(place, 1)

    def _is_mirrored(self, place: Placement, rule: ImageRule, document: Document) -> bool:
        return rule.flip > self._chance(place, 2) and may_mirror(document)

    def grid(self) -> Grid | None:
        """Return the grid of the first image among each stream's FIRST_UNITS units, else None."""
        for number, stream in enumerate(self.streams):
            for unit in range(min(len(stream.lengths), FIRST_UNITS)):
                record = int(stream.lengths.units["record"][unit])
                with suppress(SampleError):
                    for part in self.document(Placement(number, 0, unit, record, 0, 0)).parts:
                        if isinstance(part, Image):
                            return part.grid or self._grid_of(part)
        return None

    def _grid_of(self, image: Image) -> Grid:
        assert image.pixels is not None, "an image without codes has pixels"
        height, width = image.pixels.shape[:2]
        return self.codec.geometry.grid_of(height, width)

    def varied(self, place: Placement) -> tuple[float, float, bool]:
        """Return how a unit's images are augmented, for digests: (crop x, crop y, mirrored)."""
        rule = self.streams[place.stream].rule
        mirrored = False
        if rule is not None and rule.flip:
            sample, format = self._sample(place)
            record = self.streams[place.stream].lengths.records[place.record]
            document = formats.document(sample, format, int(record["variant"]))
            document = piece(document, Cut(*record["cut"].tolist()))
            mirrored = self._is_mirrored(place, rule, document)
        return *self._crop(place), mirrored


def sized(
    stored: StoredFile, rule: ImageRule | None, at: tuple[float, float], mirror: bool
) -> Image:
    """Open a stored image and resize it by the rule; SampleError when it is damaged."""
    if codes.is_codes(stored.name) or rule is None:
        return formats.as_it_is(stored)
    try:
        size = bucket(image_size(stored.content), rule)
        pixels = fitted(open_image(stored.content, cover=size).image, size, at)
    except (ImageError, ValueError) as error:
        raise SampleError("bad image", f".{stored.name}: {error}") from error
    return Image(np.ascontiguousarray(pixels[:, ::-1]) if mirror else pixels)


def read(path: bytes, start: int, stop: int, fields: Mapping[str, str] | None = None) -> Sample:
    """Read the sample at these bytes of a shard; ShardError when they are not there any more."""
    content = os.pread(_opened(path), stop - start, start)
    if len(content) < stop - start:
        raise ShardError(f"{os.fsdecode(path)} was cut under way: put it back and go on")
    return sample_of(content, 0, len(content), fields)


@lru_cache(OPEN_FILES)
def _opened(path: bytes) -> "_File":
    return _File(path)


class _File(int):
    """The descriptor of an open file, which is closed when nobody holds it any more."""

    def __new__(cls, path: bytes) -> "_File":
        """Open the file."""
        return super().__new__(cls, os.open(path, os.O_RDONLY))

    def __del__(self) -> None:
        os.close(self)


def _weighted(document: Document, source: SourceConfig) -> Document:
    """Return the document with its loss weights multiplied by those of its source."""
    if source.text_weight == source.image_weight == 1.0:
        return document

    def weighted(part: Part) -> Part:
        by = source.text_weight if isinstance(part, Text) else source.image_weight
        return replace(part, weight=part.weight * by)

    return Document(tuple(map(weighted, document.parts)))
