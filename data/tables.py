"""Tables of what was measured of many shards: made shard by shard, joined by appending.

In: shards with their hashes, and a Measure. Out: a folder of tables that are mapped into memory, so
that a process needs none for them, however many shards there are.

1. Each shard is measured once for its contents and the Measure (SHA-256 of both), and what was
   found is kept in a file of the cache.
2. The tables of a list of shards are their shards' tables, one after another. A part is such tables
   of some neighbouring shards, and joined parts are the same bytes as if there had been one. So
   processes, ranks and jobs share a list of shards between them.

A folder has NAME.npy for each table, bad.jsonl, notes.json and about.json.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from rich.console import Console
from rich.progress import Progress

from .cache import cache, load_tables, save_tables
from .identity import digest

SMALL_BYTES = 50_000_000  # of shards to measure: fewer are done before other processes start
CHUNK_ROWS = 1 << 18  # of a table in memory at once
CHUNKS = 8  # of shards for each process: by more of them processes end at about the same time
VERSION = 6  # of what is made of the shards' tables
Rows = Mapping[str, np.dtype]
"""The dtypes of tables by name. A field `shard` counts shards, a field `record` rows of `records`,
both from the first one of what was measured together."""


@dataclass(frozen=True)
class Found:
    """What was measured of one shard."""

    tables: dict[str, np.ndarray]
    bad: list[dict[str, Any]]
    notes: dict[str, int]


@dataclass(frozen=True)
class Measure:
    """What is measured of shards; it can be sent to another process."""

    kind: str
    """A folder of the cache."""
    key: str
    """Tells what is measured from anything else that is, with the contents of a shard."""
    rows: Rows
    of: Callable[[Path], Found]
    settings: Mapping[str, Any]
    """What the key was made of, to be told."""
    last: Found | None = None
    """Rows that close the tables of all shards."""
    close: Callable[[Path], None] | None = None
    """Adds to the folder of all tables what follows from them."""

    def file(self, shard_hash: str) -> Path:
        """Return the file of the cache that has what was measured of a shard."""
        return cache() / self.kind / "tables" / digest(shard_hash, self.key)

    def folder(self, hashes: Sequence[str]) -> Path:
        """Return the folder of the cache that has the tables of these shards."""
        name = digest(f"joined {VERSION}", self.key, *hashes)
        return cache() / self.kind / "joined" / name


def keep(measure: Measure, paths: Sequence[Path], hashes: Sequence[str], workers: int) -> None:
    """Measure the shards that the cache does not know, by so many processes, with a progress bar.

    ShardError where one cannot be read.
    """
    files = {measure.file(hash): path for path, hash in zip(paths, hashes, strict=True)}
    missing = [(file, path) for file, path in files.items() if not file.exists()]
    if not missing:
        return
    if sum(path.stat().st_size for _, path in missing) < SMALL_BYTES:
        workers = 1
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("measuring shards", total=len(missing))
        for _ in spread(partial(_keep, measure), missing, workers):
            bar.advance(task)


def _keep(measure: Measure, one: tuple[Path, Path]) -> None:
    file, path = one
    found = measure.of(path)
    about = {"bad": found.bad, "notes": found.notes}
    save_tables(file, [found.tables[name] for name in measure.rows], about)


def spread(make: Callable[[Any], Any], work: Sequence[Any], workers: int) -> Iterator[Any]:
    """Yield `make` of each item of work, in order, by so many processes, by this one when 1.

    With more than one, a script that calls this needs the usual `if __name__ == "__main__":`.
    """
    workers = min(workers, len(work))
    if workers <= 1:
        yield from map(make, work)
        return
    each = -(-len(work) // (CHUNKS * workers))
    chunks = [work[at : at + each] for at in range(0, len(work), each)]
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        for made in pool.map(partial(_all, make), chunks):  # `make` is sent once for each
            yield from made


def _all(make: Callable[[Any], Any], chunk: Sequence[Any]) -> list[Any]:
    return [make(item) for item in chunk]


class Piece(Protocol):
    """Tables of some shards, one chunk of rows in memory at a time."""

    num_shards: int
    bad: list[dict[str, Any]]
    notes: dict[str, int]

    def chunks(self, name: str) -> Iterator[np.ndarray]:
        """Yield the rows of a table, which may be written into."""
        ...


class OfShard:
    """What the cache has of one shard, measured again where that was damaged."""

    num_shards = 1

    def __init__(self, measure: Measure, path: Path, shard_hash: str) -> None:
        file, count = measure.file(shard_hash), len(measure.rows)
        found = load_tables(file, count)
        if found is None:
            _keep(measure, (file, path))
            found = load_tables(file, count)
            assert found is not None, "it has just been written"
        tables, about = found
        self.tables = dict(zip(measure.rows, tables, strict=True))
        self.bad, self.notes = about["bad"], about["notes"]

    def chunks(self, name: str) -> Iterator[np.ndarray]:
        """Yield all rows at once."""
        yield self.tables[name]


class Closing:
    """The rows that close tables."""

    num_shards = 0

    def __init__(self, last: Found) -> None:
        self.tables, self.bad, self.notes = last.tables, last.bad, last.notes

    def chunks(self, name: str) -> Iterator[np.ndarray]:
        """Yield all rows at once."""
        yield self.tables[name].copy()


class Part:
    """Tables of neighbouring shards in a folder that `write` made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.num_shards = json.loads((folder / "about.json").read_text())["shards"]
        self.notes = json.loads((folder / "notes.json").read_text())
        lines = (folder / "bad.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
        self.bad = [json.loads(line) for line in lines]

    def chunks(self, name: str) -> Iterator[np.ndarray]:
        """Yield the rows of a file, so many at a time."""
        with (self.folder / f"{name}.npy").open("rb") as stream:
            np.lib.format.read_magic(stream)
            (left,), _, dtype = np.lib.format.read_array_header_1_0(stream)
            while left:
                rows = np.fromfile(stream, dtype, min(left, CHUNK_ROWS))
                assert len(rows), f"{self.folder / name} is cut short"
                left -= len(rows)
                yield rows


def write(folder: Path, rows: Rows, pieces: Iterable[Piece]) -> None:
    """Write the tables of pieces one after another into a new folder."""
    folder.mkdir()
    notes: Counter[str] = Counter()
    num_shards = 0
    with ExitStack() as stack:
        tables = {n: stack.enter_context(TableWriter(folder / f"{n}.npy", rows[n])) for n in rows}
        bad = stack.enter_context((folder / "bad.jsonl").open("w", encoding="utf-8"))
        for piece in pieces:
            before = {"shard": num_shards}
            if "records" in tables:
                before["record"] = tables["records"].num_rows
            for name, table in tables.items():
                for chunk in piece.chunks(name):
                    table.append(_moved(chunk, before))
            for entry in piece.bad:
                shard = num_shards + entry.get("shard", 0)
                print(json.dumps({**entry, "shard": shard}), file=bad)
            notes.update(piece.notes)
            num_shards += piece.num_shards
    (folder / "notes.json").write_text(json.dumps(notes, sort_keys=True))
    (folder / "about.json").write_text(json.dumps({"shards": num_shards}))


def write_all(folder: Path, measure: Measure, pieces: Iterable[Piece]) -> None:
    """Write the tables of all shards into a new folder, with what follows from all of them."""
    closing = [Closing(measure.last)] if measure.last is not None else []
    write(folder, measure.rows, chain(pieces, closing))
    if measure.close is not None:
        measure.close(folder)


def _moved(rows: np.ndarray, before: Mapping[str, int]) -> np.ndarray:
    """Let rows count from the first shard and record of all that is joined."""
    for name, count in before.items():
        if name in (rows.dtype.names or ()):
            rows[name] += np.asarray(count, rows.dtype[name])
    return rows


class TableWriter:
    """Writes a .npy file whose number of rows is known at the end alone."""

    def __init__(self, path: Path, dtype: np.dtype) -> None:
        self.dtype, self.num_rows = dtype, 0
        self._stream = path.open("wb")
        self._header_bytes = self._write_header()

    def __enter__(self) -> "TableWriter":
        return self

    def __exit__(self, *error: object) -> None:
        with self._stream:
            if error == (None, None, None):
                self._stream.seek(0)
                length = self._write_header()
                assert length == self._header_bytes, "numpy leaves room in headers for growth"

    def append(self, rows: np.ndarray) -> None:
        """Append rows of the dtype."""
        assert rows.dtype == self.dtype, f"{rows.dtype} and not {self.dtype}"
        self._stream.write(rows.tobytes())
        self.num_rows += len(rows)

    def _write_header(self) -> int:
        about = {
            "descr": np.lib.format.dtype_to_descr(self.dtype),
            "fortran_order": False,
            "shape": (self.num_rows,),
        }
        np.lib.format.write_array_header_1_0(self._stream, about)
        return self._stream.tell()


def mapped(path: Path) -> np.ndarray:
    """Map the table in a file as a plain array: numpy's own class for it is slow to index."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)
    except ValueError:  # a table without rows cannot be mapped
        return np.load(path, allow_pickle=False)
