"""The images of shards: which there are, where each lies, and the size that it will have.

In: shards of any sample format, or of images alone, and the rule by which images are resized. Out:
an `ImageIndex`. Words are not looked at: every image file of every sample counts.

Each shard is measured once for its contents and the rule, from the headers of its images; what was
found is kept in the cache (see lengths.py). Costs 0.1 ms an image and core.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from unimodal.tokenizer.codec import Geometry
from unimodal.tokenizer.pixels import ImageError, image_size

from . import codes_member as codes
from .formats import Sample, SampleError
from .found import FoundShards
from .identity import file_hash
from .joined import Together, joined
from .lengths import Bad
from .shards import Shard
from .sizes import ImageRule, bucket
from .tables import Found, Measure, Part, mapped
from .tar import Fault, ShardError

VERSION = 2  # of what is written below
NO_IMAGES, CODES = "samples without images", "images that are codes"  # what is left out,
HIDDEN = "hidden files"  # and those, which are no members of a sample
IMAGE = np.dtype(
    [("shard", "<u4"), ("start", "<u8"), ("stop", "<u8"), ("number", "<u4"), ("width", "<u4"),
     ("height", "<u4")]
)  # fmt: skip
"""The bytes of an image's sample in its shard, its number among the sample's image files, and the
pixels that it will have."""


@dataclass(frozen=True)
class ImageIndex:
    """The images of a list of shards."""

    shards: tuple[bytes, ...]
    """Paths."""
    images: np.ndarray
    """IMAGE (n,)."""
    bad: list[Bad]
    """Images that cannot be used, and faults of tars."""
    notes: Counter[str]
    """Counts: "samples", and what is left out."""


@dataclass(frozen=True)
class ImageMeasure:
    """All that decides which images can be used, and at what size."""

    rule: ImageRule | None
    """How images are resized; None: not at all, and their sides are multiples of the patch."""
    geometry: Geometry

    @property
    def settings(self) -> dict[str, Any]:
        """Return these settings as plain values."""
        # Without a rule the default size is the only one of a codec that takes no other.
        size = self.geometry.size_of(self.geometry.default_grid) if self.rule is None else None
        rule = asdict(self.rule) if self.rule is not None else None
        return {"version": VERSION, "patch": self.geometry.patch, "size": size, "images": rule}

    @property
    def measure(self) -> Measure:
        """Return it as a measure of tables."""
        key = json.dumps(self.settings, sort_keys=True)
        return Measure("images", key, {"images": IMAGE}, partial(_found, self), self.settings)

    def size(self, content: bytes) -> tuple[int, int]:
        """Return (width, height) that an image file will have; ValueError where it cannot be used.

        Its header alone is read.
        """
        size = image_size(content)
        if self.rule is not None:
            return bucket(size, self.rule)
        try:
            self.geometry.grid_of(size[1], size[0])
        except ValueError as error:
            raise ValueError(f"{error}; set `images`") from error
        return size


def index_images(paths: Sequence[Path], measure: ImageMeasure, workers: int = 1) -> ImageIndex:
    """Return the images of these shards, from the cache as far as it is there.

    `workers` processes measure what is not. ShardError when a shard cannot be read, or when none
    holds an image that can be used.
    """
    hashes = tuple(file_hash(path) for path in paths)
    found = FoundShards(tuple(path.absolute() for path in paths), hashes)
    return images_of(found, measure, Together(workers=workers))


def images_of(found: FoundShards, measure: ImageMeasure, crew: Together) -> ImageIndex:
    """Return the images of these shards as `index_images` does; all processes that measure together
    call it.
    """
    folder = joined(found, measure.measure, crew)
    bad = [Bad(**entry | {"shard": str(found.paths[entry["shard"]])}) for entry in Part(folder).bad]
    notes = Counter(json.loads((folder / "notes.json").read_text()))
    images = mapped(folder / "images.npy")
    index = ImageIndex(tuple(map(os.fsencode, found.paths)), images, bad, notes)
    if not len(images):
        raise ShardError(_nothing(index, found.paths))
    return index


def _found(measure: ImageMeasure, path: Path) -> Found:
    """Measure a shard."""
    faults: list[Fault] = []
    shard = Shard(path, faults)
    bad = [{"key": f.key or "", "reason": f.reason, "message": f.message} for f in faults]
    notes = Counter({"samples": len(shard) + len(faults), HIDDEN: shard.num_hidden})
    rows = list(_rows(shard, measure, bad, notes))
    return Found({"images": np.array(rows, IMAGE)}, bad, notes)


def _rows(
    shard: Shard, measure: ImageMeasure, bad: list[dict[str, str]], notes: Counter[str]
) -> Iterator[tuple[int, ...]]:
    """Yield a row of the table for each image of a shard; note what is bad or left out."""
    for number in range(len(shard)):
        sample = shard.sample(number)
        names = sample.image_files
        notes[NO_IMAGES] += not names
        for at, name in enumerate(names):
            if codes.is_codes(name):
                notes[CODES] += 1
                continue
            try:
                size = measure.size(sample.files[name])
            except (ImageError, ValueError) as error:
                message = f".{name}: {error}"
                bad.append({"key": sample.key, "reason": "bad image", "message": message})
                continue
            yield (0, *shard.ranges_n2[number].tolist(), at, *size)


def image_file(sample: Sample, number: int) -> tuple[bytes, str]:
    """Return content and name of an image of a sample, by its number among the image files."""
    try:
        name = sample.image_files[number]
    except IndexError as error:
        raise SampleError("missing member", f"there is no image {number}") from error
    return sample.files[name], name


def _nothing(found: ImageIndex, paths: Sequence[Path]) -> str:
    counts = ", ".join(f"{count:,} {what}" for what, count in found.notes.items() if count)
    first = found.bad[0] if found.bad else None
    why = f"; the first bad one: key {first.key}: {first.message}" if first else ""
    return f"no images to learn from in {paths[0].parent} ({counts}, {len(found.bad):,} bad){why}"
