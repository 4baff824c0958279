"""Choose the size at which an image is read: aspect-ratio buckets of equally many pixels.

In: an image of any size. Out: the same as RGB pixels of a bucket: its sides are multiples of the
tokenizer's patch, its pixels are about `target_pixels`, and as little is cropped as the buckets
allow.

1. `buckets` are all sizes whose pixels come nearest to `target_pixels` for their height, up to
   `max_aspect_ratio`.
2. An image goes to the bucket whose aspect ratio is nearest to its own (in logarithms: twice as
   wide is as far as twice as high), is resized (antialiased) to cover it, and cropped.
3. Where the crop lies and whether the images are mirrored is decided by chance, keyed by the
   sample; images are never mirrored beside words that tell left from right.
"""

import math
import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageOps

from unimodal.document import Document, Text
from unimodal.tokenizer.codec import Geometry
from unimodal.tokenizer.pixels import MAX_PIXELS

SIDES = re.compile(r"\b(left|right|clockwise|counterclockwise|anticlockwise)\b", re.IGNORECASE)


@dataclass(frozen=True)
class ImageRule:
    """How images are resized and augmented."""

    target_pixels: int = 64 * 64
    """Pixels of an image (width times height), about."""
    multiple: int = 8
    """Both sides, in pixels, are multiples of it: the tokenizer's patch or a multiple of that."""
    max_aspect_ratio: float = 1.0
    """Largest ratio of the longer to the shorter side; 1: only squares."""
    min_side: int = 8
    """Pixels of the shorter side below which an image is bad: enlarged it would be mostly blur."""
    random_crop: bool = False
    """Whether to crop anywhere instead of around the centre."""
    flip: float = 0.0
    """Chance, 0 to 1, of mirroring images, where no word beside them tells left from right."""

    def problems(self) -> list[str]:
        """List what is wrong with the values, one sentence each."""
        found = []
        if self.multiple < 1:
            found.append(f"multiple {self.multiple}: at least 1")
        elif self.target_pixels < self.multiple**2:
            found.append(
                f"target_pixels {self.target_pixels}: at least one square of {self.multiple} a side"
            )
        if self.target_pixels > MAX_PIXELS:
            found.append(f"target_pixels {self.target_pixels:,}: at most {MAX_PIXELS:,}, as images")
        if not self.max_aspect_ratio >= 1:
            found.append(f"max_aspect_ratio {self.max_aspect_ratio}: at least 1")
        if self.min_side < 1:
            found.append(f"min_side {self.min_side}: at least 1")
        if not 0 <= self.flip <= 1:
            found.append(f"flip {self.flip}: from 0 to 1")
        return found


def of_canvas(
    canvas: tuple[int, int],
    patch: int,
    target_pixels: int | None = None,
    max_aspect_ratio: float = 4.0,
) -> ImageRule:
    """Return the rule that resizes any image to the pixels of a model's canvas (width, height).

    `target_pixels` takes the place of the canvas' pixels; `patch` is the tokenizer's. ValueError
    for impossible ones.
    """
    rule = ImageRule(target_pixels or canvas[0] * canvas[1], patch, max_aspect_ratio)
    if problems := rule.problems():
        raise ValueError("; ".join(problems))
    return rule


def rule_of(
    target_pixels: int | None, max_aspect_ratio: float | None, geometry: Geometry
) -> ImageRule | None:
    """Return the rule that options of a command name; None for images as they are.

    ValueError for impossible ones, by the options' names, and for sizes that the image tokenizer of
    this geometry does not read.
    """
    if target_pixels is None:
        if max_aspect_ratio is not None:
            raise ValueError(
                f"--max-aspect-ratio {max_aspect_ratio:g} shapes images of a given size: add "
                "--target-pixels PIXELS"
            )
        return None
    rule = ImageRule(target_pixels, geometry.patch, max_aspect_ratio or 1.0)
    if problems := rule.problems():
        raise ValueError("; ".join(f"--{problem.replace('_', '-')}" for problem in problems))
    for width, height in buckets(rule):
        try:
            geometry.grid_of(height, width)
        except ValueError as error:
            raise ValueError(f"--target-pixels {target_pixels}: {error}") from error
    return rule


def patch_problems(rule: ImageRule | None, patch: int) -> list[str]:
    """List what is wrong with a rule for a tokenizer with this patch, one sentence each."""
    if rule is None or rule.multiple % patch == 0:
        return []
    return [f"images.multiple {rule.multiple}: a multiple of the tokenizer's patch, {patch}"]


@lru_cache
def buckets(rule: ImageRule) -> tuple[tuple[int, int], ...]:
    """Return (width, height) of every bucket, the widest first; one square if there is none."""
    found = []
    for rows in range(1, rule.target_pixels // rule.multiple**2 + 1):
        height = rows * rule.multiple
        width = max(1, round(rule.target_pixels / height / rule.multiple)) * rule.multiple
        if max(width, height) <= rule.max_aspect_ratio * min(width, height) + 1e-9:
            found.append((width, height))
    return tuple(found) or (_square(rule),)


def _square(rule: ImageRule) -> tuple[int, int]:
    side = max(1, round(math.sqrt(rule.target_pixels) / rule.multiple)) * rule.multiple
    return side, side


def bucket(size: tuple[int, int], rule: ImageRule) -> tuple[int, int]:
    """Return the bucket (width, height) of an image of this size, in pixels.

    ValueError when its shorter side is below `min_side`.
    """
    if min(size) < rule.min_side:
        raise ValueError(f"{size[0]} x {size[1]} pixels: the shorter side needs {rule.min_side}")
    ratio = math.log(size[0] / size[1])
    return min(buckets(rule), key=lambda found: abs(math.log(found[0] / found[1]) - ratio))


def tells_sides(text: str) -> bool:
    """Return whether the text tells left from right, so that a mirrored image makes it wrong."""
    return SIDES.search(text) is not None


def may_mirror(document: Document) -> bool:
    """Return whether no text of the document, and no box, tells left from right."""
    texts = [part for part in document.parts if isinstance(part, Text)]
    return not any(text.box is not None or tells_sides(text.text) for text in texts)


def fitted(
    image: Image.Image, size: tuple[int, int], at: tuple[float, float] = (0.5, 0.5)
) -> np.ndarray:
    """Resize an RGB image (bicubic, antialiased) to cover (width, height), and crop it.

    Return uint8 (height, width, 3). `at` says what a crop keeps: 0 to 1 from left to right and from
    top to bottom.
    """
    return np.asarray(ImageOps.fit(image, size, method=Image.Resampling.BICUBIC, centering=at))
