"""Save and read a run's checkpoints: directories `step_N`, whole or not there, without pickle.

    step_00001000/rank_00000_of_00002.safetensors  rank_00001_of_00002.safetensors  state.json

A rank writes parameter shards: the flat ranges that it holds of the master weights, of the
optimizer's state and of the averaged weights, each under the parameter's name. So any number of
ranks can read what any other number wrote: a range is joined and cut by name.

Training waits only while its state is copied, to memory that holds it once more; a thread writes
the copy. The ranks' files meet in a directory `.new_step_N` of a file system that all ranks see,
which rank 0 renames when all are there. A process that is killed at any instant leaves the
checkpoints that were whole.
"""

import json
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from threading import Event
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from unimodal.atomic import flush

from .ranks import Ranks

STATE = "state.json"
# Of a shard's tensors: float32 weights and their moving average. What is written in files keeps its
# first names, "average" and "pieces", so that runs go on from the checkpoints that they have.
MASTER, EMA, SHARDS = "master", "average", "pieces"
FORMAT = 2
POLL_S = 0.05


@dataclass(frozen=True)
class ParameterShard:
    """Hold what a rank has of one parameter: one range of each of its tensors, laid out flat."""

    shape: tuple[int, ...]
    """The shape of the whole parameter."""
    start: int
    """The index in the flat parameter at which the range begins."""
    tensors: dict[str, Tensor]
    """Flat tensors of one length, by kind: MASTER, EMA and the names of the optimizer's state."""


@dataclass(frozen=True)
class _Range:
    start: int
    stop: int
    path: Path


class Checkpoint:
    """Read a whole checkpoint on disk; a tensor is read when it is asked for."""

    def __init__(self, directory: Path) -> None:
        """Read the index of a checkpoint's files. Raises ValueError where one is missing or
        damaged.
        """
        self.directory = directory
        try:
            self.state: dict[str, Any] = json.loads((directory / STATE).read_text())
            if self.state.get("format") != FORMAT:
                raise ValueError(f"it is of format {self.state.get('format')}, not {FORMAT}")
            self._index()
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise ValueError(
                f"{directory} cannot be read ({error}); remove it to go on from the checkpoint "
                "before it"
            ) from error

    @property
    def step(self) -> int:
        """Return how many steps were taken before it."""
        return self.state["step"]

    def _index(self) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.kinds: dict[str, set[str]] = {}  # of the tensors of each parameter
        self._ranges: dict[str, list[_Range]] = {}
        for path in _rank_files(self.directory, self.state):
            with safe_open(path, "pt") as file:
                self._add(path, file)
        # The ranges of all ranks must join without gap or overlap, or a file is of another save.
        for name, ranges in self._ranges.items():
            ranges.sort(key=lambda one: one.start)
            stops = [0, *(one.stop for one in ranges)]
            if [one.start for one in ranges] != stops[:-1] or stops[-1] != prod(self.shapes[name]):
                raise ValueError(f"{name} is not whole")

    def _add(self, path: Path, file: Any) -> None:
        shards = json.loads(file.metadata()[SHARDS])
        for key in file.keys():
            name, kind = key.rsplit("/", 1)
            start, shape = shards[name]
            self.shapes[name] = tuple(shape)
            self.kinds.setdefault(name, set()).add(kind)
            if kind == MASTER:  # the other kinds have the same ranges
                (length,) = file.get_slice(key).get_shape()
                found = _Range(start, start + length, path)
                self._ranges.setdefault(name, []).append(found)

    def read(self, name: str, kind: str, start: int = 0, stop: int | None = None) -> Tensor:
        """Return elements start .. stop - 1 (None: to the end) of a flat tensor, float32."""
        stop = prod(self.shapes[name]) if stop is None else stop
        parts = []
        for one in self._ranges[name]:
            if one.start < stop and start < one.stop:
                with safe_open(one.path, "pt") as file:
                    flat = file.get_slice(f"{name}/{kind}")
                    parts.append(flat[max(start - one.start, 0) : min(stop, one.stop) - one.start])
        return torch.cat(parts)

    def whole(self, name: str, kind: str = MASTER) -> Tensor:
        """Return a tensor in the parameter's shape, float32."""
        return self.read(name, kind).view(self.shapes[name])


