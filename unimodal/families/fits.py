"""Fits resize the images that published models are given, as their authors do."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from PIL import Image as PILImage

from unimodal.tokenizer.pixels import ImageError

BICUBIC = PILImage.Resampling.BICUBIC
CLIP_MEAN = 122, 116, 104  # of 255: int(255 * mean) of red, green and blue
WIDEST = 64  # of what is cropped, in shorter sides: all of an image is resized before it is cropped


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

    def problems(self) -> list[str]:
        """Return what is wrong with the bounds, one sentence each."""
        bounds = self.least, self.most
        if all(isinstance(one, int) for one in bounds) and 0 < self.least <= self.most:
            return []
        return [f"images of {self.least!r} to {self.most!r} pixels: whole numbers, the least first"]

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
class SquareFit:
    """A SquareFit pads to a square in the mean colour of CLIP's images, of `side` pixels (Liquid).

    The authors pad before they resize, which takes the memory of the larger square; pixels beside
    the padding differ by that.
    """

    side: int
    kind: Literal["square"] = "square"

    def __call__(self, image: PILImage.Image) -> PILImage.Image:
        """Return a square image, with what was given in its middle; raise ImageError for one that
        is too long.
        """
        _check_shape(*image.size, WIDEST)
        scale = self.side / max(image.size)
        width, height = (max(1, round(scale * side)) for side in image.size)
        resized = image.resize((width, height), PILImage.Resampling.LANCZOS)
        square = PILImage.new("RGB", (self.side, self.side), CLIP_MEAN)
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


@dataclass(frozen=True)
class BucketFit:
    """A BucketFit crops to the one of many sizes of nearly one area whose shape is the nearest
    (Lumina-mGPT).
    """

    target: int
    """The side in pixels of the square of that area."""
    multiple: int
    """Both sides are multiples of this many pixels."""
    kind: Literal["buckets"] = "buckets"

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        """Return (width, height) of what an image of so many pixels becomes."""

        def kept(size: tuple[int, int]) -> float:
            scales = size[0] / width, size[1] / height
            return min(scales) / max(scales)

        sizes = bucket_sizes(self.target, self.multiple)
        return max(sizes, key=lambda size: (kept(size), size))

    def __call__(self, image: PILImage.Image) -> PILImage.Image:
        """Return the middle of the image; the authors take any part of it, at random. Raise
        ImageError for one that is too long.
        """
        _check_shape(*image.size, WIDEST)
        size = self.size_of(*image.size)
        while all(side >= 2 * wanted for side, wanted in zip(image.size, size, strict=True)):
            halves = image.width // 2, image.height // 2
            image = image.resize(halves, PILImage.Resampling.BOX)
        scale = max(size[0] / image.width, size[1] / image.height)
        image = image.resize((round(image.width * scale), round(image.height * scale)), BICUBIC)
        left, top = (image.width - size[0]) // 2, (image.height - size[1]) // 2
        return image.crop((left, top, left + size[0], top + size[1]))


def bucket_sizes(target: int, multiple: int, widest: float = 4.0) -> list[tuple[int, int]]:
    """Return (width, height) in pixels of the sizes that images have: for each width all heights
    from the greatest of the next wider one to the greatest that leaves the area within target x
    target pixels, where one side is at most `widest` times the other.

    It is the rule `generate_crop_size_list` of Lumina-mGPT's authors.
    """
    area, lowest, found = (target // multiple) ** 2, 1, []
    for wide in range(area, 0, -1):
        highest = area // wide
        found += [(wide, high) for high in range(lowest, highest + 1)]
        lowest = highest
    return [
        (wide * multiple, high * multiple)
        for wide, high in found
        if max(wide, high) <= widest * min(wide, high)
    ]


def _check_shape(width: int, height: int, widest: float) -> None:
    """Raise ImageError where the longer side is more than `widest` times the shorter."""
    if max(width, height) > widest * min(width, height):
        raise ImageError(
            f"an image of {width} x {height} pixels is too long: this model takes up to "
            f"{widest:g} times as long as wide; crop it first"
        )


Fit = AreaFit | PadFit | SquareFit | CropFit | BucketFit
