"""A set of images, opened one at a time.

In: a folder (with all below it), GenEval's folder of drawings, a shard, or a folder of shards. Out:
the images in the natural order of their names; uint8 (H, W, 3) each, of any sizes.

An image that is broken is an error: a set without it would be another set, and its numbers too.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from unimodal.data import codes_member
from unimodal.data.image_members import is_image, natural
from unimodal.data.remote import local_shards
from unimodal.data.shards import Shard
from unimodal.tokenizer.pixels import ImageError, open_image
from unimodal.tokenizer.signatures import HEAD_BYTES

from ..geneval.folder import SAMPLES, read_folder

FIRST_PROMPT = "00000"


@dataclass(frozen=True, eq=False)
class Picture:
    """An image by its name; `read` returns the bytes of its file."""

    name: str
    read: Callable[[], bytes]
    home: str | None = None
    """The folder that the name is of, for errors."""

    def open(self) -> tuple[np.ndarray, str]:
        """Return its pixels, and the SHA-256 (hex) of its file; ImageError names one that is
        broken.
        """
        content = self.read()
        try:
            return np.asarray(open_image(content).image), hashlib.sha256(content).hexdigest()
        except ImageError as error:
            place = self.name if self.home is None else f"{self.home}/{self.name}"
            raise ImageError(f"{place}: {error}") from error


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images, and the name of the folder or shard that they are from."""

    name: str
    pictures: tuple[Picture, ...]

    def __len__(self) -> int:
        return len(self.pictures)

    @classmethod
    def of(cls, path: Path) -> "ImageSet":
        """Return the images of a path; ValueError where there are none."""
        found = tuple(_pictures(path))
        if not found:
            raise ValueError(f"no images in {path}: give a folder of images, or shards")
        return cls(path.resolve().name, found)


def _pictures(path: Path) -> Iterator[Picture]:
    if (path / FIRST_PROMPT / SAMPLES).is_dir():
        for id, _, file in read_folder(path).images():  # without the grids beside them
            yield Picture(id, file.read_bytes, str(path))
    elif path.is_dir() and not any(path.glob("*.tar")):
        files = [file for file in path.rglob("*") if file.is_file() and _is_image(file)]
        names = {str(file.relative_to(path)): file for file in files}
        for name in sorted(names, key=natural):
            yield Picture(name, names[name].read_bytes, str(path))
    else:
        yield from _of_shards(path)


def _is_image(file: Path) -> bool:
    with file.open("rb") as stream:
        head = stream.read(HEAD_BYTES)
    return not codes_member.is_codes(file.name) and is_image(file.name, head)


def _of_shards(path: Path) -> Iterator[Picture]:
    for shard in map(Shard, local_shards(str(path))):
        for number in range(len(shard)):
            for member in shard.sample(number).image_files:
                if not codes_member.is_codes(member):
                    name = f"{shard.path.name}/{shard.key(number)}.{member}"
                    read = partial(_member, shard, number, member)
                    yield Picture(name, read, str(shard.path.parent))


def _member(shard: Shard, number: int, member: str) -> bytes:
    return shard.sample(number).files[member]
