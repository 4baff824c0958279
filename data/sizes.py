"""The size at which a image is read: aspect-ratio buckets of one area.

In: a image of any size. Out: the same as RGB pixels of a bucket: sides are multiples of the
tokenizer's patch, the area is about the rule's, and as little is cropped as the buckets allow.

1. `buckets` are all sizes whose area comes nearest to the rule's for their height, up to its
max_aspect_ratio
   aspect ratio.
2. A image goes to the bucket whose aspect ratio is nearest to its own (in logarithms: twice as
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

SIDES = re.compile(r"\b(left|right|clockwise|counterclockwise|anticlockwise)\b", re.IGNORECASE)


@dataclass(frozen=True)
class ImageRule:
    """How large images are read, and how they are varied."""

    target_pixels: int = 64 * 64
    """Pixels of a image, about."""
    multiple: int = 8
    """Both sides are multiples of it: the tokenizer's patch."""
    max_aspect_ratio: float = 1.0
    """The largest ratio of the longer to the shorter side; 1: squares alone."""
    min_side: int = 8
    """Pixels of the shorter side below which a image is not used: it would be mostly blur."""
    random_crop: bool = False
    """Crop anywhere instead of around the centre."""
    flip: float = 0.0
    """Chance of mirroring a image, where no word beside it tells left from right."""

    def problems(self) -> list[str]:
        """What is wrong with the values, one sentence each."""
        found = []
        if self.multiple < 1 or self.target_pixels < self.multiple**2:
            found.append(
                f"target_pixels {self.target_pixels}: one square of {self.multiple} a side"
            )
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
    """The rule that reads any image at about the area of a model's canvas (width, height), or at
    another one.
    """
    return ImageRule(target_pixels or canvas[0] * canvas[1], patch, max_aspect_ratio)


def patch_problems(rule: ImageRule | None, patch: int) -> list[str]:
    """What is wrong with a rule for images of a tokenizer with this patch, in words."""
    if rule is None or rule.multiple % patch == 0:
        return []
    return [f"images.multiple {rule.multiple}: a multiple of the tokenizer's patch, {patch}"]


@lru_cache
def buckets(rule: ImageRule) -> tuple[tuple[int, int], ...]:
    """(width, height) of every bucket, max_aspect_ratio first."""
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
    """The bucket of a image of (width, height); ValueError when it is smaller than the rule
    allows.
    """
    if min(size) < rule.min_side:
        raise ValueError(f"{size[0]} x {size[1]} pixels: the shorter side needs {rule.min_side}")
    ratio = math.log(size[0] / size[1])
    return min(buckets(rule), key=lambda found: abs(math.log(found[0] / found[1]) - ratio))


def tells_sides(text: str) -> bool:
    """Whether a mirrored image would make the text wrong."""
    return SIDES.search(text) is not None


def may_mirror(document: Document) -> bool:
    """Whether no text of the document tells left from right."""
    return not any(isinstance(part, Text) and tells_sides(part.text) for part in document.parts)


def fitted(
    image: Image.Image, size: tuple[int, int], at: tuple[float, float] = (0.5, 0.5)
) -> np.ndarray:
    """The RGB image resized (antialiased) to cover (width, height) and cropped, uint8 (height,
    width, 3); `at`: which part a crop keeps, 0 to 1 from left to right and from top to bottom.
    """
    return np.asarray(ImageOps.fit(image, size, method=Image.Resampling.BICUBIC, centering=at))
