"""A second reader of scenes, of another kind than `reading.py`: it shares no rule with it.

What is rewarded by one reader may come to please that reader and nobody else; this one is never
rewarded, so the difference between the two tells. It refuses less: whatever it finds it names.

1. The background is what the border shows, continued along rows or along columns, whichever agrees
   better with the other two sides.
2. Objects are the connected parts that differ from it, on a canvas of 64 pixels a side.
3. How far a pixel is from the background, of what the part's middle is, is how much of it is
   covered. Around its centre of mass this is correlated with that of every shape in every size,
   sharp and soft; the best one names the object. Its colour is the nearest in Oklab of the middle
   tones.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from .reading import label
from .world import (
    CANVASES,
    COLOURS,
    GROUNDS,
    SHAPES,
    SIZES,
    Background,
    Scene,
    SceneObject,
    coverage,
)

BORDER_PX = 2  # no object is there
APART = 0.09  # Oklab distance from the background that makes a pixel part of an object
MIN_AREA_PX = 40  # smaller parts are stains
SIDE, PAD = 64, 20
FULL, INSIDE = 0.85, 0.85  # the quantile of a part that is covered in full; what is no edge
WINDOW = np.arange(-16.5, 17)  # of a canvas of 64: what is correlated, around the centre of mass
SOFT_PASSES = (0, 1, 3)
PLAIN, MONOTONE = 0.02, 0.95  # spread of a plain background; correlation of a graded one

# Björn Ottosson, "A perceptual color space for image processing" (2020): linear sRGB to cone
# responses, and their cube roots to Oklab.
TO_CONES = np.array([
    [0.4122214708, 0.5363325363, 0.0514459929],
    [0.2119034982, 0.6806995451, 0.1073969566],
    [0.0883024619, 0.2817188376, 0.6299787005],
])  # fmt: skip
TO_LAB = np.array([
    [0.2104542553, 0.7936177850, -0.0040720468],
    [1.9779984951, -2.4285922050, 0.4505937099],
    [0.0259040371, 0.7827717662, -0.8086757660],
])  # fmt: skip


def read_again(image_HW3: np.ndarray) -> Scene | None:
    """Return the scene that an image uint8 shows; None where it is no square of 64 to 512 pixels.

    An image of background alone is a scene without objects.
    """
    height, width = image_HW3.shape[:2]
    if height != width or not CANVASES[0] <= width <= CANVASES[1]:
        return None
    lab_HW3 = oklab(_pooled(image_HW3))
    ground_HW3, line_n3, runs_down = _ground(lab_HW3)
    apart_HW = np.linalg.norm(lab_HW3 - ground_HW3, axis=2)
    labels_HW, count = label(apart_HW > APART)
    parts = [labels_HW == number for number in range(1, count + 1)]
    large = [part for part in parts if part.sum() >= MIN_AREA_PX]
    objects = tuple(_object(lab_HW3, apart_HW * part) for part in large)
    return Scene(_named_ground(line_n3, runs_down), objects)


def _pooled(image_HW3: np.ndarray) -> np.ndarray:
    """Return an image with SIDE pixels a side, each the mean of those that begin in it."""
    starts = (np.arange(SIDE) * len(image_HW3)) // SIDE
    counts = np.diff(starts, append=len(image_HW3))
    rows = np.add.reduceat(image_HW3.astype(np.float64), starts, axis=0) / counts[:, None, None]
    return np.add.reduceat(rows, starts, axis=1) / counts[:, None]


def oklab(rgb: np.ndarray) -> np.ndarray:
    """Return sRGB colours, 0..255 in the last axis, in Oklab; float64."""
    share = np.asarray(rgb, np.float64) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return np.cbrt(linear @ TO_CONES.T) @ TO_LAB.T


def _ground(lab_HW3: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
    """Return the background everywhere, its colours along the axis on which it changes, and whether
    that runs down.
    """
    edge = BORDER_PX
    ends_2W3 = np.stack([lab_HW3[:edge].mean(axis=0), lab_HW3[-edge:].mean(axis=0)])
    ends_2H3 = np.stack([lab_HW3[:, :edge].mean(axis=1), lab_HW3[:, -edge:].mean(axis=1)])
    across, down = (np.abs(np.diff(ends, axis=0)).sum() for ends in (ends_2W3, ends_2H3))
    runs_down = bool(down < across)
    line_n3 = (ends_2H3 if runs_down else ends_2W3).mean(axis=0)
    ground_HW3 = np.broadcast_to(line_n3[:, None] if runs_down else line_n3[None], lab_HW3.shape)
    return ground_HW3, line_n3, runs_down


def _named_ground(line_n3: np.ndarray, runs_down: bool) -> Background:
    """Return the background that changes so along its axis."""
    names, palette_K3 = list(GROUNDS), oklab(np.array(list(GROUNDS.values())))

    def nearest(colour_3: np.ndarray) -> str:
        return names[int(np.linalg.norm(palette_K3 - colour_3, axis=1).argmin())]

    centred_n3 = line_n3 - line_n3.mean(axis=0)
    if np.sqrt((centred_n3**2).sum(axis=1).mean()) < PLAIN:
        return Background("plain", nearest(line_n3.mean(axis=0)))
    main_3 = np.linalg.svd(centred_n3, full_matrices=False)[2][0]
    along_n = centred_n3 @ main_3
    eighth = len(line_n3) // 8
    first, last = line_n3[:eighth].mean(axis=0), line_n3[-eighth:].mean(axis=0)
    if abs(np.corrcoef(along_n, np.arange(len(along_n)))[0, 1]) > MONOTONE:
        way = "vertical" if runs_down else "horizontal"
        return Background("graded", nearest(first), nearest(last), way)
    # Stripes run along the other axis than the one on which the colours change.
    way = "horizontal" if runs_down else "vertical"
    return Background("striped", nearest(first), nearest(line_n3[eighth : 2 * eighth].mean(0)), way)


def _object(lab_HW3: np.ndarray, apart_HW: np.ndarray) -> SceneObject:
    """Return the object that a connected part is nearest to.

    apart_HW: how far each of its pixels is from the background; 0 outside.
    """
    far = np.quantile(apart_HW[apart_HW > 0], FULL)
    cover_HW = (apart_HW / far).clip(0, 1)
    x, y = _centre(cover_HW)
    seen = _window(cover_HW, x, y)
    best = max(_bank(), key=lambda one: float(one.window @ seen))
    palette_K3 = oklab(np.array(list(COLOURS.values())))
    middle_3 = np.median(lab_HW3[cover_HW > INSIDE], axis=0)
    colour = list(COLOURS)[int(np.linalg.norm(palette_K3 - middle_3, axis=1).argmin())]
    return SceneObject(best.shape, colour, best.size, (x - best.x) / SIDE, (y - best.y) / SIDE)


@dataclass(frozen=True, eq=False)
class _Template:
    """A shape as it is rendered: its window, and its centre of mass from that of its box, in
    pixels.
    """

    shape: str
    size: str
    window: np.ndarray
    x: float
    y: float


@cache
def _bank() -> tuple[_Template, ...]:
    """Return a template of every shape in every size, sharp and soft."""
    return tuple(
        _template(shape, size, passes)
        for shape in SHAPES
        for size in SIZES
        for passes in SOFT_PASSES
    )


def _template(shape: str, size: str, passes: int) -> _Template:
    cover_HW = np.zeros((SIDE, SIDE))
    cover_hw, rows, columns = coverage(shape, SIZES[size], 0.5, 0.5, SIDE)
    cover_HW[rows, columns] = cover_hw
    for _ in range(passes):  # means of three by three pixels
        for axis in (0, 1):
            cover_HW = np.mean([np.roll(cover_HW, by, axis) for by in (-1, 0, 1)], axis=0)
    x, y = _centre(cover_HW)
    return _Template(shape, size, _window(cover_HW, x, y), x - SIDE / 2, y - SIDE / 2)


def _centre(cover_HW: np.ndarray) -> tuple[float, float]:
    """Return the centre of mass (x, y) in pixels; pixel (0, 0) is at 0.5."""
    at_n = np.arange(len(cover_HW)) + 0.5
    total = cover_HW.sum()
    return float(cover_HW.sum(axis=0) @ at_n / total), float(cover_HW.sum(axis=1) @ at_n / total)


def _window(cover_HW: np.ndarray, x: float, y: float) -> np.ndarray:
    """Return the coverage around (x, y), flat, its mean taken away and of length 1: the product of
    two is their correlation.
    """
    padded = np.pad(cover_HW, PAD)
    for axis, middle in ((1, x), (0, y)):  # between pixels, in proportion
        at_n = WINDOW + middle - 0.5 + PAD
        low_n = np.floor(at_n).astype(int)
        share = np.expand_dims(at_n - low_n, 1 - axis)
        padded = (1 - share) * padded.take(low_n, axis) + share * padded.take(low_n + 1, axis)
    flat = padded.ravel() - padded.mean()
    return flat / np.linalg.norm(flat)
