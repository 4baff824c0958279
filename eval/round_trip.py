"""Images through an image tokenizer and back.

In: a tokenizer, and images uint8 (H, W, 3) of any mix of sizes. Out: a `RoundTrip`: what comes back
of each, its codes, how long it took; and what follows of that alone. Without a decoder nothing
comes back, and codes alone are measured.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PILImage

from unimodal.codec import ImageCodec
from unimodal.document import Image
from unimodal.tokenizer.grid import Grid
from unimodal.tokenizer.saved import SavedTokenizer
from unimodal.transcript import save_image

from .intervals import Estimate, mean, unmeasured
from .pixel_file import PixelFile
from .report import progress
from .usage import bits_per_pixel, group_scores, group_usage

WARM = 1  # batches that are not timed, where there are more


@dataclass
class RoundTrip:
    """Images, and what came back of them."""

    tokenizer: SavedTokenizer
    originals: Sequence[np.ndarray]
    """Each uint8 (H, W, 3)."""
    images: PixelFile = field(default_factory=PixelFile)
    """What came back of each; empty without a decoder."""
    codes: list[np.ndarray] = field(default_factory=list)
    """Of each, int64 (n, G); none of a tokenizer whose images become latents."""
    latents: list[np.ndarray] = field(default_factory=list)
    """Of each, float32 (n, D); none of a tokenizer of codes."""
    grids: list[Grid] = field(default_factory=list)
    encode_s: list[float] = field(default_factory=list)
    """Seconds an image, of each batch: from pixels to codes."""
    decode_s: list[float] = field(default_factory=list)
    """Seconds an image, of each batch: from codes to pixels."""
    batch_sizes: list[int] = field(default_factory=list)

    def code_scores(self) -> dict[str, Any]:
        """Return how codes are used, and the bits of a pixel; nothing where there are none."""
        if self.tokenizer.latent_width:
            return {}
        num_codes, levels = self.tokenizer.num_codes, self.tokenizer.levels
        sizes = [image.shape[:2] for image in self.originals]
        return {
            **group_scores(self.codes, num_codes, levels),
            "bits_per_pixel": bits_per_pixel(self.codes, sizes, num_codes),
        }

    def usage(self) -> dict[str, Any]:
        """Return the usage of the codes of the group that uses least of them."""
        return group_usage(self.codes, self.tokenizer.num_codes)

    def speed(self) -> dict[str, Estimate]:
        """Return images a second with intervals over batches, but for the first one."""
        first = WARM if len(self.batch_sizes) > WARM + 1 else 0
        n = sum(self.batch_sizes[first:])
        seconds = {"encode": self.encode_s[first:], "decode": self.decode_s[first:]}
        return {f"{what}_images_per_s": _rate(spent, n) for what, spent in seconds.items() if spent}

    def write(self, folder: Path) -> None:
        """Write PNGs of the same names into `originals` and `reconstructions` of a new folder."""
        check_new(folder)
        sides = {"originals": self.originals, "reconstructions": self.images}
        for side, images in sides.items():
            for number, image in enumerate(images):
                save_image(PILImage.fromarray(image), folder / side / f"{number:06d}.png")


def round_trip(
    tokenizer: SavedTokenizer, originals: Sequence[np.ndarray], batch_size: int = 32
) -> RoundTrip:
    """Encode images, and decode them where there is a decoder, on the tokenizer's device."""
    made = RoundTrip(tokenizer, originals)
    codec = ImageCodec(tokenizer, next(iter(tokenizer.state_dict().values())).device)
    words = "encoding and decoding" if tokenizer.decodes else "encoding"
    for start in progress(range(0, len(originals), batch_size), words):
        batch = originals[start : start + batch_size]
        began = time.perf_counter()
        encoded = codec.encode([Image(pixels=pixels) for pixels in batch])
        halfway = time.perf_counter()
        made.encode_s.append((halfway - began) / len(batch))
        made.batch_sizes.append(len(batch))
        if tokenizer.decodes:
            decoded = codec.decode([replace(image, pixels=None) for image in encoded])
            made.decode_s.append((time.perf_counter() - halfway) / len(batch))
            made.images.extend(image.pixels for image in decoded if image.pixels is not None)
        made.codes += [image.codes for image in encoded if image.codes is not None]
        made.latents += [image.latents for image in encoded if image.latents is not None]
        made.grids += [image.grid for image in encoded if image.grid is not None]
    return made


def check_new(folder: Path) -> None:
    """Raise ValueError where a folder holds something already."""
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty: give a new folder for the reconstructions")


def batches(items: Sequence[Any], size: int) -> list[list[Any]]:
    """Return the items in lists of `size`, the last one shorter."""
    return [list(items[start : start + size]) for start in range(0, len(items), size)]


def _rate(seconds: Sequence[float], n: int) -> Estimate:
    """Return how many a second, of seconds for one."""
    spent = mean(seconds)
    if not spent.value:
        return unmeasured(n)
    if not spent.low or spent.low < 0 or not spent.high:
        return Estimate(1 / spent.value, None, None, n)
    return Estimate(1 / spent.value, 1 / spent.high, 1 / spent.low, n)
