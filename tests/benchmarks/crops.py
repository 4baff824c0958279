"""Square crops of figures, at the resolution that they are stored in, as shards of their own.

The textbooks have a few hundred figures each: resized, they are too few to count the usage of large
codebooks on, and figures of 64 x 64 pixels show little. Crops are cut anywhere, by a seed.
"""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from unimodal.data.remote import local_shards
from unimodal.data.shards import Shard, ShardWriter
from unimodal.tokenizer.pixels import open_image


def cut(shards: Path, folder: Path, count: int, side: int, seed: int) -> Path:
    """Write so many crops of the figures of shards, taken in turn, unless they are there; return
    their folder.
    """
    target = folder / f"{shards.stem}-{count}-{side}-{seed}"
    if target.exists():
        return target
    part = target.with_suffix(".part")
    large = [one for one in figures(shards) if min(one.size) >= side]
    if not large:
        raise ValueError(f"{shards} has no figure of {side} x {side} pixels")
    rng = np.random.default_rng(seed)
    with ShardWriter(part, max_samples=count) as writer:
        for number in range(count):
            figure = large[number % len(large)]
            left, top = (int(rng.integers(length - side + 1)) for length in figure.size)
            stream = io.BytesIO()
            figure.crop((left, top, left + side, top + side)).save(stream, "PNG", compress_level=1)
            writer.write_files(f"crop-{number:06d}", {"png": stream.getvalue()})
    part.rename(target)
    return target


def figures(shards: Path) -> Iterator[Image.Image]:
    """All images of shards, in RGB."""
    for path in local_shards(str(shards)):
        for sample in map(Shard(path).sample, range(len(Shard(path)))):
            for name in sample.image_files:
                yield open_image(sample.files[name]).image
