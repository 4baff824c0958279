"""Save and read a run's checkpoints: directories `step_N`, whole or not there, without pickle.

    step_00001000/rank_00000_of_00002.safetensors  rank_00001_of_00002.safetensors
                  state.json  checksums.json

A rank writes parameter shards: the flat ranges that it holds of the master weights, of the
optimizer's state and of the averaged weights, each under the parameter's name. So any number of
ranks can read what any other number wrote: a range is joined and cut by name. Each block that is
read is verified (checksums.py); a checkpoint that is damaged is set aside, and the one before it is
gone on from.

Training waits only while its state is copied, to memory that holds it once more; a thread sums and
writes the copy. The ranks' files meet in a directory `.new_step_N` of a file system that all ranks
see, which rank 0 renames when all are there. A process that is killed at any instant leaves the
checkpoints that were whole.
"""

import json
import math
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from threading import Event
from typing import Any

import torch
from torch import Tensor

from unimodal.atomic import flush
from unimodal.tensors import (
    BYTES,
    DTYPES,
    PlannedTensor,
    StoredTensor,
    entries,
    in_memory,
    write_file,
)

from .checksums import Checksums, Damaged, Summing, Verified
from .ranks import Ranks

STATE, CHECKSUMS = "state.json", "checksums.json"
# Of a shard's tensors: float32 weights and their moving average. What is written in files keeps its
# first names, "average" and "pieces", so that runs go on from the checkpoints that they have.
MASTER, EMA, SHARDS = "master", "average", "pieces"
FORMAT, UNSUMMED = 3, 2  # of a version that kept no checksums
DIRECTORY = re.compile(r"step_\d+")
POLL_S, GRACE_S = 0.05, 30.0


@dataclass(frozen=True)
class ParameterShard:
    """Hold what a rank has of one parameter: one range of each of its tensors, laid out flat."""

    shape: tuple[int, ...]
    """The shape of the whole parameter."""
    start: int
    """The index in the flat parameter at which the range begins."""
    tensors: Mapping[str, Tensor]
    """Flat tensors of one length, by kind: MASTER, EMA and the names of the optimizer's state."""


@dataclass(frozen=True, eq=False)
class _Range:
    """What a rank's file has of one parameter: elements start .. stop - 1."""

    start: int
    stop: int
    file: Verified
    places: Mapping[str, StoredTensor]

    def read(self, key: str, start: int, stop: int) -> Tensor:
        """Return elements start .. stop - 1 of the whole flat parameter."""
        place = self.places[key]
        size = BYTES[place.dtype]
        begin = place.start + size * (start - self.start)
        data = self.file.read(begin, begin + size * (stop - start))
        return torch.frombuffer(data, dtype=DTYPES[place.dtype])


