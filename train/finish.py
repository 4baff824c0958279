"""A run's checkpoint as a bundle, read and written a few megabytes at a time.

No rank needs the whole model in memory, and training need not stop: what is sampled or evaluated
beside a run begins here.
"""

from collections.abc import Iterator
from functools import partial
from math import prod
from pathlib import Path

import torch

from unimodal.bundle import Parts
from unimodal.grow import MOST_SHARD_BYTES, write_bundle
from unimodal.tensors import CHUNK_BYTES, Planned, as_bytes

from .checkpoint import AVERAGE, MASTER, Checkpoint

DTYPE = "BF16"  # of weights at rest


def finish(output: Path, checkpoint: Checkpoint, parts: Parts) -> Path:
    """Write the bundle of a checkpoint: its averaged weights where it has some."""
    planned = [
        Planned(name, DTYPE, shape, partial(_chunks, checkpoint, name))
        for name, shape in checkpoint.shapes.items()
    ]
    write_bundle(output, parts, planned, lambda done, total: None, MOST_SHARD_BYTES)
    return output


def _chunks(checkpoint: Checkpoint, name: str) -> Iterator[bytes]:
    kind = AVERAGE if AVERAGE in checkpoint.kinds[name] else MASTER
    numel, block = prod(checkpoint.shapes[name]), CHUNK_BYTES // torch.float32.itemsize
    for start in range(0, numel, block):
        yield as_bytes(checkpoint.read(name, kind, start, min(start + block, numel)), DTYPE)
