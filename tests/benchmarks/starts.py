"""What the start of a run costs its ranks: `python tests/benchmarks/starts.py` prints a table.

    python tests/benchmarks/starts.py [--shards 10000] [--quick]

1. One, two or four ranks find, hash and measure so many small shards, with an empty cache, one
   process a rank; imports and the meeting of the ranks are not counted. Four ranks are held against
   one on a core of its own, and against one of four that each do all the work for themselves on
   one core: four processes on a core evict one another's caches, whether they share work or not.
2. The same ranks begin with an index that `unimodal data index` has written.
3. What a start of 500 million samples on 64 ranks takes with a shared index, computed from costs
   that are measured here: of a sample's headers, of a shard, of a line of the index, of a window.

CPU seconds are those of a rank, wall seconds of the slowest one. For the former all ranks run on a
single core, as ranks on neighbouring ones would slow each other. The exit status is 1 where ranks
found different things.
"""

import gc
import io
import json
import os
import socket
import sys
import tarfile
import tempfile
import time
import traceback
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from statistics import mean

import click
import numpy as np
import torch

sys.path.extend(map(str, Path(__file__).resolve().parents[2:0:-1]))  # launched by its path

from benchmarks.measured import Line, table

from unimodal import bundle
from unimodal.codec import ImageCodec
from unimodal.data.found import Finder, find
from unimodal.data.headers import _digest
from unimodal.data.identity import state_of
from unimodal.data.index import Work, write_index
from unimodal.data.indexed import Index
from unimodal.data.joined import Together, joined
from unimodal.data.lengths import Lengths, _put_in_order, length_measure
from unimodal.data.loader import Loader, LoaderConfig, places_measured
from unimodal.data.measured import RECORD, UNIT
from unimodal.data.peers import cache_mates
from unimodal.data.shards import find_shards, shard_name
from unimodal.data.sources import Mixture, SourceConfig
from unimodal.data.streams import Stream
from unimodal.data.tables import TableWriter
from unimodal.data.windows import WindowPlanner
from unimodal.sequencer import Sequencer
from unimodal.train.ranks import connect

CPU_BAR, WALL_BAR, MINUTES_BAR = 0.27, 0.6, 5.0
SAMPLES, WORLD_SIZE, OF_A_SHARD, FILES = 500_000_000, 64, 5000, 2  # of the start that is computed
SMALL = 3  # samples of a small shard
WORDS = 100  # of a text
SETTINGS = LoaderConfig(sequence_length=1024)


@dataclass(frozen=True)
class Start:
    """What a start cost and found."""

    cpu_s: list[float]
    wall_s: list[float]
    lengths: set[str]


@click.command()
@click.option("--shards", default=10_000, show_default=True, help="Small shards.")
@click.option("--quick", is_flag=True, help="Few shards: shows that it works, and no more.")
def main(shards: int, quick: bool) -> None:
    """Print the table."""
    reading()
    with tempfile.TemporaryDirectory() as scratch:
        lines = list(measured(40 if quick else shards, Path(scratch), quick))
    print(table(lines))
    sys.exit(any(line.wrong for line in lines))


def measured(count: int, scratch: Path, quick: bool) -> Iterator[Line]:
    """The lines of all parts."""
    write_shards(scratch / "first", 3, SMALL)  # what is done once in a process is done before
    os.environ["UNIMODAL_CACHE"] = str(scratch / "first_cache")
    begin(str(scratch / "first"), "", scratch / "first.json")
    write_shards(scratch / "small", count, SMALL)
    what = f"{count:,} shards of {SMALL} texts"
    alone, four = (start(scratch / "small", "", scratch / f"core_{n}", n, True) for n in (1, 4))
    yield from compared(f"{what}, all ranks on a core", [alone, four], CPU_BAR, None)
    crowd = start(scratch / "small", "", scratch / "crowd", 1, True, runs=4)
    yield from compared(f"{what}, beside three more on the core", [crowd, four], CPU_BAR, None)
    on_all = [start(scratch / "small", "", scratch / f"plain_{n}", n) for n in (1, 2)]
    yield from compared(what, on_all, None, WALL_BAR)
    forked([_environment(scratch / "core_1" / "0", 1)], [lambda: write_work(scratch)])
    index = str(scratch / "index")
    known = [start(scratch / "small", index, scratch / f"known_{n}", n, True) for n in (1, 4)]
    yield from compared(f"{what}, with an index, all ranks on a core", known, None, None)
    yield from computed(scratch, quick)