class Checkpoint:
    """Read a whole checkpoint on disk; a tensor is read, and verified, when it is asked for."""

    def __init__(self, directory: Path) -> None:
        """Read the index of a checkpoint's files. Raises Damaged where one is missing or not what
        was saved.
        """
        self.directory = directory
        try:
            self._checksums = _noted(directory)
            state = self._file(STATE)
            self.state: dict[str, Any] = json.loads(state.read(0, state.num_bytes))
            self._check_format()
            self._index()
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise Damaged(
                f"{directory} cannot be read ({error}); remove it to go on from the checkpoint "
                "before it"
            ) from error

    @property
    def step(self) -> int:
        """Return how many steps were taken before it."""
        return self.state["step"]

    def _file(self, name: str) -> Verified:
        if self._checksums is not None and name not in self._checksums:
            raise ValueError(f"{CHECKSUMS} has none of {name}")
        return Verified(self.directory / name, (self._checksums or {}).get(name))

    def _check_format(self) -> None:
        found = self.state.get("format")
        if found not in (FORMAT, UNSUMMED):
            raise ValueError(f"it is of format {found}, not {FORMAT}")
        if found == FORMAT and self._checksums is None:
            raise ValueError(f"its {CHECKSUMS} is gone")

    def _index(self) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.kinds: dict[str, set[str]] = {}  # of the tensors of each parameter
        self._ranges: dict[str, list[_Range]] = {}
        self._files: list[Verified] = []
        for path in _rank_files(self.directory, self.state):
            self._files.append(self._file(path.name))
            self._add(self._files[-1])
        # The ranges of all ranks must join without gap or overlap, or a file is of another save.
        for name, ranges in self._ranges.items():
            ranges.sort(key=lambda one: one.start)
            stops = [0, *(one.stop for one in ranges)]
            if [one.start for one in ranges] != stops[:-1] or stops[-1] != prod(self.shapes[name]):
                raise ValueError(f"{name} is not whole")

    def _add(self, file: Verified) -> None:
        length = int.from_bytes(file.read(0, 8), "little")
        if length > file.num_bytes - 8:
            raise ValueError(f"{file.path.name} is no whole safetensors file")
        places, metadata = entries(file.path, bytes(file.read(8, 8 + length)))
        if file.num_bytes != max((place.stop for place in places.values()), default=8 + length):
            raise ValueError(f"{file.path.name} is no whole safetensors file")
        shards = json.loads(metadata[SHARDS])
        for key, place in places.items():
            name, kind = key.rsplit("/", 1)
            start, shape = shards[name]
            self.shapes[name] = tuple(shape)
            self.kinds.setdefault(name, set()).add(kind)
            if kind == MASTER:  # the other kinds have the same ranges
                found = _Range(start, start + prod(place.shape), file, places)
                self._ranges.setdefault(name, []).append(found)

    def verify(self, rank: int = 0, world_size: int = 1) -> None:
        """Read the share of its files that falls to one of so many ranks. Raises Damaged where one
        is not what was saved.
        """
        for file in self._files[rank::world_size]:
            file.verify()

    def read(self, name: str, kind: str, start: int = 0, stop: int | None = None) -> Tensor:
        """Return elements start .. stop - 1 (None: to the end) of a flat tensor, float32.

        Raises Damaged where they are not what was saved.
        """
        stop = prod(self.shapes[name]) if stop is None else stop
        parts = [
            one.read(f"{name}/{kind}", max(start, one.start), min(stop, one.stop))
            for one in self._ranges[name]
            if one.start < stop and start < one.stop
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def whole(self, name: str, kind: str = MASTER) -> Tensor:
        """Return a tensor in the parameter's shape, float32."""
        return self.read(name, kind).view(self.shapes[name])


class Saver:
    """Write a run's checkpoints beside its training."""

    def __init__(
        self,
        run: Path,
        ranks: Ranks,
        keep: int,
        keep_every: int | None,
        timeout_s: float | None,
        allowed: Callable[[], None] = lambda: None,
        copy_out: Callable[[], None] = lambda: None,
    ) -> None:
        """Keep the `keep` newest checkpoints and those of whole multiples of `keep_every` steps.

        Rank 0 waits `timeout_s` seconds for the files of the other ranks; None: for ever. Before it
        names a checkpoint it calls `allowed`, which raises OSError where the run is another's now,
        and once it is whole, `copy_out`.
        """
        self.run, self.ranks, self.timeout_s, self._allowed = run, ranks, timeout_s, allowed
        self._copy_out = copy_out
        self.keep, self.keep_every = keep, keep_every
        self._copies: dict[str, Tensor] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._saving: list[Future[None]] = []
        self._hopeless = Event()

    def save(
        self, step: int, state: Mapping[str, Any], shards: Mapping[str, ParameterShard]
    ) -> None:
        """Copy the shards of this rank and begin to write them, once the save before is whole."""
        self.wait()
        for name, shard in shards.items():
            for kind, tensor in shard.tensors.items():
                self._copy(f"{name}/{kind}", tensor.detach())
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # or the next step would change what is still being copied
        about = {name: [shard.start, shard.shape] for name, shard in shards.items()}
        world_size = self.ranks.world_size
        whole = {"format": FORMAT, "step": step, "world_size": world_size, **state}
        # Two jobs, so that a rank which cannot write stops all before rank 0 waits for its file.
        jobs = [partial(self._write, whole, json.dumps(about)), partial(self._publish, whole)]
        self._saving = [self._thread.submit(self._tried, step, job) for job in jobs]
        self._saving.append(self._thread.submit(self._copied_out, step))

    @property
    def has_failed(self) -> bool:
        """Return whether this rank's part of the last save has failed by now."""
        return any(job.done() and job.exception() for job in self._saving)

    def wait(self) -> None:
        """Wait until the last save is whole. All ranks must call it together.

        Raises OSError with the way out on the first rank that failed, and PeerFailure on all
        others.
        """
        saving, self._saving = self._saving, []
        try:
            for job in saving:
                self.ranks.together(job.result)
        except BaseException:
            self._hopeless.set()  # rank 0's thread need not wait for files that will not come
            raise

    def copy_again(self) -> None:
        """Let `copy_out` meet what has changed beside the checkpoints, while no save is under way.
        All ranks must call it together.
        """
        self.ranks.together(lambda: self._copy_out() if self.ranks.is_first else None)

    def close(self) -> None:
        """Let what is being saved come to its end, so that nothing is written once the run is
        given back; where a rank has failed the files of others are waited for GRACE_S seconds.
        """
        wait(self._saving, GRACE_S)
        self._hopeless.set()
        self._thread.shutdown()

    def _copy(self, key: str, tensor: Tensor) -> None:
        """Copy a tensor into memory that is kept from save to save: fresh pages cost more than
        that.
        """
        if key not in self._copies:
            pinned = tensor.is_cuda  # a GPU copies into it at once
            self._copies[key] = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=pinned)
        self._copies[key].copy_(tensor, non_blocking=True)

    def _tried(self, step: int, job: Callable[[], None]) -> None:
        try:
            job()
        except OSError as error:
            if self.ranks.is_first:
                shutil.rmtree(self._new(step), ignore_errors=True)
            raise OSError(
                f"the checkpoint of step {step} cannot be written to {self.run}: {error}; "
                "earlier ones are whole: make room and run the same command again"
            ) from error

    def _copied_out(self, step: int) -> None:
        if self.ranks.is_first and (self.run / f"step_{step:08d}").is_dir():
            self._copy_out()

    def _new(self, step: int) -> Path:
        return self.run / f".new_step_{step:08d}"

    def _write(self, state: dict[str, Any], about: str) -> None:
        new = self._new(state["step"])
        mine = _rank_files(new, state)[self.ranks.rank]
        new.mkdir(parents=True, exist_ok=True)
        part = mine.with_suffix(".part")
        # The metadata is one entry: several come in any order.
        sums = _summed(part, lambda stream: write_file(stream, self._planned(), {SHARDS: about}))
        _sums(mine).write_text(json.dumps(sums.as_json()))
        part.replace(mine)  # rank 0 may rename the directory from now on

    def _planned(self) -> list[PlannedTensor]:
        return [in_memory(key, tensor) for key, tensor in self._copies.items()]

    def _publish(self, state: dict[str, Any]) -> None:
        """Rename the directory once every rank's file is there, and remove what is not kept."""
        new = self._new(state["step"])
        if not self.ranks.is_first or not _rank_files(new, state)[0].exists():
            return  # of another rank, or not written
        until = math.inf if self.timeout_s is None else time.monotonic() + self.timeout_s
        while missing := [path.name for path in _rank_files(new, state) if not path.exists()]:
            if time.monotonic() > until:
                raise OSError(
                    f"{', '.join(missing)} did not appear in {self.timeout_s:.0f} s; all ranks "
                    "must see one file system"
                )
            if self._hopeless.wait(POLL_S):
                return
        # What a name stands for reaches the disk before the name does, or a power cut could leave
        # a directory step_N with nothing in it.
        files = _rank_files(new, state)
        noted = {path.name: json.loads(_sums(path).read_text()) for path in files}
        content = json.dumps(state).encode()
        noted[STATE] = _summed(new / STATE, lambda stream: stream.write(content)).as_json()
        (new / CHECKSUMS).write_text(json.dumps(noted))
        for path in files:
            _sums(path).unlink()
        flush(new / CHECKSUMS)
        flush(new)
        self._allowed()
        os.replace(new, new.with_name(new.name.removeprefix(".new_")))
        flush(self.run)
        stay = steps_kept(map(step_of, found(self.run)), self.keep, self.keep_every)
        for old in found(self.run):
            if step_of(old) not in stay:
                gone = old.with_name(f".old_{old.name}")
                os.replace(old, gone)  # a directory that is half removed is no checkpoint
                shutil.rmtree(gone)


