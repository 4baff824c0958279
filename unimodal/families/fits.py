"""Fits resize the images that published models are given, as their authors do."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from PIL import Image as PILImage

from unimodal.tokenizer.pixels import ImageError

BICUBIC = PILImage.Resampling.BICUBIC
WIDEST = 64  # of a CropFit, in shorter sides: all of an image is resized before it is cropped


@dataclass(frozen=True)
class AreaFit:
    """An AreaFit keeps an image's shape and brings its area between two bounds (Emu3)."""

    least: int
    """The least pixels, unless rounding to `multiple` leaves fewer; `most`: the most."""
    most: int
    multiple: int
    """Both sides become multiples of this many pixels."""
    widest: float
    """The longer side is at most this many times the shorter."""
    kind: Literal["area"] = "area"

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        """Return (width, height) of what an image of so many pixels becomes.

        It is the rule `smart_resize` of Emu3's authors. Raise ImageError for one that is too long.
        """
        _check_shape(width, height, self.widest)
        scale = 1.0
        rounding: Callable[[float], int] = round
        area = math.prod(round(side / self.multiple) * self.multiple for side in (width, height))
        if area > self.most:
            scale, rounding = math.sqrt(self.most / (width * height)), math.floor
        elif area < self.least:
            scale, rounding = math.sqrt(self.least / (width * height)), math.ceil
        sides = [rounding(side * scale / self.multiple) for side in (width, height)]
        return max(1, sides[0]) * self.multiple, max(1, sides[1]) * self.multiple

    def __call__(self, image: PILImage.Image) -> PILImage.Image:
        """Return the image resized."""
        size = self.size_of(*image.size)
        return image if image.size == size else image.resize(size, BICUBIC)


@dataclass(frozen=True)
class PadFit:
    """A PadFit brings the longer side to `side` pixels and pads to a square (Janus)."""

    side: int
    background: int = 127  # of 255 in each channel: int(0.5 * 255)
    least: int = 14
    """The least pixels of the shorter side before the padding."""
    kind: Literal["pad"] = "pad"

    def __call__(self, image: PILImage.Image) -> PILImage.Image:
        """Return a square image, with what was given in its middle."""
        longest = max(image.size)
        # Janus' authors cut the fraction of a pixel off; transformers rounds it.
        width, height = (max(int(s / longest * self.side), self.least) for s in image.size)
        resized = image if image.size == (width, height) else image.resize((width, height), BICUBIC)
        square = PILImage.new("RGB", (self.side, self.side), (self.background,) * 3)
        square.paste(resized, ((self.side - width) // 2, (self.side - height) // 2))
        return square


@dataclass(frozen=True)
class CropFit:
    """A CropFit brings the shorter side to `side` pixels and crops to a square (Chameleon)."""

    side: int
    kind: Literal["crop"] = "crop"

    def __call__(self, image: PILImage.Image) -> PILImage.Image:
        """Return the middle of the image, a square; raise ImageError for one that is too long."""
        _check_shape(*image.size, WIDEST)
        scale = self.side / min(image.size)
        width, height = (round(scale * side) for side in image.size)
        left, top = (width - self.side) // 2, (height - self.side) // 2
        resized = image.resize((width, height), PILImage.Resampling.LANCZOS)
        return resized.crop((left, top, left + self.side, top + self.side))


def _check_shape(width: int, height: int, widest: float) -> None:
    """Raise ImageError where the longer side is more than `widest` times the shorter."""
    if max(width, height) > widest * min(width, height):
        raise ImageError(
            f"an image of {width} x {height} pixels is too long: this model takes up to "
            f"{widest:g} times as long as wide; crop it first"
        )


Fit = AreaFit | PadFit | CropFit
