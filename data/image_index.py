"""The images of shards: which there are, where each lies, and the size that it will have.

In: shards of any sample format, or of images alone, and the rule by which images are resized. Out:
an `ImageIndex`. Words are not looked at: every image file of every sample counts.

Each shard is measured once for its contents and the rule, from the headers of its images; what was
found is kept in the cache (see lengths.py). Costs 0.1 ms an image and core.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from unimodal.tokenizer.codec import Geometry
from unimodal.tokenizer.pixels import ImageError, image_size

from . import codes_member as codes
from .folder import shared
from .formats import Sample, SampleError
from .lengths import SMALL_BYTES, Bad, cache, file_hash, load_tables, save_tables
from .shards import Shard
from .sizes import ImageRule, bucket
from .tar import Fault, ShardError

VERSION = 1  # of what is written below
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
    def key(self) -> str:
        """Return these settings as text."""
        if self.rule is not None:
            return json.dumps([VERSION, self.geometry.patch, asdict(self.rule)], sort_keys=True)
        # The default size is the only one of a codec that takes no other.
        size = self.geometry.size_of(self.geometry.default_grid)
        return json.dumps([VERSION, self.geometry.patch, size])

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
    paths = [path.absolute() for path in paths]
    tables: list[np.ndarray] = []
    bad: list[Bad] = []
    notes: Counter[str] = Counter()
    if sum(path.stat().st_size for path in paths) < SMALL_BYTES:
        workers = 1
    with closing(shared(partial(_kept, measure), paths, workers)) as files:
        for number, (path, file) in enumerate(zip(paths, files, strict=True)):
            (images,), about = load_tables(file, 1)
            images["shard"] = number
            tables.append(images)
            bad += [Bad(str(path), **entry) for entry in about["bad"]]
            notes.update(about["notes"])
    found = ImageIndex(tuple(map(os.fsencode, paths)), np.concatenate(tables), bad, notes)
    if not len(found.images):
        raise ShardError(_nothing(found, paths))
    return found


def _kept(measure: ImageMeasure, path: Path) -> Path:
    """Measure a shard unless the cache knows it, and return the file in the cache."""
    words = f"{file_hash(path)} {measure.key}"
    file = cache() / "images" / hashlib.sha256(words.encode()).hexdigest()
    if not file.exists():
        faults: list[Fault] = []
        shard = Shard(path, faults)
        bad = [{"key": f.key or "", "reason": f.reason, "message": f.message} for f in faults]
        notes = Counter({"samples": len(shard) + len(faults), HIDDEN: shard.num_hidden})
        rows = list(_rows(shard, measure, bad, notes))
        save_tables(file, [np.array(rows, IMAGE)], {"bad": bad, "notes": notes})
    return file


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
