"""The index of lengths: measured once, kept in a cache, read through the page cache.

In: shards and a LengthEstimator. Out: `Lengths`: units and records of all shards as memory-mapped
tables, so that a process needs no memory for them, however many shards there are.

1. Each shard is measured once for its contents and the LengthEstimator (SHA-256 of both), by
   several processes. Its hash is kept by path, size and time of change, so that an unchanged shard
   is not read again.
2. The tables of a list of shards are their shards' tables, one after another, and the length groups
   of their long documents (packing.py).

The cache is the folder $UNIMODAL_CACHE, or ~/.cache/unimodal. Every file in it is written under
another name and renamed when whole, and can be removed while nothing runs.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from unimodal.atomic import replacing

from .estimator import RECORD, UNIT, LengthEstimator, Measured, measure_shard
from .headers import headers_digest
from .packing import length_groups
from .tar import ShardError

SMALL_BYTES = 50_000_000  # of shards to measure: fewer are done before other processes start
READ_BYTES = 1 << 22
LENGTH_GROUPS = "length groups of long documents"
VERSION = 5  # of what is made of the shards' tables


def cache() -> Path:
    """Return the folder of everything that can be made again."""
    return Path(os.environ.get("UNIMODAL_CACHE") or Path.home() / ".cache" / "unimodal")


@dataclass(frozen=True)
class Bad:
    """A sample that cannot be used, and why."""

    shard: str
    key: str
    reason: str
    message: str


@dataclass(frozen=True)
class Lengths:
    """The tables of a list of shards, in a folder of the cache."""

    folder: Path

    def __len__(self) -> int:
        return len(self.units) - 1

    @cached_property
    def units(self) -> np.ndarray:
        """Return the units: dtype UNIT (n + 1,), mapped; the last one closes the list."""
        return _mapped(self.folder / "units.npy")

    @cached_property
    def records(self) -> np.ndarray:
        """Return the records: dtype RECORD (m,), mapped."""
        return _mapped(self.folder / "records.npy")

    @cached_property
    def members(self) -> np.ndarray:
        """Return the units, length group by length group, then the rest: uint32 (n,), mapped."""
        return _mapped(self.folder / "members.npy")

    @property
    def num_length_groups(self) -> int:
        """Count the length groups that `members` begins with; the units behind them stand alone."""
        return self.notes[LENGTH_GROUPS]

    @cached_property
    def shards(self) -> np.ndarray:
        """Return the paths of the shards, bytes, mapped."""
        return _mapped(self.folder / "shards.npy")

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
            yield Bad(**json.loads(line))

    def __reduce__(self) -> tuple[type["Lengths"], tuple[Path]]:
        """Send only the folder to another process, which maps the tables again."""
        return Lengths, (self.folder,)


def _mapped(path: Path) -> np.ndarray:
    """Map the table in a file as a plain array: numpy's own class for it is slow to index."""
    return np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)


def measure(
    paths: Sequence[Path], estimator: LengthEstimator, workers: int = 1, group_rows: int = 1
) -> Lengths:
    """Return the index of these shards, from the cache as far as it is there.

    A length group has `group_rows` units. `workers` processes measure what is not in the cache;
    with more than one, a script that calls this needs the usual `if __name__ == "__main__":`.
    ShardError when a shard cannot be read, when none holds a document, or when the cache cannot be
    written.
    """
    if not paths:
        raise ShardError("no shards were given")
    paths = [path.absolute() for path in paths]
    keys = [_digest(file_hash(path), estimator.key) for path in paths]
    name = _digest(f"joined {VERSION} {group_rows}", *keys, *map(str, paths))
    folder = cache() / "lengths" / name
    if not folder.exists():
        try:
            _measure_missing(paths, keys, estimator, workers)
            _join(folder, paths, keys, estimator.sequence_length, group_rows)
        except OSError as error:
            if error.errno is None:  # numpy's, for a file that it could write in part only
                raise _unwritable(error) from error
            raise
    return Lengths(folder)


def file_hash(path: Path, reread: bool = False) -> str:
    """Return the SHA-256 of a shard, which is read again only when its size, its time or its
    headers changed, or when that is asked for.
    """
    try:
        status = path.stat()
        headers = headers_digest(path, status)
    except OSError as error:
        raise ShardError(f"{path} cannot be read: {error.strerror}") from error
    state = _digest(str(path.absolute()), str(status.st_size), str(status.st_mtime_ns), headers)
    noted = cache() / "hashes" / state
    if reread or not noted.exists():
        found = hashlib.sha256()
        with path.open("rb") as stream:
            while block := stream.read(READ_BYTES):
                found.update(block)
        _write(noted, found.hexdigest().encode())
    return noted.read_text()


def shards_hash(paths: Sequence[Path], reread: bool = False) -> str:
    """Return the SHA-256 of the contents of shards, in order; `reread`: as of `file_hash`."""
    return _digest(*(file_hash(path, reread) for path in paths))


def _measure_missing(
    paths: Sequence[Path], keys: Sequence[str], estimator: LengthEstimator, workers: int
) -> None:
    """Measure the shards that the cache does not know, with a progress bar."""
    missing = {key: path for key, path in zip(keys, paths, strict=True) if not _file(key).exists()}
    if not missing:
        return
    size_bytes = sum(path.stat().st_size for path in missing.values())
    workers = min(workers, len(missing))
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("measuring shards", total=len(missing))
        for _key in _measured(missing, estimator, 1 if size_bytes < SMALL_BYTES else workers):
            bar.advance(task)


