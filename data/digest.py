"""Digest what training sees: one SHA-256 over the rows that any number of ranks produce.

In: sources, settings, W ranks, and which rows of the run. Out: 64 hex digits, equal wherever the
same rows come out: on any number of ranks, whatever row they begin at.

1. Each rank has a Loader, and their rows are put back into the order of the run: rank r builds rows
   r, r + W, ... of each batch.
2. To begin at row A the windows before it are planned, without opening a sample.
3. The hash is over the rows' bytes in order. Those of a row are its arrays (ARRAYS, little-endian),
   how many units it was planned with, and how each unit's images are cropped and mirrored. Codes
   are in it as token ids, pixels are not.
4. What an image head adds to that is in it too: of a row with blocks, private tokens or images
whose
   codes of all groups, latents or pixels are needed, these and the arrays HEADS come last.
"""

import hashlib
import os
import struct
from collections.abc import Generator, Iterable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from itertools import cycle, islice
from math import lcm
from pathlib import Path

from unimodal import bundle, config
from unimodal.codec import ImageCodec
from unimodal.image_tokenizers import load_tokenizer
from unimodal.sequence import Row, Span
from unimodal.sequencer import Sequencer
from unimodal.text import TextTokenizer
from unimodal.vocabulary import Vocabulary

from .loader import Loader, LoaderConfig
from .sizes import of_canvas
from .sources import SourceConfig
from .windows import LoaderState, WindowPlanner, planned_rows

ARRAYS = {"ids": "<i8", "labels": "<i8", "weights": "<f4", "doc": "<i4", "block": "<i4",
          "private": "u1", "positions": "<i8"}  # fmt: skip
HEADS = {"private": "<i4", "modality": "i1", "address": "<i2"}
UNITS, VARIED = struct.Struct("<I"), struct.Struct("<dd?")


@dataclass(frozen=True)
class DataConfig:
    """The part of a `train lm` recipe that decides its rows."""

    sources: dict[str, SourceConfig]
    tokenizer: Path | None = None
    """Directory of the image tokenizer; None: the bundle's."""
    weights: Path | None = None
    """The bundle whose text tokenizer is used; None: the one that is shipped."""
    loader: LoaderConfig = field(default_factory=LoaderConfig)


@dataclass(frozen=True)
class Feed:
    """All that rows are built from."""

    sources: Mapping[str, SourceConfig]
    sequencer: Sequencer
    codec: ImageCodec
    loader: LoaderConfig


def feed(shards: str | None, path: str | Path | None, text: Path | None = None) -> Feed:
    """Return what rows are built from: these shards by the default settings, or a recipe's.

    text: the text tokenizer that a recipe from scratch has learned; None: that of its weights, or
    of the model that is shipped. With both others, `shards` takes the place of those of the
    recipe's only source. ValueError without any, or when the recipe has several sources.
    """
    recipe = _recipe(shards, path)
    model = bundle.load(recipe.weights)
    if path is None:
        rule = of_canvas(model.canvas, model.image_tokenizer.geometry.patch)
        recipe = replace(recipe, loader=replace(recipe.loader, images=rule))
    image = model.image_tokenizer
    if recipe.tokenizer is not None:
        image = load_tokenizer(recipe.tokenizer)
    tokenizer = TextTokenizer.load(text) if text is not None else model.text_tokenizer
    fresh = Vocabulary.new(tokenizer.num_ids, image.num_codes)
    vocabulary = fresh if recipe.weights is None else model.vocabulary
    known = model.sequencer
    if recipe.weights is None:  # the shipped model's addresses, tower and boxes are its own
        sequencer = Sequencer(vocabulary, tokenizer, image.hash, known.inputs)
    else:
        sequencer = Sequencer(
            vocabulary, tokenizer, image.hash, known.inputs, known.layout.max_side, known.tower,
            boxes=known.boxes, two_way=known.two_way,
        )  # fmt: skip
    return Feed(recipe.sources, sequencer, ImageCodec(image), recipe.loader)


