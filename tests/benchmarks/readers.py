"""Reading samples: header parser and byte ranges against webdataset, which streams.

All of them give the files of each sample by extension, undecoded, from shards in the page cache.
"""

import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import zip_longest
from pathlib import Path
from statistics import median
from unittest.mock import patch

import numpy as np
import webdataset

from unimodal.data import order
from unimodal.data.estimator import LengthEstimator
from unimodal.data.lengths import Lengths, measure
from unimodal.data.loader import LoaderConfig
from unimodal.data.rows import read
from unimodal.data.shards import Shard, find_shards
from unimodal.data.sizes import ImageRule

from .inputs import Sizes, tokenizers
from .measured import Line, interleaved, ratios, spread

STREAMED, INDEXED = 10, 30  # times as many samples a second: the bar, and the goal with an index
Read = tuple[str, dict[str, bytes]]  # key, and content by extension


def lines(name: str, folder: Path, rule: ImageRule | None, sizes: Sizes) -> list[Line]:
    """What is found for the shards of a folder."""
    paths = find_shards(folder)
    headers_s, index_s, table = indexed(paths, rule)
    count = sum(len(Shard(path)) for path in paths)
    if len(table) != count:
        raise ValueError(f"{name}: {count} samples are {len(table)} units; give longer rows")
    numbers_n = order.permuted(np.arange(count), count, 1)
    peer_s, parser_s, range_s = interleaved(
        sizes.repeats,
        partial(_spend, partial(streamed, paths)),
        partial(_spend, partial(parsed, paths)),
        partial(_spend, partial(ranges, table, numbers_n)),
    )
    numbers = dict(zip(numbers_n.tolist(), ranges(table, numbers_n), strict=True))
    ranged = (numbers[number] for number in range(count))
    micro = 1e6 / count
    peer = f"webdataset {spread(peer_s, ' us', micro)}"
    check = f"{count:,} samples, byte for byte"
    parser, ranges_ = ratios(peer_s, parser_s), ratios(peer_s, range_s)
    built = f"index of {name}: headers {headers_s * micro:.1f} us, lengths {index_s * micro:.0f} us"
    return [
        Line(f"streaming a sample, {name}", spread(parser_s, " us", micro), peer, spread(parser),
             f">= {STREAMED}", median(parser) >= STREAMED, check,
             tuple(different(parsed(paths), streamed(paths)))),
        Line(f"a sample in random order, {name}", spread(range_s, " us", micro), peer,
             spread(ranges_), f">= {STREAMED}, goal {INDEXED}", median(ranges_) >= STREAMED, check,
             tuple(different(ranged, streamed(paths)))),
        Line("building the index, a sample", built),
    ]  # fmt: skip


def indexed(paths: list[Path], rule: ImageRule | None) -> tuple[float, float, Lengths]:
    """Seconds to parse all headers, seconds to measure all lengths in one process, the index."""
    began = time.perf_counter()
    for path in paths:
        Shard(path)
    headers_s = time.perf_counter() - began
    sequencer, codec = tokenizers()
    estimator = LengthEstimator(sequencer, LoaderConfig.sequence_length, codec.geometry, rule)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as empty, patch.dict(os.environ, UNIMODAL_CACHE=empty):
        measure(paths, estimator)
        index_s = time.perf_counter() - began
    return headers_s, index_s, measure(paths, estimator)


def streamed(paths: list[Path]) -> Iterator[Read]:
    """webdataset: all shards from begin to end."""
    for sample in webdataset.WebDataset([str(path) for path in paths], shardshuffle=False):
        key = sample.pop("__key__")
        yield key, {name: content for name, content in sample.items() if name[:2] != "__"}


def parsed(paths: list[Path]) -> Iterator[Read]:
    """Ours without an index: the headers of each shard are parsed, then all of it is read."""
    for path in paths:
        shard = Shard(path)
        for number in range(len(shard)):
            sample = shard.sample(number)
            yield sample.key, sample.files


def ranges(table: Lengths, numbers_n: np.ndarray) -> Iterator[Read]:
    """Ours with the index, as rows are made: samples of any order by their byte ranges."""
    for number in numbers_n.tolist():
        sample = read(*table.locate(number))
        yield sample.key, sample.files


def different(ours: Iterable[Read], theirs: Iterable[Read]) -> list[str]:
    """The first samples that are not the same."""
    wrong = (
        f"sample {number}: {mine and mine[0]} here, {other and other[0]} there"
        for number, (mine, other) in enumerate(zip_longest(ours, theirs))
        if mine != other
    )
    return [text for text, _ in zip(wrong, range(3), strict=False)]


def _spend(samples: "partial[Iterator[Read]]") -> None:
    for _ in samples():
        pass