def _measured(missing: dict[str, Path], estimator: LengthEstimator, workers: int) -> Iterator[str]:
    """Measure these shards; yield the key of each when it is done."""
    if workers == 1:
        yield from (_measure(key, path, estimator) for key, path in missing.items())
        return
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        estimators = [estimator] * len(missing)
        yield from pool.map(_measure, missing.keys(), missing.values(), estimators)


def _measure(key: str, path: Path, estimator: LengthEstimator) -> str:
    found = measure_shard(path, estimator)
    about = {"bad": found.bad, "notes": found.notes}
    save_tables(_file(key), [found.units, found.records], about)
    return key


def _read(key: str) -> Measured:
    (units, records), about = load_tables(_file(key), 2)
    return Measured(units, records, **about)


def save_tables(path: Path, tables: Sequence[np.ndarray], about: dict[str, Any]) -> None:
    """Write tables and a JSON object into one file of the cache."""
    with new(path) as part, part.open("wb") as stream:
        for table in (*tables, np.frombuffer(json.dumps(about).encode(), np.uint8)):
            np.save(stream, table, allow_pickle=False)


def load_tables(path: Path, count: int) -> tuple[list[np.ndarray], dict[str, Any]]:
    """Return the `count` tables and the JSON object of a file of the cache."""
    with path.open("rb") as stream:
        *tables, about = (np.load(stream, allow_pickle=False) for _ in range(count + 1))
    return tables, json.loads(about.tobytes())


def _join(
    folder: Path, paths: Sequence[Path], keys: Sequence[str], sequence_length: int, group_rows: int
) -> None:
    """Write the tables of all shards, one shard in memory at a time."""
    sizes = [(len(found.units) - 1, len(found.records)) for found in map(_read, keys)]
    num_units, num_records = (sum(column) for column in zip(*sizes, strict=True))
    if not num_units:
        raise ShardError(_nothing_whole(paths, map(_read, keys)))
    notes: Counter = Counter()
    with new(folder) as part:
        part.mkdir()
        units = _table(part / "units.npy", UNIT, num_units + 1)
        records = _table(part / "records.npy", RECORD, num_records)
        at = record = 0
        with (part / "bad.jsonl").open("w", encoding="utf-8") as bad:
            for number, key in enumerate(keys):
                found = _read(key)
                found.units["shard"] = number
                found.units["record"] += record
                units[at : at + len(found.units)] = found.units  # the next overwrites the last
                records[record : record + len(found.records)] = found.records
                at, record = at + len(found.units) - 1, record + len(found.records)
                notes.update(found.notes | {"bad": len(found.bad)})
                for entry in found.bad:
                    print(json.dumps({"shard": str(paths[number]), **entry}), file=bad)
        members_n, notes[LENGTH_GROUPS] = length_groups(
            records["lengths"][units["record"][:-1], 0], sequence_length, group_rows
        )
        np.save(part / "members.npy", members_n)
        np.save(part / "shards.npy", np.array([os.fsencode(path) for path in paths]))
        (part / "notes.json").write_text(json.dumps(notes, sort_keys=True))


def _nothing_whole(paths: Sequence[Path], found: Iterable[Measured]) -> str:
    """Say why no shard gave a document."""
    notes: Counter = Counter()
    first = ""
    for measured in found:
        notes.update(measured.notes)
        if measured.bad and not first:
            first = (
                f"; the first bad one: key {measured.bad[0]['key']}: {measured.bad[0]['message']}"
            )
    counts = ", ".join(f"{count:,} {what}" for what, count in notes.items() if count)
    where = f"{paths[0]}" + (f" and {len(paths) - 1} other shards" if len(paths) > 1 else "")
    return f"no samples to learn from in {where} ({counts}){first}"


def _table(path: Path, dtype: np.dtype, length: int) -> np.ndarray:
    if not length:  # nothing can be mapped
        np.save(path, np.empty(0, dtype))
        return np.empty(0, dtype)
    table = np.lib.format.open_memmap(path, "w+", dtype, (length,))  # written when it is let go
    with path.open("r+b") as stream:  # a full disk is an error here, and no bus error later
        os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
    return table


def _file(key: str) -> Path:
    return cache() / "lengths" / "shards" / key


def _digest(*words: str) -> str:
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


def _write(path: Path, content: bytes) -> None:
    with new(path) as part:
        part.write_bytes(content)


def _unwritable(error: OSError) -> ShardError:
    return ShardError(
        f"the cache {cache()} cannot be written: {error.strerror or error}; free some space, or "
        "set UNIMODAL_CACHE to another folder"
    )


@contextmanager
def new(path: Path) -> Iterator[Path]:
    """Give a path to write a file or folder at, which gets its own name when it is whole.

    Processes that write the same one do not disturb each other.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(error) from error
    try:
        with replacing(path) as fresh:
            yield fresh
    except OSError as error:
        if error.filename != str(path):  # of what is read, not of the cache
            raise
        if not path.is_dir():
            raise _unwritable(error) from error
