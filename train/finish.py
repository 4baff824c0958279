"""Write a run's checkpoint as a bundle, a few megabytes at a time.

No rank needs the whole model in memory, and training need not stop: what is sampled or evaluated
beside a run begins here.
"""

from collections.abc import Iterator
from functools import partial
from math import prod
from pathlib import Path

import torch

from unimodal.bundle import MAX_SHARD_BYTES, BundleContents, write_bundle
from unimodal.tensors import CHUNK_BYTES, PlannedTensor, as_bytes
from unimodal.unified import parameter_shapes

from .checkpoint import Checkpoint
from .lora import Merge, kept

DTYPE = "BF16"  # of weights at rest


def finish(
    output: Path, checkpoint: Checkpoint, contents: BundleContents, merge: Merge | None = None
) -> Path:
    """Write the bundle of a checkpoint, its averaged weights where it has some, and return its
    directory.

    `merge` has the weights that the run did not train; None: it trained all.
    """
    planned = [
        PlannedTensor(name, DTYPE, shape, partial(_chunks, checkpoint, name, merge))
        for name, shape in parameter_shapes(contents.config.architecture).items()
    ]
    write_bundle(output, contents, planned, lambda done, total: None, MAX_SHARD_BYTES)
    return output


def _chunks(checkpoint: Checkpoint, name: str, merge: Merge | None) -> Iterator[bytes]:
    if name not in checkpoint.shapes:
        assert merge is not None, f"the run trains {name}"
        for block in merge.blocks(checkpoint, name):
            yield as_bytes(block, DTYPE)
        return
    kind = kept(checkpoint, name)
    numel, block_numel = prod(checkpoint.shapes[name]), CHUNK_BYTES // torch.float32.itemsize
    for start in range(0, numel, block_numel):
        stop = min(start + block_numel, numel)
        yield as_bytes(checkpoint.read(name, kind, start, stop), DTYPE)
