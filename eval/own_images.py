"""What an image tokenizer keeps of images of one's own.

In: a tokenizer, and images: files, folders of files, or shards. Out: PSNR, SSIM and the usage of
codes with intervals, and one prediction an image. Images of shards may have labels: values of their
sample's .json.

Images are read as training reads them (resized to buckets or as they are), in the order of names
and of shards, up to a number of them. Those that cannot be used are left out, and too many of them
are an error.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from unimodal.data import codes_member
from unimodal.data.formats import SampleError
from unimodal.data.image_members import is_image, natural
from unimodal.data.lengths import Bad
from unimodal.data.quarantine import Quarantine
from unimodal.data.remote import local_shards
from unimodal.data.rows import sized
from unimodal.data.sample import Sample
from unimodal.data.shards import Shard
from unimodal.data.sizes import ImageRule
from unimodal.document import StoredFile
from unimodal.tokenizer.saved import SavedTokenizer

from .intervals import mean
from .pixel_file import PixelFile
from .reconstruction import psnr, ssim
from .report import Cell, progress
from .round_trip import RoundTrip
from .tokenizer import worst

CENTRE = (0.5, 0.5)
Stored = tuple[str, str, StoredFile, Sample | None]
"""Where an image file is, what it is called there, its content, and its sample."""


@dataclass
class OwnImages:
    """Images that were read, and what was not."""

    names: list[str] = field(default_factory=list)
    pixels: PixelFile = field(default_factory=PixelFile)
    """Each uint8 (H, W, 3)."""
    labels: list[dict[str, str | None]] = field(default_factory=list)
    """What its sample's .json says of each under the keys that were asked for, as text."""
    bad: list[Bad] = field(default_factory=list)
    unused: Counter[str] = field(default_factory=Counter)
    """Files of folders that are no images, by suffix."""
    digest: str = ""
    """SHA-256 of all that was read, in order."""

    def line(self) -> str:
        """Say what was used, left out and bad."""
        unused = ", ".join(f"{suffix or 'no suffix'} {n:,}" for suffix, n in self.unused.items())
        return (
            f"used: {len(self.pixels):,} images; left out: {unused or 'none'}; "
            f"bad: {len(self.bad):,}"
        )


def read_images(
    paths: Sequence[Path], samples: int, rule: ImageRule | None, tokenizer: SavedTokenizer,
    bad_share: float, keys: Sequence[str] = (),
) -> OwnImages:  # fmt: skip
    """Read the first images of these files, folders and shards, so many that can be used, and what
    their samples' .json says under `keys`.

    ShardError (a ValueError) when more than `bad_share` of them cannot be used, or none is there.
    """
    found, digest = OwnImages(), hashlib.sha256()
    quarantine = Quarantine(None, bad_share, "--bad-share")
    stored = (one for path in paths for one in _stored(path, found.unused))
    for place, name, file, sample in stored:
        if len(found.pixels) == samples:
            break
        if codes_member.is_codes(file.name):
            found.unused[codes_member.EXTENSION] += 1
            continue
        digest.update(file.content)
        try:
            pixels = _pixels(file, rule, tokenizer)
            labels = {key: _label(sample, key) for key in keys}
        except SampleError as error:
            found.bad.append(Bad(place, name, error.reason, str(error)))
            quarantine.add_read(found.bad[-1:], len(found.pixels) + len(found.bad))
            continue
        found.names.append(name)
        found.pixels.append(pixels)
        found.labels.append(labels)
    quarantine.settle(len(found.pixels) + len(found.bad))
    if not found.pixels:
        raise ValueError(f"no images in {', '.join(map(str, paths))}: {found.line()}")
    found.digest = digest.hexdigest()
    return found


def _label(sample: Sample | None, key: str) -> str | None:
    value = None if sample is None else sample.fields.get(key)
    return value if value is None or isinstance(value, str) else json.dumps(value)


def _pixels(file: StoredFile, rule: ImageRule | None, tokenizer: SavedTokenizer) -> np.ndarray:
    pixels = sized(file, rule, CENTRE, mirror=False).pixels
    assert pixels is not None, "files of codes are left out"
    try:
        tokenizer.geometry.grid_of(*pixels.shape[:2])
    except ValueError as error:
        raise SampleError("bad image", f"{error}; give --target-pixels") from error
    return pixels


def _stored(path: Path, unused: Counter[str]) -> Iterator[Stored]:
    """Yield the image files of a path."""
    if path.is_dir() and not any(path.glob("*.tar")):
        files = (file for file in path.rglob("*") if file.is_file())
        for file in sorted(files, key=lambda file: natural(str(file.relative_to(path)))):
            stored = _stored_file(file)
            if is_image(file.name, stored.content):
                yield str(path), str(file.relative_to(path)), stored, None
            else:
                unused[file.suffix] += 1
    elif path.is_file() and path.suffix != ".tar":
        yield str(path.parent), path.name, _stored_file(path), None
    else:
        yield from _of_shards(path)


def _stored_file(path: Path) -> StoredFile:
    return StoredFile(path.read_bytes(), path.suffix.removeprefix("."))


def _of_shards(path: Path) -> Iterator[Stored]:
    for shard in map(Shard, local_shards(str(path))):
        for sample in map(shard.sample, range(len(shard))):
            for name in sample.image_files:
                stored = StoredFile(sample.files[name], name)
                yield str(shard.path), f"{sample.key}.{name}", stored, sample


def image_report(names: Sequence[str], trip: RoundTrip) -> dict[str, Any]:
    """Return scores, code usage and predictions of images that went through a tokenizer; those of
    codes alone where nothing came back.
    """
    if not trip.images:
        return {"scores": trip.code_scores(), "usage": trip.usage(), "predictions": []}
    predictions = [
        _judged(name, trip.originals[number], trip.images[number])
        for number, name in enumerate(progress(names, "comparing"))
    ]
    similar = [p["ssim"] for p in predictions if p["ssim"] is not None]
    return {
        "scores": {
            "psnr_db": mean([p["psnr_db"] for p in predictions]),
            "ssim": mean(similar),
            **trip.code_scores(),
        },
        **({"usage": trip.usage()} if trip.codes else {}),
        "predictions": predictions,
    }


def _judged(name: str, original: np.ndarray, image: np.ndarray) -> dict[str, Any]:
    height, width = original.shape[:2]
    return {
        "name": name,
        "width": width,
        "height": height,
        "psnr_db": psnr(original, image),
        "ssim": ssim(original, image),
    }


def image_cells(trip: RoundTrip, predictions: Sequence[dict[str, Any]], count: int) -> list[Cell]:
    """Return a cell for each of the worst reconstructions, beside its original, with PSNR."""
    return [
        Cell(
            (trip.originals[number], trip.images[number]),
            f"{predictions[number]['name']}, {predictions[number]['psnr_db']:.1f} dB",
        )
        for number in worst(predictions, count)
    ]
