"""Connect the processes of a run, and let them find out things together.

`torchrun` and `deepspeed` start the processes and say who each is by RANK, WORLD_SIZE and
LOCAL_RANK. What they tell each other here is small and goes by the CPU.
"""

import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist

T = TypeVar("T")
DONE, BUSY, FAILED = "done", "busy", "failed"
LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK")


class PeerFailure(SystemExit):
    """Say that another rank failed, which gives the reason itself."""


@dataclass(frozen=True)
class Ranks:
    """Know one process of `world_size`; rank 0 writes what is written once."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    """The process on its own machine, and the GPU that it takes."""
    num_local: int = 1
    """How many processes its machine has."""
    patience_s: float = 5.0
    """How often ranks that wait for one another hear that it is still at work."""
    sequence_parallel: int = 1
    """How many neighbours take the same rows, and each a part of them; it divides world_size."""

    @property
    def data_rank(self) -> int:
        """Return which rows this rank takes, counted among those that take others."""
        return self.rank // self.sequence_parallel

    @property
    def data_size(self) -> int:
        """Return how many parts of a batch's rows there are, each of one rank or a group."""
        return self.world_size // self.sequence_parallel

    @property
    def counts_rows(self) -> bool:
        """Return whether this rank is the one of its group that counts what its rows are."""
        return self.rank % self.sequence_parallel == 0

    @property
    def workers(self) -> int:
        """Return how many processes this one may start, so that the machine's cores are in use."""
        return max(1, (os.cpu_count() or 1) // self.num_local)

    @property
    def is_first(self) -> bool:
        """Return whether this is the rank that writes."""
        return self.rank == 0

    def all_reduce_sum(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum over all ranks of a float64 tensor on the CPU."""
        if self.world_size > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def all_gather(self, text: str) -> list[str]:
        """Return the text of each rank, in order."""
        if self.world_size == 1:
            return [text]
        data = _bytes(text)
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.world_size)]
        dist.all_gather(sizes, torch.tensor([len(data)]))
        longest = max(int(size) for size in sizes)
        padded = torch.zeros(longest, dtype=torch.uint8)
        padded[: len(data)] = data
        found = [torch.zeros_like(padded) for _ in range(self.world_size)]
        dist.all_gather(found, padded)
        return [_text(one[: int(size)]) for one, size in zip(found, sizes, strict=True)]

    def first_says(self, text: str) -> str:
        """Return the text of the first rank."""
        if self.world_size == 1:
            return text
        data = _bytes(text)
        size = torch.tensor([len(data)])
        dist.broadcast(size, 0)
        data = data if self.is_first else torch.zeros(int(size), dtype=torch.uint8)
        dist.broadcast(data, 0)
        return _text(data)

    def together(self, work: Callable[[], T]) -> T:
        """Return what `work` gives on this rank, once it is done on all, however long that takes.

        Where it raises ValueError or OSError on any rank, every rank stops: the first one that
        failed with its own error, the others by PeerFailure.
        """
        if self.world_size == 1:
            return work()
        # A thread works, so that this one can tell the others that it does: a collective that
        # nobody answers in time would end them.
        with ThreadPoolExecutor(1, initializer=self._take_gpu) as thread:
            job = thread.submit(work)
            while BUSY in (states := self.all_gather(self._state(job))):
                pass
        if FAILED in states and states.index(FAILED) != self.rank:
            raise PeerFailure(2)
        return job.result()

    def _take_gpu(self) -> None:
        """Let a thread work on this process's GPU: a new one begins on the machine's first."""
        if torch.cuda.is_available():
            torch.cuda.set_device(self.local_rank)

    def _state(self, job: Future) -> str:
        wait([job], self.patience_s)
        if not job.done():
            return BUSY
        return FAILED if isinstance(job.exception(), (ValueError, OSError)) else DONE

    def in_turn(self, work: Callable[[], T]) -> T:
        """Return what `work` gives on this rank: the first rank calls it, then the first of each
        machine, then all others, so that they find in a cache what it took. Errors are as those of
        `together`.
        """
        turn = 0 if self.is_first else 1 if self.local_rank == 0 else 2
        found: list[T] = []
        for now in range(3):
            mine = now == turn
            self.together(lambda: found.append(work()) if mine else None)  # noqa: B023  it is awaited
        return found[0]


def _bytes(text: str) -> torch.Tensor:
    """Return a text, which may hold names of files of any bytes, as uint8."""
    content = np.frombuffer(text.encode(errors="surrogateescape"), np.uint8)
    return torch.from_numpy(content.copy())


def _text(data: torch.Tensor) -> str:
    return data.numpy().tobytes().decode(errors="surrogateescape")


def connect(timeout_s: float) -> Ranks:
    """Return this process among those that were launched with it; alone where it was not.

    Waits `timeout_s` seconds for the others, and as long for any answer later on. Raises ValueError
    where they do not meet, or where there are fewer GPUs than processes.
    """
    if "RANK" not in os.environ:
        return Ranks()
    rank, world_size, local_rank = (int(os.environ[name]) for name in LAUNCHED)
    if torch.cuda.is_available():
        gpus = torch.cuda.device_count()
        if local_rank >= gpus:
            raise ValueError(
                f"process {local_rank + 1} of a machine with {gpus} GPUs: launch {gpus}"
            )
        torch.cuda.set_device(local_rank)
    if world_size > 1 and not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        began = time.monotonic()
        try:
            dist.init_process_group(backend, timeout=timedelta(seconds=timeout_s))
        except (RuntimeError, ValueError) as error:
            raise ValueError(
                f"rank {rank} of {world_size} did not meet the others at "
                f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')} within "
                f"{time.monotonic() - began:.0f} s: {error}"
            ) from error
    num_local = int(os.environ.get("LOCAL_WORLD_SIZE") or max(1, torch.cuda.device_count()))
    return Ranks(rank, world_size, local_rank, num_local, min(Ranks.patience_s, timeout_s / 4))


def connect_alone() -> None:
    """Let a process that was not launched with others have a process group of its own: engines
    that shard ask for one.
    """
    if not dist.is_initialized():
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
