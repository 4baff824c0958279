"""Write an index of shards beforehand, by one job or by several that share them.

In: a location of shards, and Measures. Out: a folder as `indexed.Index` reads it.

A part is an index of neighbouring shards, in a folder of its own. Jobs write parts in any order, on
machines that need to share no more than the folder; one then joins them, measuring what is missing.
Processes of a job measure shards between them, and keep what they found in the cache, so that an
index which is written again measures changed shards alone.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from unimodal.atomic import replacing, write_bytes

from .found import Finder
from .identity import combined, file_hash, state_of
from .indexed import SETTINGS, SHARDS, Index, IndexedShard
from .joined import write_part
from .peers import share_of
from .tables import Measure, Part, spread, write_all
from .tar import ShardError

PARTS = "parts"


@dataclass(frozen=True)
class Work:
    """What an index is to hold, and how it is made."""

    location: str
    measures: Sequence[Measure]
    finder: Finder
    workers: int = 1


def write_index(output: Path, work: Work) -> Index:
    """Write the index of all shards, of the parts that are there and of what they lack.

    ShardError for a shard that cannot be read, and for parts of other shards.
    """
    places = work.finder.places(work.location)
    shares = _shares(output)
    parts = [_part(output, number, shares) for number in range(shares)]
    for number, part in enumerate(parts):
        mine = places[share_of(len(places), number, shares)]
        if (part / SHARDS).exists():
            _check(part, mine, work)
        _write_part(part, mine, work)
    indexes = [Index(part) for part in parts]
    shards = [shard for index in indexes for shard in index.shards]
    whole = combined(shard.hash for shard in shards)
    made = Index(output)
    for measure in work.measures:
        tables = [Part(index.place(measure)) for index in indexes]
        _write_tables(made.place_of(measure, whole), measure, tables, whole)
    _write_shards(output, shards)
    _remove_tables_of_others(output, whole)
    shutil.rmtree(output / PARTS)
    return Index(output)


def write_share(output: Path, work: Work, number: int, shares: int) -> Index:
    """Write part `number` of so many of an index, from 0 on."""
    places = work.finder.places(work.location)
    if shares > len(places):
        raise ValueError(f"--part: {work.location} has {len(places)} shards for {shares} parts")
    part = _part(output, number, shares)
    if part.exists():
        shutil.rmtree(part)
    _write_part(part, places[share_of(len(places), number, shares)], work)
    return Index(part)


def _part(output: Path, number: int, shares: int) -> Path:
    return output / PARTS / f"{number + 1}_of_{shares}"


def _shares(output: Path) -> int:
    """Return how many parts there are to be, one where none is there. ValueError where they are of
    different numbers.
    """
    found = {int(one.name.rpartition("_")[2]) for one in (output / PARTS).glob("*_of_*")}
    if len(found) > 1:
        raise ValueError(
            f"{output / PARTS} has parts of {' and of '.join(map(str, sorted(found)))}: remove "
            "those of one number"
        )
    return found.pop() if found else 1


def _write_part(part: Path, places: Sequence[str], work: Work) -> None:
    """Write what is not there yet of a part."""
    paths = [work.finder.fetched(place).absolute() for place in places]
    if not (part / SHARDS).exists():
        part.mkdir(parents=True, exist_ok=True)
        known = partial(_indexed, str(part))
        shards = list(zip(places, paths, strict=True))
        _write_shards(part, list(spread(known, shards, work.workers)))
    index = Index(part)
    for measure in work.measures:
        index.place(measure).parent.mkdir(exist_ok=True)
        hashes = [shard.hash for shard in index.shards]
        write_part(index.place(measure), paths, hashes, measure, work.workers)


def _indexed(folder: str, shard: tuple[str, Path]) -> IndexedShard:
    place, path = shard
    state = state_of(path)  # before its contents: what changes between is met at the start of a run
    return IndexedShard(place, file_hash(path), state, folder)


def _check(part: Path, places: Sequence[str], work: Work) -> None:
    """ShardError where a part is not of the shards as they are now."""
    index = Index(part)
    names = [shard.name for shard in index.shards]
    changed = [
        shard.name
        for shard in index.shards
        if names == list(places) and state_of(work.finder.fetched(shard.name)) != shard.state
    ]
    if changed or names != list(places):
        what = f"{changed[0]} as it was" if changed else "other shards"
        raise ShardError(f"{part} is of {what}: remove it, or write this part again")


def _write_tables(folder: Path, measure: Measure, parts: Sequence[Part], whole: str) -> None:
    if folder.exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with replacing(folder) as fresh:
        write_all(fresh, measure, parts)
        about = {"shards": whole, "measured": measure.settings}
        (fresh / SETTINGS).write_text(json.dumps(about, indent=1) + "\n")


def _write_shards(folder: Path, shards: Sequence[IndexedShard]) -> None:
    write_bytes(folder / SHARDS, "".join(f"{shard.line()}\n" for shard in shards).encode())


def _remove_tables_of_others(output: Path, whole: str) -> None:
    """Remove tables of shards as they were."""
    for about in output.glob(f"*/*/{SETTINGS}"):
        if json.loads(about.read_text())["shards"] != whole:
            shutil.rmtree(about.parent)
