"""Write a run's checkpoint as a bundle, a few megabytes at a time.

No rank needs the whole model in memory, and training need not stop: what is sampled or evaluated
beside a run begins here. A weight at rest has the dtype that it had in the bundle which the run
began from, and what was not trained is copied byte by byte.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from unimodal.architecture import Architecture
from unimodal.bundle import MAX_SHARD_BYTES, ROOM_BYTES, BundleContents, copied_tensor, write_bundle
from unimodal.tensors import BYTES, CHUNK_BYTES, DTYPES, PlannedTensor, StoredTensor, as_bytes
from unimodal.unified import parameter_shapes

from .checkpoint import Checkpoint
from .initial import EMBEDDING
from .lora import Merge, kept

DTYPE = "BF16"  # of weights at rest where a run began from none
Base = Mapping[str, StoredTensor]
"""Where the weights lie that a run began from, by name; none where it began from scratch."""


def finish(
    output: Path,
    checkpoint: Checkpoint,
    contents: BundleContents,
    base: Base,
    merge: Merge | None = None,
) -> Path:
    """Write the bundle of a checkpoint, its averaged weights where it has some, and return its
    directory.

    `merge` adds the adapters of a run that trained them; None: it trained all.
    """
    planned = [
        _planned(name, shape, checkpoint, base, merge)
        for name, shape in parameter_shapes(contents.config.architecture).items()
    ]
    write_bundle(output, contents, planned, lambda done, total: None, MAX_SHARD_BYTES)
    return output


def bundle_bytes(shape: Architecture, base: Base) -> int:
    """Return the bytes that the bundle of such a model needs on the disk."""
    sizes = parameter_shapes(shape)
    return ROOM_BYTES + sum(prod(size) * BYTES[_dtype(name, base)] for name, size in sizes.items())


def _dtype(name: str, base: Base) -> str:
    """Return a weight's dtype at rest; one that the base lacks joins its embedding, if it has one:
    the base of a run from scratch is no more than a vision tower.
    """
    if name in base:
        return base[name].dtype
    return base[EMBEDDING].dtype if EMBEDDING in base else DTYPE


def _planned(
    name: str, shape: tuple[int, ...], checkpoint: Checkpoint, base: Base, merge: Merge | None
) -> PlannedTensor:
    dtype = _dtype(name, base)
    if name in checkpoint.shapes:
        return PlannedTensor(name, dtype, shape, partial(_trained, checkpoint, name, dtype))
    assert merge is not None or name in base, f"the run trains {name}"
    if merge is None or not merge.changes(checkpoint, name):
        return copied_tensor(name, base[name])
    return PlannedTensor(name, dtype, shape, partial(_merged, checkpoint, name, dtype, merge))


def _trained(checkpoint: Checkpoint, name: str, dtype: str) -> Iterator[bytes]:
    kind = kept(checkpoint, name)
    numel, block_numel = prod(checkpoint.shapes[name]), CHUNK_BYTES // torch.float32.itemsize
    for start in range(0, numel, block_numel):
        stop = min(start + block_numel, numel)
        yield _at_rest(name, checkpoint.read(name, kind, start, stop), dtype)


def _merged(checkpoint: Checkpoint, name: str, dtype: str, merge: Merge) -> Iterator[bytes]:
    for block in merge.blocks(checkpoint, name):
        yield _at_rest(name, block, dtype)


def _at_rest(name: str, block: Tensor, dtype: str) -> bytes:
    """Return the bytes of a part of a weight. Raises ValueError where it has a number that is
    infinite in this dtype, or no number.
    """
    narrow = block.to(DTYPES[dtype])
    if not torch.isfinite(narrow).all():
        raise ValueError(
            f"{name} has a weight of {float(block.abs().max()):.4g}, which {dtype} cannot hold, "
            "the dtype of the bundle that the run began from: begin from the same one in float32 "
            "or bfloat16; the run's checkpoints are whole"
        )
    return as_bytes(narrow, dtype)
