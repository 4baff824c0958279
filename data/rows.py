"""A planned row made real: samples read, images sized and encoded, everything laid out.

In: the places of a row (plan.py). Out: the Row, and the samples that turned out to be bad: each
became masked padding in its place. A row is a pure function of its places: its images are encoded
together, with no other row's, so that the same codes come out on any rank.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from typing import Protocol

import numpy as np
import torch

from unimodal.document import Document, Image, Part, Text
from unimodal.sequence import DROPS, Row, Sequencer, encoded
from unimodal.sequence import Sequence as Positions
from unimodal.tokenizer.autoencoder import ImageTokenizer
from unimodal.tokenizer.grid import Grid
from unimodal.tokenizer.pixels import ImageError, image_size, open_image, to_tensor

from . import formats, order
from .cutting import Cut, piece
from .formats import Sample, SampleError, Stored
from .lengths import Bad
from .shards import sample_of
from .sizes import ImageRule, bucket, fitted, may_mirror
from .sources import IMAGES, SourceConfig, Stream
from .tar import ShardError
from .windows import Place

IMAGES_AT_ONCE = 64  # in one call of the tokenizer
FIRST_UNITS = 1000  # of each stream, among which a image is looked for
OPEN_FILES = 64  # shards that a process keeps open


class Encode(Protocol):
    """Pixels -> codes: an image tokenizer as the loader needs it."""

    hash: str
    patch: int
    """Pixels that a code stands for, along each side."""

    def __call__(self, pixels: list[np.ndarray]) -> list[Image]:
        """uint8 (H, W, 3) each, of any mix of sizes -> Images with codes, in that order."""
        ...


class ImageEncoder:
    """A frozen image tokenizer as pixels -> Images with codes."""

    def __init__(self, tokenizer: ImageTokenizer, device: torch.device | str = "cpu") -> None:
        self.tokenizer = tokenizer.to(device).eval().requires_grad_(False)
        self.device = device
        self.hash, self.patch = tokenizer.hash, tokenizer.patch

    @torch.no_grad()
    def __call__(self, pixels: list[np.ndarray]) -> list[Image]:
        """Pixels, uint8 (H, W, 3) of any mix of sizes -> Images with codes, in that order."""
        images: dict[int, Image] = {}
        for numbers in _same_size(pixels):
            images_BCHW = to_tensor([pixels[number] for number in numbers]).to(self.device)
            codes_Bn1, grid = self.tokenizer.encode(images_BCHW)
            for number, codes_n in zip(numbers, codes_Bn1[:, :, 0].cpu().numpy(), strict=True):
                images[number] = Image(codes=codes_n, grid=grid, tokenizer_hash=self.hash)
        return [images[number] for number in range(len(pixels))]


@dataclass(frozen=True)
class Made:
    """A row, and what was met while it was made."""

    row: Row
    documents: int
    bad: tuple[Bad, ...]


@dataclass(frozen=True)
class Rows:
    """Makes planned rows; can be sent to another process."""

    streams: Sequence[Stream]
    sequencer: Sequencer
    encode: Encode
    sequence_length: int
    seed: int

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """The names of the sources; a row's `source` has the number of each position's. One that is
        read at two sizes is two streams.
        """
        return tuple(dict.fromkeys(stream.name for stream in self.streams))

    def make(self, places: Sequence[Place]) -> Made:
        """The row of these places; ShardError where a shard is not what was measured."""
        documents: list[Document | None] = []
        bad: list[Bad] = []
        for place in places:
            try:
                documents.append(self.document(place))
            except SampleError as error:
                documents.append(None)
                bad.append(self._bad(place, error))
        whole = [document for document in documents if document is not None]
        images = iter(self.encode([pixels for one in whole for pixels in _pixels(one)]))
        sequences: list[Positions | int] = []
        for place, document in zip(places, documents, strict=True):
            if document is None:
                sequences.append(place.length)
                continue
            sequence = self.sequencer.sequence(encoded(document, images), DROPS[place.drop])
            if len(sequence) != place.length:
                name = f"{self._shard(place)}, key {self._read(place).key}"
                raise ShardError(
                    f"{name}: {len(sequence)} positions, but {place.length} were measured: was the "
                    "shard changed under way?"
                )
            sequences.append(sequence)
        pad = self.sequencer.vocabulary.control("pad")
        sources = [self.sources.index(self.streams[place.stream].name) for place in places]
        row = Row.pack(sequences, self.sequence_length, pad, sources)
        return Made(row, len(places), tuple(bad))

    def document(self, place: Place) -> Document:
        """The document of a unit, its images at their size, or with codes."""
        stream = self.streams[place.stream]
        record = stream.lengths.records[place.record]
        sample, format = self._sample(place)
        stored = formats.document(sample, format, int(record["variant"]))
        stored = piece(stored, Cut(*record["cut"].tolist()))
        opener = partial(sized, rule=stream.rule, at=self._crop(place), mirror=False)
        if stream.rule is not None and self._is_mirrored(place, stream.rule, stored):
            opener = partial(opener, mirror=True)
        return _weighted(formats.opened(stored, opener), stream.source)

    def _sample(self, place: Place) -> tuple[Sample, str]:
        """The sample of a unit, and the form in which it is read."""
        stream, sample = self.streams[place.stream], self._read(place)
        begin, end = stream.lengths.records[place.record]["other"].tolist()
        if end:
            path = os.fsencode(self._shard(place))
            return formats.pair(sample, read(path, begin, end)), "edit"
        return sample, stream.source.format or formats.detect_format(sample)

    def _read(self, place: Place) -> Sample:
        return read(*self.streams[place.stream].lengths.place(place.unit))

    def _shard(self, place: Place) -> str:
        return os.fsdecode(self.streams[place.stream].lengths.place(place.unit)[0])

    def _bad(self, place: Place, error: SampleError) -> Bad:
        return Bad(self._shard(place), self._read(place).key, error.reason, str(error))

    def _chance(self, place: Place, purpose: int) -> float:
        word = self.streams[place.stream].word
        return float(order.uniform(self.seed, IMAGES, purpose, word, place.epoch, place.unit)[0])

    def _crop(self, place: Place) -> tuple[float, float]:
        rule = self.streams[place.stream].rule
        if rule is None or not rule.random_crop:
            return 0.5, 0.5
        return self._chance(place, 0), self._chance(place, 1)

    def _is_mirrored(self, place: Place, rule: ImageRule, document: Document) -> bool:
        return rule.flip > self._chance(place, 2) and may_mirror(document)

    def grid(self) -> Grid | None:
        """The grid of the first image among the first units of the streams."""
        for number, stream in enumerate(self.streams):
            for unit in range(min(len(stream.lengths), FIRST_UNITS)):
                record = int(stream.lengths.units["record"][unit])
                with suppress(SampleError):
                    for part in self.document(Place(number, 0, unit, record, 0, 0)).parts:
                        if isinstance(part, Image):
                            return part.grid or self._grid_of(part)
        return None

    def _grid_of(self, image: Image) -> Grid:
        assert image.pixels is not None, "a image without codes has pixels"
        height, width = image.pixels.shape[:2]
        return Grid(height // self.encode.patch, width // self.encode.patch)

    def varied(self, place: Place) -> tuple[float, float, bool]:
        """How the images of a unit are cropped and whether they are mirrored, for digests."""
        rule = self.streams[place.stream].rule
        mirrored = False
        if rule is not None and rule.flip:
            sample, format = self._sample(place)
            record = self.streams[place.stream].lengths.records[place.record]
            document = formats.document(sample, format, int(record["variant"]))
            document = piece(document, Cut(*record["cut"].tolist()))
            mirrored = self._is_mirrored(place, rule, document)
        return *self._crop(place), mirrored


def sized(stored: Stored, rule: ImageRule | None, at: tuple[float, float], mirror: bool) -> Image:
    """A stored image as the rule wants it; SampleError when it is damaged."""
    if stored.is_codes or rule is None:
        return formats.as_it_is(stored)
    try:
        size = bucket(image_size(stored.content), rule)
        pixels = fitted(open_image(stored.content, cover=size).image, size, at)
    except (ImageError, ValueError) as error:
        raise SampleError("bad image", f".{stored.name}: {error}") from error
    return Image(np.ascontiguousarray(pixels[:, ::-1]) if mirror else pixels)


def read(path: bytes, start: int, stop: int) -> Sample:
    """The sample at these bytes of a shard; ShardError when they are not there any more."""
    content = os.pread(_opened(path), stop - start, start)
    if len(content) < stop - start:
        raise ShardError(f"{os.fsdecode(path)} was cut under way: put it back and go on")
    return sample_of(content, 0, len(content))


@lru_cache(OPEN_FILES)
def _opened(path: bytes) -> "_File":
    return _File(path)


class _File(int):
    """An open file's number; closed when nobody holds it any more."""

    def __new__(cls, path: bytes) -> "_File":
        """Open the file."""
        return super().__new__(cls, os.open(path, os.O_RDONLY))

    def __del__(self) -> None:
        os.close(self)


def _weighted(document: Document, source: SourceConfig) -> Document:
    """The document with the weights of its source."""
    if source.text_weight == source.image_weight == 1.0:
        return document

    def weighted(part: Part) -> Part:
        by = source.text_weight if isinstance(part, Text) else source.image_weight
        return replace(part, weight=part.weight * by)

    return Document(tuple(map(weighted, document.parts)))


def _pixels(document: Document) -> list[np.ndarray]:
    """The pixels of each image that has no codes yet."""
    return [
        part.pixels
        for part in document.parts
        if isinstance(part, Image) and part.codes is None and part.pixels is not None
    ]


def _same_size(pixels: list[np.ndarray]) -> Iterator[list[int]]:
    """Numbers of images of equal size, at most IMAGES_AT_ONCE together."""
    by_size: dict[tuple[int, ...], list[int]] = {}
    for number, array in enumerate(pixels):
        by_size.setdefault(array.shape, []).append(number)
    for numbers in by_size.values():
        for at in range(0, len(numbers), IMAGES_AT_ONCE):
            yield numbers[at : at + IMAGES_AT_ONCE]
