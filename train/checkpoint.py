"""Read a run's checkpoints: directories `step_N`, whole or not there, without pickle.

    step_00001000/rank_00000_of_00002.safetensors  rank_00001_of_00002.safetensors
                  state.json  checksums.json

A rank writes parameter shards: the flat ranges that it holds of the master weights, of the
optimizer's state and of the averaged weights, each under the parameter's name. So any number of
ranks can read what any other number wrote: a range is joined and cut by name. Each block that is
read is verified (checksums.py); a checkpoint that is damaged is set aside, and the one before it is
gone on from.

saver.py writes them.
"""

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unimodal.tensors import (
    BYTES,
    DTYPES,
    StoredTensor,
    entries,
)

from .checksums import Checksums, Damaged, Verified
from .ranks import Ranks

STATE, CHECKSUMS = "state.json", "checksums.json"
# Of a shard's tensors: float32 weights and their moving average. What is written in files keeps its
# first names, "average" and "pieces", so that runs go on from the checkpoints that they have.
MASTER, EMA, SHARDS = "master", "average", "pieces"
FORMAT, UNSUMMED = 3, 2  # of a version that kept no checksums
DIRECTORY = re.compile(r"step_\d+")


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
        for path in rank_files(self.directory, self.state):
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


def rank_files(directory: Path, state: Mapping[str, Any]) -> list[Path]:
    """Return the files of all ranks in the directory of a checkpoint with this state."""
    of = state["world_size"]
    return [directory / f"rank_{rank:05d}_of_{of:05d}.safetensors" for rank in range(of)]


def _noted(directory: Path) -> dict[str, Checksums] | None:
    """Return the checksums of a checkpoint's files, by name; None where it has none."""
    path = directory / CHECKSUMS
    if not path.exists():
        return None
    return {name: Checksums.of(one) for name, one in json.loads(path.read_text()).items()}