def _recipe(shards: str | None, path: str | Path | None) -> DataConfig:
    if path is None:
        if shards is None:
            raise ValueError("nothing to read: name SHARDS, or a recipe with --config")
        return DataConfig({"shards": SourceConfig(shards)})
    recipe = config.load(DataConfig, path, partial=True)
    if shards is None:
        return recipe
    if len(recipe.sources) != 1:
        raise ValueError(
            f"{path} names the sources {', '.join(recipe.sources)}, so SHARDS {shards} could stand "
            "for any of them: leave SHARDS out"
        )
    ((name, source),) = recipe.sources.items()
    return replace(recipe, sources={name: replace(source, shards=shards)})


def batch_rows(settings: LoaderConfig, world_size: int) -> int:
    """Return the rows of a batch that `world_size` ranks can share.

    It is the fewest, as rows do not depend on it. Only stages count in batches: with them it is
    what the settings say, and ValueError for ranks that do not divide it.
    """
    if settings.stages:
        if settings.batch_rows % world_size:
            raise ValueError(
                f"{world_size} ranks do not divide the {settings.batch_rows} rows of a batch, by "
                "which the stages are counted: give a divisor"
            )
        return settings.batch_rows
    return lcm(settings.group_rows, world_size)


def digest(feed: Feed, world_size: int, first: int, count: int) -> str:
    """Return the SHA-256 (hex) of rows `first` .. `first + count - 1` on `world_size` ranks."""
    found = hashlib.sha256()
    with closing(rows_bytes(feed, world_size, first)) as produced:
        for content in islice(produced, count):
            found.update(content)
    return found.hexdigest()


def rows_bytes(feed: Feed, world_size: int, first: int = 0) -> Generator[bytes, None, None]:
    """Yield the bytes of each row from `first` on, as `world_size` ranks build them."""
    settings = replace(feed.loader, batch_rows=batch_rows(feed.loader, world_size))
    parts = feed.sources, feed.sequencer, feed.codec, settings
    planner = Loader(*parts, measurers=os.cpu_count() or 1).planner
    state = state_at(planner, first)
    loaders = [Loader(*parts, state, rank, world_size) for rank in range(world_size)]
    planned = planned_rows(planner, state)
    with ExitStack() as stack:
        ranks = [stack.enter_context(closing(_rank_rows(loader))) for loader in loaders]
        turns = cycle(zip(loaders, ranks, strict=True))  # in order, for they divide a batch
        for (placements, _), (loader, rank) in zip(planned, turns, strict=False):
            yield row_bytes(next(rank), map(loader.row_builder.varied, placements))


def state_at(planner: WindowPlanner, row: int) -> LoaderState:
    """Return where row `row` of the run begins, found by planning alone."""
    state = planner.begin()
    while row >= planner.window_rows:
        state = planner.window(state).after
        row -= planner.window_rows
    return replace(state, row=row)


def _rank_rows(loader: Loader) -> Generator[Row, None, None]:
    """Yield each row that a rank builds."""
    for batch, _ in loader:
        for at, spans in enumerate(batch.spans):
            arrays = {name: getattr(batch, name)[at].numpy() for name in batch.tensors()}
            yield Row(**arrays, spans=spans)


def row_bytes(row: Row, varied: Iterable[tuple[float, float, bool]]) -> bytes:
    """Return the bytes that are hashed of a row, whose units are augmented like this."""
    units = [VARIED.pack(*one) for one in varied]
    return b"".join([*_bytes(row, ARRAYS), UNITS.pack(len(units)), *units, *_head_bytes(row)])


def _bytes(row: Row, arrays: Mapping[str, str]) -> list[bytes]:
    return [getattr(row, name).astype(kind).tobytes() for name, kind in arrays.items()]


def _head_bytes(row: Row) -> list[bytes]:
    """Return what an image head adds to a row, as bytes; none where images are codes in order."""
    spans = [span for span in row.spans if span.has_content]
    if not spans and not row.block.any() and not row.private.any():
        return []
    return [*_bytes(row, HEADS), *(part for span in spans for part in _span_bytes(span))]


def _span_bytes(span: Span) -> list[bytes]:
    contents = {name: getattr(span, name) for name in ("codes", "latents", "pixels")}
    there = {name: array for name, array in contents.items() if array is not None}
    shapes = [(name, array.dtype.str, array.shape) for name, array in there.items()]
    key = tuple(map(int, span.key))
    words = repr((int(span.start), int(span.stop), span.grid, key, shapes))
    return [words.encode(), *(array.tobytes() for array in there.values())]
