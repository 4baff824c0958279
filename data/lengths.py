"""The index of lengths: measured once, kept in a cache, read through the page cache.

In: shards and a LengthEstimator. Out: `Lengths`: units and records of all shards as memory-mapped
tables, so that a process needs no memory for them, however many shards there are.

Shards are measured once for their contents and the LengthEstimator, and their tables are joined
(tables.py). The units of all shards are put in order of length besides, by which length groups are
cut (packing.py).
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from .cache import cache, new
from .estimator import LengthEstimator
from .found import FoundShards
from .identity import digest, file_hash
from .joined import Together, joined
from .measured import RECORD, UNIT, measure_shard
from .packing import longest_first
from .tables import Found, Measure, mapped
from .tar import ShardError

LONG = "long documents"


@dataclass(frozen=True)
class Bad:
    """A sample that cannot be used, and why."""

    shard: str
    key: str
    reason: str
    message: str


@dataclass(frozen=True)
class Lengths:
    """The tables of a list of shards, in a folder of the cache or of an index."""

    folder: Path
    shards_file: Path
    """The paths of the shards on this machine."""

    def __len__(self) -> int:
        return len(self.units) - 1

    @cached_property
    def units(self) -> np.ndarray:
        """Return the units: dtype UNIT (n + 1,), mapped; the last one closes the list."""
        return mapped(self.folder / "units.npy")

    @cached_property
    def records(self) -> np.ndarray:
        """Return the records: dtype RECORD (m,), mapped."""
        return mapped(self.folder / "records.npy")

    @cached_property
    def members(self) -> np.ndarray:
        """Return the units from the longest to the shortest, uint32 (n,), mapped: neighbours are
        length groups.
        """
        return mapped(self.folder / "members.npy")

    def num_length_groups(self, group_rows: int) -> int:
        """Count the length groups of so many units that `members` begins with; the units behind
        them stand alone, all of them where a group is one row.
        """
        return self.notes[LONG] // group_rows if group_rows > 1 else 0

    @cached_property
    def shards(self) -> np.ndarray:
        """Return the paths of the shards, bytes, mapped."""
        return mapped(self.shards_file)

    @cached_property
    def notes(self) -> dict[str, int]:
        """Return counts of what happened to the samples (see Measured)."""
        return json.loads((self.folder / "notes.json").read_text())

    def locate(self, unit: int) -> tuple[bytes, int, int]:
        """Return the path of a unit's shard, its first byte there and the byte behind it."""
        shard, _, start, stop, _ = self.units[unit].item()
        return self.shards[shard], start, stop

    def bad(self) -> Iterator[Bad]:
        """Yield the samples that are no documents."""
        for line in (self.folder / "bad.jsonl").read_text(encoding="utf-8").split("\n")[:-1]:
            entry = json.loads(line)
            yield Bad(**entry | {"shard": os.fsdecode(self.shards[entry["shard"]])})

    def __reduce__(self) -> tuple[type["Lengths"], tuple[Path, Path]]:
        """Send only the folder to another process, which maps the tables again."""
        return Lengths, (self.folder, self.shards_file)


def measure(paths: Sequence[Path], estimator: LengthEstimator, workers: int = 1) -> Lengths:
    """Return the index of these shards, from the cache as far as it is there.

    `workers` processes measure what is not; with more than one, a script that calls this needs the
    usual `if __name__ == "__main__":`. ShardError when a shard cannot be read, when none holds a
    document, or when the cache cannot be written.
    """
    if not paths:
        raise ShardError("no shards were given")
    hashes = tuple(file_hash(path) for path in paths)
    found = FoundShards(tuple(path.absolute() for path in paths), hashes)
    return lengths_of(found, estimator, Together(workers=workers))


def lengths_of(found: FoundShards, estimator: LengthEstimator, crew: Together) -> Lengths:
    """Return the index of these shards as `measure` does; all processes that measure together call
    it.
    """
    folder = joined(found, length_measure(estimator), crew)
    lengths = Lengths(folder, _shards_file(found.paths))
    if not len(lengths):
        raise ShardError(_nothing_whole(lengths, found.paths))
    return lengths


def length_measure(estimator: LengthEstimator) -> Measure:
    """Return the measure of lengths."""
    closing = {"units": np.zeros(1, UNIT), "records": np.zeros(0, RECORD)}
    return Measure(
        kind="lengths",
        key=estimator.key,
        rows={"units": UNIT, "records": RECORD},
        of=partial(_found, estimator),
        settings=estimator.settings,
        last=Found(closing, [], {}),
        close=partial(_put_in_order, estimator.sequence_length),
    )


def _found(estimator: LengthEstimator, path: Path) -> Found:
    """Measure a shard; all shards together get the unit that closes the list."""
    found = measure_shard(path, estimator)
    notes = found.notes | {"bad": len(found.bad)}
    return Found({"units": found.units[:-1], "records": found.records}, list(found.bad), notes)


def _put_in_order(sequence_length: int, folder: Path) -> None:
    """Write the units of all shards in order of length, and count the long ones."""
    records, units = mapped(folder / "records.npy"), mapped(folder / "units.npy")
    first_n = units["record"][:-1]
    lengths_n = records["lengths"][first_n, 0] if len(first_n) else np.zeros(0, np.uint32)
    members_n, num_long = longest_first(lengths_n, sequence_length)
    np.save(folder / "members.npy", members_n)
    notes = json.loads((folder / "notes.json").read_text())
    (folder / "notes.json").write_text(json.dumps({**notes, LONG: num_long}, sort_keys=True))


def _shards_file(paths: Sequence[Path]) -> Path:
    """Return the file of the cache with these paths as a table."""
    file = cache() / "paths" / f"{digest(*map(str, paths))}.npy"
    if not file.exists():
        with new(file) as fresh:
            np.save(fresh, np.array([os.fsencode(path) for path in paths]))
    return file


def _nothing_whole(lengths: Lengths, paths: Sequence[Path]) -> str:
    """Say why no shard gave a document."""
    bad = next(lengths.bad(), None)
    first = f"; the first bad one: key {bad.key}: {bad.message}" if bad is not None else ""
    notes = {what: count for what, count in lengths.notes.items() if what not in ("bad", LONG)}
    counts = ", ".join(f"{count:,} {what}" for what, count in notes.items() if count)
    where = f"{paths[0]}" + (f" and {len(paths) - 1} other shards" if len(paths) > 1 else "")
    return f"no samples to learn from in {where} ({counts}){first}"
