"""Find the shards of a run, fetch what is not here, and tell what each holds.

In: places, and the processes that begin together. Out: `FoundShards` of each place, the same on all
of them.

1. The first process lists the shards of all places.
2. Processes that share a cache fetch and unpack what they lack, each its share: so a remote shard
   comes once to each machine, or once in all.
3. Of all shards each process hashes its share, and checks it against an index where there is one.

What each has found is exchanged. Nobody waits in silence: processes that are done hear from the
others (see Peers.together).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain, islice
from pathlib import Path

from . import remote
from .identity import combined, file_hash, state_of
from .indexed import Index, IndexedShard
from .peers import ALONE, CacheMates, Peers, cache_mates
from .tables import spread
from .tar import ShardError

SMALL_BYTES = 1 << 30  # of shards to hash: one process is through them before others have started


@dataclass(frozen=True)
class Place:
    """Where shards are, as a source of a run says it."""

    shards: str
    index: str | None = None
    """A folder that `unimodal data index` has written of them."""


@dataclass(frozen=True)
class FoundShards:
    """Shards on this machine, and the SHA-256 of what each holds."""

    paths: tuple[Path, ...]
    hashes: tuple[str, ...]
    index: Index | None = None

    @cached_property
    def hash(self) -> str:
        """Return the SHA-256 of all contents, in order."""
        return combined(self.hashes)


@dataclass(frozen=True)
class Finder:
    """How shards are found: how a location is listed, and how one of its shards is fetched."""

    places: Callable[[str], list[str]] = remote.places
    fetched: Callable[[str], Path] = remote.fetched


def found_at(place: Place) -> FoundShards:
    """Return the shards of one place. ShardError without any, or when one fails."""
    return find({"": place})[place]


def find(
    wanted: Mapping[str, Place],
    peers: Peers = ALONE,
    mates: CacheMates | None = None,
    workers: int = 1,
    reread: bool = False,
    finder: Finder = Finder(),  # noqa: B008  it is frozen
) -> dict[Place, FoundShards]:
    """Return the shards of these places, by what they are wanted for; all peers call it.

    `workers` processes hash, where that takes longer than they take to start; with `reread` all
    contents are read, whatever is known of them.
    ShardError with all that is wrong, each with its name in `wanted`.
    """
    names: dict[Place, list[str]] = {}
    for name, place in wanted.items():
        names.setdefault(place, []).append(name)
    lists = dict(zip(names, _listed(names, peers, finder), strict=True))
    indexes = {place: Index(Path(place.index)) for place in names if place.index is not None}
    users: list[list[str]] = []
    known: list[IndexedShard | None] = []
    for place, listed in lists.items():
        users += [names[place]] * len(listed)
        known += indexes[place].shards if place in indexes else [None] * len(listed)
    sharing = (mates or cache_mates(peers)).ranks
    paths = _shared(partial(_fetched, finder), list(chain(*lists.values())), users, peers, sharing)
    shards = list(zip(paths, known, strict=True))
    everybody = tuple(range(peers.world_size))
    few = sum(Path(path).stat().st_size for path in paths if Path(path).exists()) < SMALL_BYTES
    hashed = partial(_hashed, reread)
    hashes = _shared(hashed, shards, users, peers, everybody, 1 if few else workers)
    each = iter(zip(map(Path, paths), hashes, strict=True))
    found = {}
    for place, listed in lists.items():
        here = list(islice(each, len(listed)))
        mine, theirs = zip(*here, strict=True)
        found[place] = FoundShards(mine, theirs, indexes.get(place))
    return found


def _listed(names: Mapping[Place, list[str]], peers: Peers, finder: Finder) -> list[list[str]]:
    """Return where the shards of each place are, as the first process lists them."""

    def listed() -> list[list[str]]:
        lists: list[list[str]] = []
        problems: dict[str, str] = {}
        for place, users in names.items():
            try:
                lists.append(finder.places(place.shards))
                if place.index is not None:
                    Index(Path(place.index)).check_count(place.shards, len(lists[-1]))
            except ShardError as error:
                problems |= dict.fromkeys(users, str(error))
        _check(problems)
        return lists

    mine = peers.together(lambda: listed() if peers.rank == 0 else [])
    return json.loads(peers.first_says(json.dumps(mine) if peers.rank == 0 else ""))


def _shared(
    make: Callable[[object], tuple[str, str]],
    work: Sequence[object],
    users: Sequence[list[str]],
    peers: Peers,
    ranks: tuple[int, ...],
    workers: int = 1,
) -> list[str]:
    """Return what `make` gives of each item of work, of which these ranks each do a share.

    `make` returns a text, or "" and what is wrong.
    """
    number, step = ranks.index(peers.rank), len(ranks)
    mine = range(number, len(work), step)

    def done() -> list[str]:
        texts: list[str] = []
        problems: dict[str, str] = {}
        made = spread(make, [work[at] for at in mine], workers)
        for at, (text, problem) in zip(mine, made, strict=True):
            texts.append(text)
            if problem:
                problems.update({name: problem for name in users[at] if name not in problems})
        _check(problems)
        return texts

    parts = peers.all_gather(json.dumps(peers.together(done)))
    found = [""] * len(work)
    for other, rank in enumerate(ranks):
        found[other::step] = json.loads(parts[rank])
    return found


def _check(problems: Mapping[str, str]) -> None:
    """ShardError with all problems, each behind the name that it belongs to."""
    if problems:
        lines = [f"{name}: {problem}" if name else problem for name, problem in problems.items()]
        raise ShardError("\n  ".join(lines))


def _fetched(finder: Finder, place: object) -> tuple[str, str]:
    try:
        return str(finder.fetched(str(place)).absolute()), ""
    except ShardError as error:
        return "", str(error)


def _hashed(reread: bool, shard: object) -> tuple[str, str]:
    """Return the hash of a shard, that of the index where that knows it, and what is wrong."""
    assert isinstance(shard, tuple), "a path and what an index says of it"
    path, known = Path(shard[0]), shard[1]
    try:
        if known is not None and not reread and state_of(path) == known.state:
            return known.hash, ""
        found = file_hash(path, reread)
    except ShardError as error:
        return "", str(error)
    if known is not None and found != known.hash:
        return "", f"{path} is not what its index was made of: {known.stale}"
    return found, ""
