"""Crops of the photographs and figures in shards, any of them by its number.

In: paths of shards of any sample format. Out: uint8 crops. Each process indexes the shards once and
decodes what it needs, a JPEG at about the size that is wanted.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from unimodal.tokenizer.pixels import ImageError, image_size, open_image

from .. import codes_member
from ..identity import file_hash
from ..shards import Shard, is_shard

LEAST_SIDE = 32  # pixels; smaller images are left out
SMALLEST_CROP = 0.25  # of the shorter side


class Photos:
    """The images of some shards; ValueError where there are none."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._shards = [Shard(path) for path in paths]
        self._places = [
            (shard, number, name)
            for shard in self._shards
            for number in range(len(shard))
            for name in _images(shard, number)
        ]
        if not self._places:
            raise ValueError(
                f"no image of at least {LEAST_SIDE} pixels in {', '.join(map(str, paths))}"
            )

    def __len__(self) -> int:
        return len(self._places)

    def crop(self, rng: np.random.Generator, side: int) -> np.ndarray:
        """Draw a square of any image, reduced to uint8 (side, side, 3)."""
        shard, number, name = self._places[rng.integers(len(self._places))]
        sample = shard.sample(number)
        image = open_image(sample.files[name], cover=(2 * side, 2 * side)).image
        short = min(image.size)
        crop = max(1, round(short * rng.uniform(SMALLEST_CROP, 1)))
        left, top = (int(v) for v in rng.integers(0, np.array(image.size) - crop + 1))
        return np.asarray(image.resize((side, side), box=(left, top, left + crop, top + crop)))


@cache
def photos_of(paths: tuple[Path, ...]) -> Photos:
    """Return the images of these shards, indexed once a process."""
    return Photos(paths)


def photo_paths(words: Sequence[str]) -> list[Path]:
    """Return the shards that paths and patterns name, sorted; ValueError where one names none."""
    found: set[Path] = set()
    for word in words:
        path = Path(word)
        paths = path.iterdir() if path.is_dir() else path.parent.glob(path.name)
        shards = [one for one in paths if is_shard(one.name)]
        if not shards:
            raise ValueError(f"--photos {word}: there is no shard; give shards or their folder")
        found.update(shards)
    return sorted(found)


def photo_hash(paths: Sequence[Path]) -> str:
    """Return what tells other photographs from these."""
    return "+".join(file_hash(path)[:12] for path in paths)


def _images(shard: Shard, number: int) -> list[str]:
    """Return the names of the images of a sample that can be opened and are not small."""
    files = shard.sample(number)
    return [
        name
        for name in files.image_files
        if not codes_member.is_codes(name) and _is_usable(files.files[name])
    ]


def _is_usable(content: bytes) -> bool:
    try:
        return min(image_size(content)) >= LEAST_SIDE
    except ImageError:
        return False
