"""Say whether the disk has room for all that a run will write, before its first step.

All ranks write to one file system: their parts of every checkpoint that is kept, of the one that is
being written beside them, and at the end the bundle.
"""

import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from .checkpoint import MASTER, ParameterShard, found, step_of
from .saver import steps_kept

GB = 1e9


@dataclass(frozen=True)
class Room:
    """Say what a run writes. `checkpoint_bytes` is a checkpoint of all ranks; `keep_newest` and
    `keep_every_steps` are those of LoopConfig.
    """

    checkpoint_bytes: int
    bundle_bytes: int
    keep_newest: int
    keep_every_steps: int | None

    def needed_bytes(self, there: Collection[int], coming: Collection[int]) -> int:
        """Return the bytes that it takes beside the checkpoints that are `there`, where those of
        the steps `coming` will be saved.
        """
        if not coming:
            return self.bundle_bytes
        # What goes at a save goes once that is whole: most lie there in the last one, or the first.
        before_last = {*there, *coming} - {max(coming)}
        stay = steps_kept(before_last, self.keep_newest, self.keep_every_steps)
        more = max(len(stay) - len(there), 0) + 1
        return more * self.checkpoint_bytes + self.bundle_bytes

    def check(self, run: Path, coming: Collection[int]) -> None:
        """Raise OSError where the disk of a run's folder lacks that room."""
        needed = self.needed_bytes(list(map(step_of, found(run))), coming)
        free = shutil.disk_usage(run).free
        if free < needed:
            raise OSError(
                f"{run}: the run needs {needed / GB:.2g} GB more, each checkpoint of all ranks "
                f"{self.checkpoint_bytes / GB:.2g} GB and the bundle {self.bundle_bytes / GB:.2g} "
                f"GB, and the disk has {free / GB:.2g} GB; make room, keep fewer "
                "(loop.keep_checkpoints, loop.keep_every_steps), or give another output"
            )


def steps_saved(start: int, num_steps: int, every: int) -> set[int]:
    """Return after how many steps a run from `start` on saves: every so many, and at the end."""
    last = {num_steps} if num_steps > start else set()
    return {*range(start - start % every + every, num_steps, every), *last}


def state_bytes(shards: Mapping[str, ParameterShard], averaged: bool) -> int:
    """Return the bytes of one rank's part of a checkpoint.

    Before the first step there are no moments yet: then two of each weight are counted, and an EMA
    where `averaged`, 4 bytes each.
    """
    masters = sum(shard.tensors[MASTER].numel() * 4 for shard in shards.values())
    there = sum(tensor.nbytes for shard in shards.values() for tensor in shard.tensors.values())
    return there if there > masters else masters * (4 if averaged else 3)