def steps_kept(steps: Iterable[int], newest: int, every: int | None) -> set[int]:
    """Return which checkpoints stay of those that were saved after these steps: the `newest` ones,
    and those of whole multiples of `every` steps.
    """
    ordered = sorted(steps)
    return {*ordered[-newest:], *(step for step in ordered if every and step % every == 0)}


def found(run: Path) -> list[Path]:
    """Return the whole checkpoints of a run, oldest first."""
    there = (path for path in run.glob("step_*") if DIRECTORY.fullmatch(path.name))
    return sorted((path for path in there if path.is_dir()), key=step_of)


def newest(run: Path) -> Checkpoint | None:
    """Return the checkpoint that a run goes on from; None where there is none."""
    whole = found(run)
    return Checkpoint(whole[-1]) if whole else None


def resumable(run: Path, ranks: Ranks) -> tuple[Checkpoint | None, dict[Path, str]]:
    """Return the newest checkpoint of which every byte is what was saved, and what is wrong with
    each newer one.

    All ranks call it together: each verifies its share, and all come to the same.
    """
    names = [path.name for path in found(run)] if ranks.is_first else []
    damaged: dict[Path, str] = {}
    for name in reversed(json.loads(ranks.all_gather(json.dumps(names))[0])):
        directory = run / name
        said = ranks.all_gather(ranks.together(partial(_damage, directory, ranks)))
        if not any(said):
            return Checkpoint(directory), damaged
        damaged[directory] = next(filter(None, said))
    return None, damaged


