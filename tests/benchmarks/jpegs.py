"""Megapixel JPEGs brought to 256 x 256 pixels: scaled while decoding, against a full decode."""

import io
import math
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from unimodal.data.shards import Shard, find_shards
from unimodal.tokenizer.pixels import fit, open_image

from .inputs import Sizes
from .measured import Line, interleaved, ratios, spread

FASTER, ALIKE_DB = 2.0, 40.0  # the bars
SIDE, TARGET, QUALITY = 1024, (256, 256), 90
TILES = 3  # a side


def lines(folder: Path, sizes: Sizes) -> list[Line]:
    """Figures enlarged to a megapixel, which are smooth, and mosaics of figures as they are, which
    have detail in every pixel.
    """
    found = [figure for _, figure in zip(range(TILES**2 * 8), figures(folder), strict=False)]
    step = max(1, len(found) // sizes.images)
    enlarged = [fit(figure, (SIDE, SIDE)) for figure in found[::step][: sizes.images]]
    mosaics = [mosaic(found[at:]) for at in range(0, len(found) - TILES**2 + 1, TILES**2)]
    return [
        compared("figures enlarged", [jpeg(image) for image in enlarged], sizes.repeats),
        compared("mosaics of figures", [jpeg(image) for image in mosaics], sizes.repeats),
    ]


def compared(name: str, contents: list[bytes], repeats: int) -> Line:
    """Both ways over these JPEGs."""
    full_s, ours_s = interleaved(
        repeats,
        lambda: [full(content) for content in contents],
        lambda: [scaled(content) for content in contents],
    )
    alike = [psnr_db(scaled(content), full(content)) for content in contents]
    faster, milli = ratios(full_s, ours_s), 1e3 / len(contents)
    met = median(faster) >= FASTER and min(alike) >= ALIKE_DB
    wrong = (f"only {min(alike):.1f} dB",) if min(alike) < ALIKE_DB else ()
    return Line(
        f"JPEG of a megapixel to 256 x 256, {len(contents)} {name}",
        spread(ours_s, " ms", milli), f"Pillow {spread(full_s, ' ms', milli)}", spread(faster),
        f">= {FASTER}, >= {ALIKE_DB:.0f} dB", met,
        f"PSNR at least {min(alike):.1f}, median {median(alike):.1f} dB", wrong,
    )  # fmt: skip


def figures(folder: Path) -> Iterator[Image.Image]:
    """The figures of the textbooks that are large enough for a tile, in RGB."""
    for path in find_shards(folder):
        shard = Shard(path)
        for number in range(len(shard)):
            for name, content in shard.sample(number).files.items():
                if name.endswith("jpg"):
                    image = Image.open(io.BytesIO(content)).convert("RGB")
                    if min(image.size) >= -(-SIDE // TILES):
                        yield image


def mosaic(images: list[Image.Image]) -> Image.Image:
    """Nine images side by side, cropped and not resized."""
    side = -(-SIDE // TILES)
    whole = Image.new("RGB", (SIDE, SIDE))
    for number in range(TILES**2):
        image = images[number]
        left, top = (image.width - side) // 2, (image.height - side) // 2
        tile = image.crop((left, top, left + side, top + side))
        whole.paste(tile, (number % TILES * side, number // TILES * side))
    return whole


def jpeg(image: Image.Image) -> bytes:
    """An image as a JPEG file."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=QUALITY)
    return stream.getvalue()


def scaled(content: bytes) -> Image.Image:
    """As rows are made."""
    return fit(open_image(content, cover=TARGET).image, TARGET)


def full(content: bytes) -> Image.Image:
    """All pixels decoded, then made small."""
    return fit(Image.open(io.BytesIO(content)).convert("RGB"), TARGET)


def psnr_db(first: Image.Image, second: Image.Image) -> float:
    """Peak signal-to-noise ratio; infinite for equal images."""
    error = np.asarray(first).astype(np.float64) - np.asarray(second)
    mean = float((error**2).mean())
    return 10 * math.log10(255**2 / mean) if mean else math.inf
