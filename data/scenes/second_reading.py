"""A second reader of scenes, of another kind than `reading.py`: it shares no rule with it.

What is rewarded by one reader may come to please that reader and nobody else; this one is never
rewarded, so the difference between the two tells. It refuses less: whatever it finds it names.

1. The background is what the border shows, continued along rows or along columns, whichever agrees
   better with the other two sides.
2. Objects are the connected parts that differ from it.
3. A part is cut to its box and scaled to a grid; the shape is that of the render whose grid
   correlates best with it. The colour is the nearest in Oklab of the part's middle tones, the size
   that whose box is nearest.
"""

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

BORDER_PX = 2  # on a canvas of 64: no object is there
APART = 0.09  # Oklab distance from the background that makes a pixel part of an object
MIN_AREA = 40 / 64**2  # of the canvas: smaller parts are stains
SIDE = 14  # of the grids that are correlated
PLAIN, MONOTONE = 0.012, 0.95  # spread of a plain background; correlation of a graded one

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
    lab_HW3 = oklab(image_HW3)
    ground_HW3, line_n3, runs_down = _ground(lab_HW3)
    differs_HW = np.linalg.norm(lab_HW3 - ground_HW3, axis=2) > APART
    labels_HW, count = label(differs_HW)
    parts = [labels_HW == number for number in range(1, count + 1)]
    large = [part for part in parts if part.sum() >= MIN_AREA * height * width]
    objects = tuple(_object(lab_HW3, part) for part in large)
    return Scene(_named_ground(line_n3, runs_down), objects)


def oklab(rgb: np.ndarray) -> np.ndarray:
    """Return sRGB colours, 0..255 in the last axis, in Oklab; float64."""
    share = np.asarray(rgb, np.float64) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return np.cbrt(linear @ TO_CONES.T) @ TO_LAB.T


def _ground(lab_HW3: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
    """Return the background everywhere, its colours along the axis on which it changes, and whether
    that runs down.
    """
    edge = max(1, round(BORDER_PX * len(lab_HW3) / 64))
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


def _object(lab_HW3: np.ndarray, part_HW: np.ndarray) -> SceneObject:
    """Return the object that a connected part is nearest to."""
    rows, columns = (np.flatnonzero(part_HW.any(axis=axis)) for axis in (1, 0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    grid = _scaled(part_HW[top:bottom, left:right])
    shape = max(SHAPES, key=lambda name: max(float((grid * one).sum()) for one in _bank(name)))
    canvas = len(part_HW)
    width = max(bottom - top, right - left) / canvas
    size = min(SIZES, key=lambda name: abs(SIZES[name] * _breadth(shape) - width))
    palette_K3 = oklab(np.array(list(COLOURS.values())))
    middle_3 = np.median(lab_HW3[part_HW], axis=0)
    colour = list(COLOURS)[int(np.linalg.norm(palette_K3 - middle_3, axis=1).argmin())]
    x, y = (left + right) / 2 / canvas, (top + bottom) / 2 / canvas
    return SceneObject(shape, colour, size, float(x), float(y))


def _scaled(mask_hw: np.ndarray) -> np.ndarray:
    """Return a mask scaled to a grid of SIDE x SIDE and framed, its mean taken away, of length 1.

    The frame, of what is outside, tells a square, which fills its box, from nothing.
    """
    height, width = mask_hw.shape
    rows = ((np.arange(SIDE) + 0.5) * height / SIDE).astype(int)
    columns = ((np.arange(SIDE) + 0.5) * width / SIDE).astype(int)
    grid = np.pad(mask_hw[rows[:, None], columns[None]], 1).astype(np.float64)
    grid -= grid.mean()
    return grid / np.linalg.norm(grid)


@cache
def _bank(shape: str) -> tuple[np.ndarray, ...]:
    """Return the grids of renders of a shape, in every size, at nine places within a pixel."""
    thirds = (0.0, 1 / 3, 2 / 3)
    return tuple(
        _scaled(_rendered(shape, size, dx, dy)) for size in SIZES for dx in thirds for dy in thirds
    )


def _rendered(shape: str, size: str, dx: float, dy: float) -> np.ndarray:
    """Return which pixels of a canvas of 64 a shape mostly covers, cut to its box."""
    cover_hw, _, _ = coverage(shape, SIZES[size], 0.5 + dx / 64, 0.5 + dy / 64, 64)
    mask_hw = cover_hw > 0.5
    rows, columns = mask_hw.any(axis=1), mask_hw.any(axis=0)
    return mask_hw[rows][:, columns]


@cache
def _breadth(shape: str) -> float:
    """Return the longer side of the drawn shape over the width that the world gives it."""
    sides = [max(_rendered(shape, size, 0.0, 0.0).shape) / (64 * SIZES[size]) for size in SIZES]
    return float(np.mean(sides))
