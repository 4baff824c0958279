"""Have the tables of a list of shards: from an index, from the cache, or measured now, together.

In: FoundShards, a Measure, and the processes that begin together. Out: a folder of tables.

Each process measures neighbouring shards, its share, and writes them as a part where all can read
it; of those that share a cache the first joins all parts there. So nothing is measured twice, and
tables go from one to another as files: no process holds them in memory.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from .cache import cache, new, unwritable
from .found import FoundShards
from .peers import Alone, CacheMates, Peers, share_of
from .tables import Measure, OfShard, Part, keep, write, write_all


@dataclass(frozen=True)
class Together:
    """The processes that measure together, and where they meet."""

    peers: Peers = field(default_factory=Alone)
    mates: CacheMates = CacheMates((0,), 0, True)
    meeting: Path = Path()
    """A folder that all of them see, where they do not share a cache."""
    workers: int = 1
    """Processes that each of them measures by."""


def joined(found: FoundShards, measure: Measure, crew: Together) -> Path:
    """Return the folder of the tables of these shards; all peers call it.

    ShardError where a shard cannot be read, where an index lacks the measure, and where the cache
    cannot be written.
    """
    index = found.index
    if index is not None:
        return crew.peers.together(lambda: index.tables(measure))
    folder = measure.folder(found.hashes)
    try:
        if crew.peers.world_size == 1:
            if not folder.exists():
                _measure_alone(folder, found, measure, crew.workers)
        elif not all(crew.peers.all_gather("there" if folder.exists() else "")):
            _measure_together(folder, found, measure, crew)
    except OSError as error:
        if error.errno is None:  # numpy's, for a file that it could write in part only
            raise unwritable(error) from error
        raise
    return folder


def _measure_alone(folder: Path, found: FoundShards, measure: Measure, workers: int) -> None:
    keep(measure, found.paths, found.hashes, workers)
    with new(folder) as fresh:
        write_all(fresh, measure, map(partial(OfShard, measure), found.paths, found.hashes))


def _measure_together(folder: Path, found: FoundShards, measure: Measure, crew: Together) -> None:
    peers = crew.peers
    shared = cache() / measure.kind if crew.mates.are_all else crew.meeting
    parts = [shared / "parts" / folder.name / f"{n}_of_{peers.world_size}"
             for n in range(peers.world_size)]  # fmt: skip
    mine = share_of(len(found.paths), peers.rank, peers.world_size)
    share = found.paths[mine], found.hashes[mine]
    peers.together(lambda: write_part(parts[peers.rank], *share, measure, crew.workers))

    def join() -> None:
        if crew.mates.is_first and not folder.exists():
            with new(folder) as fresh:
                write_all(fresh, measure, map(Part, parts))

    peers.together(join)
    if peers.rank == 0:
        shutil.rmtree(parts[0].parent)


def write_part(
    folder: Path, paths: Sequence[Path], hashes: Sequence[str], measure: Measure, workers: int
) -> None:
    """Measure shards and write their tables as a part, unless that is there."""
    if folder.exists():
        return
    keep(measure, paths, hashes, workers)
    with new(folder) as fresh:
        write(fresh, measure.rows, map(partial(OfShard, measure), paths, hashes))