def compared(
    what: str, starts: list[Start], cpu_bar: float | None, wall_bar: float | None
) -> Iterator[Line]:
    """What several ranks cost against one, or against the mean of several that are alone."""
    alone, several = starts
    wrong = () if alone.lengths == several.lengths else ("they found different things",)
    cpu_s, wall_s = max(several.cpu_s), max(several.wall_s)
    alone_cpu_s, alone_wall_s = mean(alone.cpu_s), mean(alone.wall_s)
    cpu, wall = cpu_s / alone_cpu_s, wall_s / alone_wall_s
    ratio, bar = (cpu, cpu_bar) if wall_bar is None else (wall, wall_bar)
    yield Line(
        f"{what}: {len(several.cpu_s)} ranks",
        f"{mean(several.cpu_s):.2f} CPU s of a rank, {cpu_s:.2f} at most, "
        f"{wall_s:.2f} s in all",
        f"1 rank {alone_cpu_s:.2f} CPU s, {alone_wall_s:.2f} s in all",
        f"CPU {cpu:.3f}, wall {wall:.3f}",
        f"<= {bar}" if bar else "", ratio <= bar if bar else None, "the same tables", wrong,
    )  # fmt: skip


def write_shards(folder: Path, count: int, samples: int) -> None:
    """Write shards of texts of a hundred words; none is flushed, which would take minutes.

    The words stand one behind another in the documentation, so that words come as often as they do
    in prose.
    """
    rng, prose = np.random.default_rng(0), _prose()
    folder.mkdir()
    for number in range(count):
        with tarfile.open(folder / shard_name(number), "w", format=tarfile.USTAR_FORMAT) as shard:
            for sample in range(samples):
                first = int(rng.integers(len(prose) - WORDS))
                words = " ".join(prose[first : first + WORDS])
                member = tarfile.TarInfo(f"{number:06d}{sample:04d}.txt")
                content = words.encode()
                member.size = len(content)
                shard.addfile(member, io.BytesIO(content))


def _prose() -> list[str]:
    """Return the words of the documentation, page by page."""
    pages = sorted((Path(__file__).parents[2] / "docs").glob("*.md"))
    return [word for page in pages for word in page.read_text().split()]


def write_work(scratch: Path) -> None:
    """Write an index of the small shards."""
    sequencer, codec = reading()
    source = {"all": SourceConfig("")}
    ((_, found),) = places_measured(source, SETTINGS, sequencer, codec.geometry)
    write_index(scratch / "index", Work(str(scratch / "small"), [length_measure(found)], Finder()))


@cache
def reading() -> tuple[Sequencer, ImageCodec]:
    """Return the tokenizers of the model that is shipped."""
    model = bundle.load()
    return model.sequencer, ImageCodec(model.image_tokenizer)


def forked(environments: list[dict[str, str]], work: list[Callable[[], None]]) -> None:
    """Do each work in a process of its own, which knows what this one has imported."""
    gc.freeze()  # or a child's collector would copy what both have
    children = []
    for environment, one in zip(environments, work, strict=True):
        child = os.fork()
        if not child:
            os.environ.update(environment)
            failed = 1
            try:
                one()
                failed = 0
            except BaseException:  # it must not return into the parent's code
                traceback.print_exc()
            sys.stdout.flush()
            os._exit(failed)
        children.append(child)
    if any([os.waitpid(child, 0)[1] for child in children]):
        raise RuntimeError("a process failed")


def start(
    shards: Path, index: str, folder: Path, world_size: int, on_one_core: bool = False,
    runs: int = 1,
) -> Start:  # fmt: skip
    """Begin on so many ranks with an empty cache; so many runs at once, each with a cache."""
    environments = [
        {**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        for run in range(runs)
        for common in [_environment(folder / str(run), world_size)]
        for rank in range(world_size)
    ]
    answers = [folder.with_name(f"{folder.name}_{n}.json") for n in range(len(environments))]
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)} if on_one_core else cores)
    forked(environments, [partial(begin, str(shards), index, answer) for answer in answers])
    os.sched_setaffinity(0, cores)
    found = [json.loads(answer.read_text()) for answer in answers]
    return Start(
        [one["cpu_s"] for one in found],
        [one["wall_s"] for one in found],
        {one["lengths"] for one in found},
    )


def _environment(cache: Path, world_size: int) -> dict[str, str]:
    """What the ranks of a run are told."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    return {
        "UNIMODAL_CACHE": str(cache), "WORLD_SIZE": str(world_size), "MASTER_ADDR": "localhost",
        "LOCAL_WORLD_SIZE": str(world_size), "MASTER_PORT": str(port),
    }  # fmt: skip


def _take_long_turns() -> None:
    """Let ranks on one core take turns of a tenth of a second, where that is allowed (to root).

    In turns of some milliseconds, as they come, each finds its caches emptied by the others, and
    takes up to 1.2 times as long; a rank of a real run has a core of its own.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except PermissionError:
        print("not root: ranks on one core take short turns, and more time")