class Saver:
    """Write a run's checkpoints beside its training."""

    def __init__(
        self, run: Path, ranks: Ranks, keep: int, keep_every: int | None, timeout_s: float | None
    ) -> None:
        """Keep the `keep` newest checkpoints and those of whole multiples of `keep_every` steps.

        Rank 0 waits `timeout_s` seconds for the files of the other ranks; None: for ever.
        """
        self.run, self.ranks, self.timeout_s = run, ranks, timeout_s
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
        except (OSError, SafetensorError) as error:  # safetensors has its own for a full disk
            if self.ranks.is_first:
                shutil.rmtree(self._new(step), ignore_errors=True)
            raise OSError(
                f"the checkpoint of step {step} cannot be written to {self.run}: {error}; "
                "earlier ones are whole: make room and run the same command again"
            ) from error

    def _new(self, step: int) -> Path:
        return self.run / f".new_step_{step:08d}"

    def _write(self, state: dict[str, Any], about: str) -> None:
        new = self._new(state["step"])
        mine = _rank_files(new, state)[self.ranks.rank]
        new.mkdir(parents=True, exist_ok=True)
        part = mine.with_suffix(".part")
        save_file(self._copies, part, {SHARDS: about})  # one entry: several come in any order
        flush(part)
        part.replace(mine)  # rank 0 may rename the directory from now on

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
        (new / STATE).write_text(json.dumps(state))
        flush(new / STATE)
        flush(new)
        os.replace(new, new.with_name(new.name.removeprefix(".new_")))
        flush(self.run)
        for old in found(self.run)[: -self.keep]:
            if self.keep_every is None or _step(old) % self.keep_every:
                gone = old.with_name(f".old_{old.name}")
                os.replace(old, gone)  # a directory that is half removed is no checkpoint
                shutil.rmtree(gone)


def check_room(run: Path, shards: Mapping[str, ParameterShard], keep: int, averaged: bool) -> None:
    """Raise OSError where the disk lacks room for this rank's part of `keep` checkpoints and of the
    one that is being written.

    Of each weight they hold the master, two moments and, where `averaged`, an EMA, 4 bytes each.
    """
    kinds = 4 if averaged else 3
    one_bytes = kinds * sum(4 * shard.tensors[MASTER].numel() for shard in shards.values())
    needed = one_bytes * max(1, keep + 1 - len(found(run)))
    free = shutil.disk_usage(run).free
    if free < needed:
        raise OSError(
            f"{run}: the checkpoints need {needed / 1e9:.2g} GB for this rank alone, and the disk "
            f"has {free / 1e9:.2g} GB; make room, or give another output"
        )


def found(run: Path) -> list[Path]:
    """Return the whole checkpoints of a run, oldest first."""
    return sorted((path for path in run.glob("step_*") if path.is_dir()), key=_step)


def newest(run: Path) -> Checkpoint | None:
    """Return the checkpoint that a run goes on from; None where there is none."""
    whole = found(run)
    return Checkpoint(whole[-1]) if whole else None


def sweep(run: Path) -> None:
    """Remove what saves that were cut off have left behind."""
    for left in [*run.glob(".new_step_*"), *run.glob(".old_step_*")]:
        shutil.rmtree(left)


def _step(directory: Path) -> int:
    return int(directory.name.removeprefix("step_"))


def _rank_files(directory: Path, state: Mapping[str, Any]) -> list[Path]:
    of = state["world_size"]
    return [directory / f"rank_{rank:05d}_of_{of:05d}.safetensors" for rank in range(of)]