def _damage(directory: Path, ranks: Ranks) -> str:
    """Return what is wrong with this rank's share of a checkpoint; nothing where it is whole."""
    try:
        Checkpoint(directory).verify(ranks.rank, ranks.world_size)
    except Damaged as error:
        return str(error.__cause__ or error)
    return ""


def set_aside(directory: Path) -> Path:
    """Rename a damaged checkpoint, so that it is kept and never read, and return its new path."""
    kept = directory.with_name(f"damaged_{directory.name}")
    while kept.exists():  # of an earlier time
        kept = kept.with_name(f"{kept.name}_")
    os.replace(directory, kept)
    return kept


def sweep(run: Path) -> None:
    """Remove what saves that were cut off have left behind."""
    for left in [*run.glob(".new_step_*"), *run.glob(".old_step_*")]:
        shutil.rmtree(left)


def step_of(directory: Path) -> int:
    """Return how many steps were taken before the checkpoint in a directory."""
    return int(directory.name.removeprefix("step_"))


def _rank_files(directory: Path, state: Mapping[str, Any]) -> list[Path]:
    of = state["world_size"]
    return [directory / f"rank_{rank:05d}_of_{of:05d}.safetensors" for rank in range(of)]


def _noted(directory: Path) -> dict[str, Checksums] | None:
    """Return the checksums of a checkpoint's files, by name; None where it has none."""
    path = directory / CHECKSUMS
    if not path.exists():
        return None
    return {name: Checksums.of(one) for name, one in json.loads(path.read_text()).items()}


def _sums(path: Path) -> Path:
    """Return where a rank notes the checksums of its file, until rank 0 has them all."""
    return path.with_suffix(".sums")


def _summed(path: Path, write: Callable[[Summing], Any]) -> Checksums:
    """Write a file, flush it to the disk and return its checksums."""
    with path.open("wb") as stream:
        summing = Summing(stream)
        write(summing)
    flush(path)
    return summing.checksums