def begin(shards: str, index: str, answer: Path) -> None:
    """Be a rank: find and measure shards, open them as a loader does, and say what it cost."""
    _take_long_turns()
    torch.set_num_threads(1)
    ranks = connect(600)
    sequencer, codec = reading()
    sources = {"all": SourceConfig(shards, index=index or None)}
    ranks.together(lambda: None)  # all are there
    cpu, wall = time.process_time(), time.perf_counter()
    mates = cache_mates(ranks)
    crew = Together(ranks, mates, answer.parent)
    found = find({name: one.place for name, one in sources.items()}, ranks, mates)
    for place, one in places_measured(sources, SETTINGS, sequencer, codec.geometry):
        joined(found[place], length_measure(one), crew)
    loader = Loader(sources, sequencer, codec, SETTINGS, found=found)
    cost = {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}
    ranks.together(lambda: None)
    lengths = loader.planner.streams[0].lengths
    records = [len(lengths), int(lengths.records["lengths"].sum()), loader.documents]
    answer.write_text(json.dumps({**cost, "lengths": str(records)}))


def computed(scratch: Path, quick: bool) -> Iterator[Line]:
    """A start with a shared index, from what its parts cost here."""
    per_file_s, per_shard_s = header_costs(scratch, 200 if quick else OF_A_SHARD)
    per_line_s, line_bytes = line_costs(scratch / "index")
    window_s, resident, unit_bytes, job_bytes = table_costs(
        scratch, 100_000 if quick else 4_000_000
    )
    num_shards = SAMPLES // OF_A_SHARD
    mine = -(-num_shards // WORLD_SIZE)
    parts = {
        "reading the index's list of shards": num_shards * per_line_s,
        "its share of shards, each looked up": mine * per_shard_s,
        "their headers": mine * OF_A_SHARD * FILES * per_file_s,
        "mapping the tables and planning the first window": window_s,
    }
    total_s = sum(parts.values())
    words = ", ".join(f"{what} {seconds:.1f} s" for what, seconds in parts.items())
    yield Line(
        f"computed: {SAMPLES / 1e6:.0f} million samples of {FILES} files in {num_shards:,} shards, "
        f"{WORLD_SIZE} ranks, shared index", f"{total_s / 60:.1f} min a rank: {words}",
        bar=f"< {MINUTES_BAR:.0f} min", met=total_s < 60 * MINUTES_BAR,
    )  # fmt: skip
    yield Line(
        "its memory",
        f"{(num_shards * line_bytes + resident) / 1e9:.2f} GB of a rank beside the page cache; "
        f"tables of {SAMPLES * unit_bytes / 1e9:.0f} GB on the disk are mapped; the job that joins "
        f"the index needs {SAMPLES * job_bytes / 1e9:.0f} GB",
    )


def header_costs(scratch: Path, samples: int) -> tuple[float, float]:
    """CPU seconds of a file's header and of a shard, from shards of many and of one sample."""
    write_shards(scratch / "large", 4, samples)
    write_shards(scratch / "single", 200, 1)
    large_s, single_s = (
        min(_state_s(folder) for _ in range(3)) / len(find_shards(folder))
        for folder in (scratch / "large", scratch / "single")
    )
    return (large_s - single_s) / (samples - 1), single_s


def _state_s(folder: Path) -> float:
    paths = find_shards(folder)
    _digest.cache_clear()
    began = time.process_time()
    for path in paths:
        state_of(path)
    return time.process_time() - began


def line_costs(index: Path) -> tuple[float, float]:
    """CPU seconds and bytes of memory of a line of an index's list."""
    began = time.process_time()
    count = len(Index(index).shards)
    seconds = time.process_time() - began
    held, _ = held_bytes(lambda: Index(index).shards)
    return seconds / count, held / count


def table_costs(scratch: Path, count: int) -> tuple[float, float, float, float]:
    """Of so many units: seconds to map them and plan a window, bytes that are held then; bytes of a
    unit on the disk, and bytes of a unit that the job which joins an index holds at most.
    """
    folder = scratch / "tables"
    folder.mkdir()
    lengths = np.random.default_rng(0).integers(30, 300, count)
    units, records = np.zeros(count + 1, UNIT), np.zeros(count, RECORD)
    units["record"] = np.arange(count + 1)
    records["lengths"] = lengths[:, None]
    for name, rows in (("units", units), ("records", records)):
        with TableWriter(folder / f"{name}.npy", rows.dtype) as writer:
            writer.append(rows)
    (folder / "notes.json").write_text("{}")
    _, most = held_bytes(lambda: _put_in_order(1024, folder))
    size = sum((folder / f"{name}.npy").stat().st_size for name in ("units", "records", "members"))
    began = time.perf_counter()
    plan(folder)
    seconds = time.perf_counter() - began
    _, planned = held_bytes(lambda: plan(folder))
    return seconds, planned, size / count, most / count


def plan(folder: Path) -> WindowPlanner:
    """Map tables and plan the first window of their units."""
    stream = Stream("all", SourceConfig(""), None, Lengths(folder, Path()))
    planner = WindowPlanner([stream], [Mixture(0, {"all": 1.0}, None)], 0, 1024, 1024, 8, 0.1)
    planner.window(planner.begin())
    return planner


def held_bytes(work: Callable[[], object]) -> tuple[int, int]:
    """Return what is held after the work, as long as what it returns is, and the most under way."""
    tracemalloc.start()
    made = work()
    held, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del made
    return held, most


if __name__ == "__main__":
    main()
