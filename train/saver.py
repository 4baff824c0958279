"""Save a run's checkpoints beside its training (checkpoint.py says what they are).

Training waits only while its state is copied, to memory that holds it once more; a thread sums and
writes the copy. The ranks' files meet in a directory `.new_step_N` of a file system that all ranks
see, which rank 0 renames when all are there. A process that is killed at any instant leaves the
checkpoints that were whole.
"""

import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import torch
from torch import Tensor

from unimodal.atomic import flush
from unimodal.tensors import PlannedTensor, in_memory, write_file

from .checkpoint import CHECKSUMS, FORMAT, SHARDS, STATE, ParameterShard, found, rank_files, step_of
from .checksums import Checksums, Summing
from .ranks import Ranks

POLL_S, GRACE_S = 0.05, 30.0


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
        resting: Callable[[], AbstractContextManager] = nullcontext,
    ) -> None:
        """Keep the `keep` newest checkpoints and those of whole multiples of `keep_every` steps.

        Rank 0 waits `timeout_s` seconds for the files of the other ranks; None: for ever. Before it
        names a checkpoint it calls `allowed`, which raises OSError where the run is another's now,
        and once it is whole, `copy_out`. In `resting` ranks wait for that, however long it takes.
        """
        self.run, self.ranks, self.timeout_s, self._allowed = run, ranks, timeout_s, allowed
        self._copy_out, self._resting = copy_out, resting
        self.keep, self.keep_every = keep, keep_every
        self._copies: dict[str, Tensor] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._saving: list[Future[None]] = []
        self._sending: list[Future[None]] = []
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
        self._sending = [self._thread.submit(self._copied_out, step)]

    @property
    def has_failed(self) -> bool:
        """Return whether this rank's part of the last save has failed by now."""
        return any(job.done() and job.exception() for job in self._saving + self._sending)

    def wait(self) -> None:
        """Wait until the last save is whole and copied out. All ranks must call it together.

        Raises OSError with the way out on the first rank that failed, and PeerFailure on all
        others.
        """
        saving, sending = self._saving, self._sending
        self._saving, self._sending = [], []
        try:
            for job in saving:
                self.ranks.together(job.result)
            with self._resting():
                for job in sending:
                    self.ranks.together(job.result)
        except BaseException:
            self._hopeless.set()  # rank 0's thread need not wait for files that will not come
            raise

    def copy_again(self) -> None:
        """Let `copy_out` meet what has changed beside the checkpoints, while no save is under way.
        All ranks must call it together.
        """
        with self._resting():
            self.ranks.together(lambda: self._copy_out() if self.ranks.is_first else None)

    def close(self) -> None:
        """Let what is being saved come to its end, so that nothing is written once the run is
        given back; where a rank has failed the files of others are waited for GRACE_S seconds.
        """
        wait(self._saving + self._sending, GRACE_S)
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
        mine = rank_files(new, state)[self.ranks.rank]
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
        if not self.ranks.is_first or not rank_files(new, state)[0].exists():
            return  # of another rank, or not written
        until = math.inf if self.timeout_s is None else time.monotonic() + self.timeout_s
        while missing := [path.name for path in rank_files(new, state) if not path.exists()]:
            if time.monotonic() > until:
                raise OSError(
                    f"{', '.join(missing)} did not appear in {self.timeout_s:.0f} s; all ranks "
                    "must see one file system"
                )
            if self._hopeless.wait(POLL_S):
                return
        # What a name stands for reaches the disk before the name does, or a power cut could leave
        # a directory step_N with nothing in it.
        files = rank_files(new, state)
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
