"""Read a folder of image files as a shard: what learns from images alone needs no words.

In: a folder. Out: a plain tar in the cache with a sample for each image file, those of inner
folders too, in the order of their paths. It is found again by the files' paths, sizes and times of
change.
"""

import hashlib
import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

from unimodal.tokenizer.signatures import SUFFIXES

from . import remote
from .cache import cache, new
from .found import Finder
from .shards import is_shard


def image_shards(location: str) -> list[Path]:
    """Return the shards of a location, as `remote.local_shards` does, or the one that is written of
    a folder of image files; ShardError where it holds neither.
    """
    return [_fetched(place) for place in _places(location)]


def _places(location: str) -> list[str]:
    """Return where the shards of a location are: of a folder of image files, that folder."""
    return [location] if _files(Path(location)) else remote.places(location)


def _files(folder: Path) -> list[str]:
    """Return the image files of a folder without shards, in order."""
    return sorted(_images(folder)) if folder.is_dir() and not _has_shards(folder) else []


def _fetched(place: str) -> Path:
    """Return the shard of a place on this machine, which is written of a folder of image files."""
    folder = Path(place)
    files = _files(folder)
    if not files:
        return remote.fetched(place)
    shard = cache() / "folders" / _identity(folder, files) / "images.tar"
    if not shard.exists():
        with new(shard) as part:
            _write(folder, files, part)
    return shard


def _has_shards(folder: Path) -> bool:
    return any(is_shard(path.name) for path in folder.iterdir())


def _images(folder: Path) -> Iterator[str]:
    """Yield the paths inside a folder of files that are named as images are, but hidden ones."""
    for home, inner, names in os.walk(folder):
        inner[:] = [name for name in inner if not name.startswith(".")]
        below = Path(home).relative_to(folder)
        for name in names:
            if not name.startswith(".") and _suffix(name) in SUFFIXES:
                yield (below / name).as_posix()


def _suffix(name: str) -> str:
    return Path(name).suffix.lower().removeprefix(".")


def _identity(folder: Path, files: list[str]) -> str:
    told = hashlib.sha256()
    for file in files:
        status = (folder / file).stat()
        told.update(f"{file}\0{status.st_size}\0{status.st_mtime_ns}\0".encode(errors="replace"))
    return told.hexdigest()[:32]


def _write(folder: Path, files: list[str], target: Path) -> None:
    """Write a tar whose keys begin with a number and tell the file's name: keys hold no dots."""
    with tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as shard:
        for number, file in enumerate(files):
            name = re.sub(r"[^A-Za-z0-9_-]", "_", Path(file).stem)[:60]
            member = tarfile.TarInfo(f"{number:09d}_{name}.{_suffix(file)}")
            with (folder / file).open("rb") as content:
                member.size = os.fstat(content.fileno()).st_size
                shard.addfile(member, content)


IMAGE_FINDER = Finder(_places, _fetched)
