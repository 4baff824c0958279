"""Read the scene graph back from the pixels of an image, or say that it cannot be read.

In: a uint8 image, from the renderer or from a model; nothing of what was asked. Out: a `Scene`,
or `Unreadable` with the reason. Nothing is snapped: what is near no background, colour or shape of
the world is not read, nor what is as near to two.

1. Pool the image to 64 to 127 pixels a side where its side allows, and smooth it a little.
2. Take the background nearest to the frame, where no object can be, of all that the world has.
3. A pixel belongs to an object when it is nearer to some colour of objects than to its background;
   connected components of such pixels are the objects.
4. The median of a component's inner pixels gives its colour. Every pixel around has an alpha: how
   far it lies on the way from the background to that colour.
5. Alpha's area, centroid and spread propose templates (shape, size, centre), drawn with the
   renderer's own coverage, in three softnesses. The one with the least error wins, if that is
   small and clearly smaller than the next shape's or size's.

The error of a template is the root of the summed squares over the length of its outline: a longer
outline loses more when it is smeared. Costs about 2 ms a scene and core at 64 pixels; `damage.py`
measures how often it is wrong.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from .templates import Region, match, smooth
from .world import (
    BACKGROUNDS,
    CANVASES,
    COLOURS,
    DIRECTIONS,
    GROUNDS,
    MARGIN,
    Background,
    Scene,
    SceneObject,
    paint,
)

# Distances of colours are Euclidean in sRGB, 0..255; pixels are those of a canvas of 64.
GROUND_LIMIT = 30.0  # root mean square distance of the frame from the background
COLOUR_LIMIT = 36.0  # distance from the named colour; any two are at least 87 apart
MIN_STRENGTH = 0.9  # of a colour that a soft edge has mixed with the background
ASIDE_LIMIT = 0.1  # summed squares of what is neither background nor that colour, over the area
ERROR_LIMIT = 0.05  # error of the best template
RIVAL_RATIO = 1.1  # least error of the next shape or size over that of the best
MIN_AREA_PX = 12  # what is smaller is no component; the smallest object covers 80
STAIN = 45.0  # distance from the background that counts as a stain where no object is
STAINED_LIMIT = 0.01  # part of the canvas that may be stained
PAD = 3  # pixels looked at around a component
PALETTE_K3 = np.array(list(COLOURS.values()), dtype=np.float32)


@dataclass(frozen=True)
class Unreadable:
    """Why an image shows no scene of the world."""

    reason: str


def read_scene(image_HW3: np.ndarray) -> Scene | Unreadable:
    """Return the scene that the pixels show, or why it cannot be read.

    image_HW3: uint8; ValueError for another type. An image that is not square, or not 64 to 512
    pixels a side, is Unreadable. An image of background alone is a scene without objects.
    """
    pixels_HW3 = smoothed_canvas(image_HW3)
    if isinstance(pixels_HW3, Unreadable):
        return pixels_HW3
    ground = _read_background(pixels_HW3)
    return ground if isinstance(ground, Unreadable) else _read_objects(pixels_HW3, ground)


def smoothed_canvas(image_HW3: np.ndarray) -> np.ndarray | Unreadable:
    """Return the pixels pooled to 64 to 127 a side and smoothed, float32, or why that cannot be.

    image_HW3: uint8; ValueError for another type.
    """
    if image_HW3.dtype != np.uint8 or image_HW3.ndim != 3 or image_HW3.shape[2] != 3:
        raise ValueError(f"image of {image_HW3.dtype} {image_HW3.shape}: give uint8 (H, W, 3)")
    height, width = image_HW3.shape[:2]
    least, most = CANVASES
    if height != width or not least <= width <= most:
        return Unreadable(f"{width}x{height} pixels: scenes are square, {least} to {most} a side")
    return smooth(_pool(image_HW3))


def _pool(image_HW3: np.ndarray) -> np.ndarray:
    """Average k x k pixels, float32, by the largest k that divides the side and leaves 64."""
    side = len(image_HW3)
    k = next(k for k in range(side // CANVASES[0], 0, -1) if side % k == 0)
    if k == 1:
        return image_HW3.astype(np.float32)
    blocks = image_HW3.reshape(side // k, k, side // k, k, 3)
    return blocks.mean(axis=(1, 3), dtype=np.float32)


@cache
def _backgrounds() -> tuple[Background, ...]:
    """List every background of the world."""
    plain = tuple(Background("plain", first) for first in GROUNDS)
    return plain + tuple(
        Background(kind, first, second, direction)
        for kind in BACKGROUNDS
        for first in GROUNDS
        for second in GROUNDS
        for direction in DIRECTIONS
        if kind != "plain" and first != second
    )


@cache
def _ground(background: Background, canvas: int) -> np.ndarray:
    """Paint a background and smooth it, as images are: float32 (canvas, canvas, 3)."""
    return smooth(paint(background, canvas))


@cache
def _frame(canvas: int) -> np.ndarray:
    """Return the flat indices of the pixels in the margin, where no object can be."""
    inside = np.zeros((canvas, canvas), dtype=bool)
    depth = int(MARGIN * canvas)
    inside[depth:-depth, depth:-depth] = True
    return np.flatnonzero(~inside)


@cache
def _frames(canvas: int) -> np.ndarray:
    """Return the frames of all backgrounds, float32 (backgrounds, pixels of the frame, 3)."""
    flat = [smooth(paint(ground, canvas)).reshape(-1, 3) for ground in _backgrounds()]
    return np.stack([pixels[_frame(canvas)] for pixels in flat])


def _read_background(pixels_HW3: np.ndarray) -> Background | Unreadable:
    canvas = len(pixels_HW3)
    frame_F3 = pixels_HW3.reshape(-1, 3)[_frame(canvas)]
    off_B = np.sqrt(((_frames(canvas) - frame_F3) ** 2).mean(axis=1).sum(axis=1))
    best = int(off_B.argmin())
    if off_B[best] > GROUND_LIMIT:
        return Unreadable(f"the nearest background is {off_B[best]:.0f} levels away")
    return _backgrounds()[best]


def _read_objects(pixels_HW3: np.ndarray, background: Background) -> Scene | Unreadable:
    canvas = len(pixels_HW3)
    ground_HW3 = _ground(background, canvas)
    from_ground_HW = ((pixels_HW3 - ground_HW3) ** 2).sum(axis=2)
    labels_HW, count = label(_from_palette(pixels_HW3) < from_ground_HW)
    areas = np.bincount(labels_HW.ravel(), minlength=count + 1) * (64 / canvas) ** 2
    objects = []
    for name in np.flatnonzero(areas >= MIN_AREA_PX):
        if name == 0:  # outside all components
            continue
        component_HW = labels_HW == name
        region = _region(component_HW)
        found = _read_object(pixels_HW3, ground_HW3, component_HW, region)
        if isinstance(found, Unreadable):
            return found
        objects.append(found)
        from_ground_HW[region] = 0
    stained = float((from_ground_HW > STAIN**2).mean())
    if stained > STAINED_LIMIT:
        return Unreadable(f"{stained:.1%} of the canvas is neither background nor object")
    return Scene(background, tuple(objects))


def _from_palette(pixels_HW3: np.ndarray) -> np.ndarray:
    """Return the squared distance (H, W) from the nearest colour of objects.

    Expanded as |p|^2 - 2 p.c + |c|^2, it needs no array (H, W, colours, 3).
    """
    cross_HWK = pixels_HW3 @ (-2 * PALETTE_K3.T) + (PALETTE_K3**2).sum(axis=1)
    return (pixels_HW3**2).sum(axis=2) + cross_HWK.min(axis=2)


def label(mask_HW: np.ndarray) -> tuple[np.ndarray, int]:
    """Label the connected components of a bool mask, neighbours across corners included.

    Return labels int (H, W), 0 outside and 1, 2, ... inside, and their count. Rows are cut into
    runs, and runs that touch one in the row above are united (union-find).
    """
    padded = np.pad(mask_HW, ((0, 0), (1, 1)))
    width = padded.shape[1]
    edges = np.flatnonzero(np.diff(padded.ravel())) + 1
    starts, ends = edges[::2], edges[1::2]  # flat indices; a run is [start, end)
    first = np.searchsorted(ends, starts - width, side="left").tolist()
    last = np.searchsorted(starts, ends - width, side="right").tolist()
    parents = list(range(len(starts)))

    def root(run: int) -> int:
        while parents[run] != run:
            run = parents[run]
        return run

    for run in range(len(starts)):
        for above in range(first[run], last[run]):
            low, high = sorted((root(run), root(above)))
            parents[high] = low
    roots = np.array([root(run) for run in range(len(starts))], dtype=int)
    distinct, names = np.unique(roots, return_inverse=True)
    labels_HW = np.zeros(mask_HW.shape, dtype=int)
    labels_HW[mask_HW] = np.repeat(names + 1, ends - starts)
    return labels_HW, len(distinct)


def _region(component_HW: np.ndarray) -> Region:
    """Return the rows and columns of a component and `PAD` pixels around it."""
    rows, columns = (
        np.flatnonzero(component_HW.any(axis=1)),
        np.flatnonzero(component_HW.any(axis=0)),
    )
    height, width = component_HW.shape
    return (
        slice(max(0, int(rows[0]) - PAD), min(height, int(rows[-1]) + 1 + PAD)),
        slice(max(0, int(columns[0]) - PAD), min(width, int(columns[-1]) + 1 + PAD)),
    )


def _read_object(
    pixels_HW3: np.ndarray, ground_HW3: np.ndarray, component_HW: np.ndarray, region: Region
) -> SceneObject | Unreadable:
    pixels_hw3, ground_hw3 = pixels_HW3[region], ground_HW3[region]
    core_hw = _inner(component_HW[region])
    if not core_hw.any():
        return Unreadable(f"a part of {int(component_HW.sum())} pixels is too thin for an object")
    seen_3 = np.median(pixels_hw3[core_hw], axis=0)
    named = _read_colour(seen_3, ground_hw3[core_hw].mean(axis=0))
    if isinstance(named, Unreadable):
        return named
    colour, strength = named
    alpha_hw, aside = _alpha(pixels_hw3, ground_hw3, seen_3)
    if aside > ASIDE_LIMIT * alpha_hw.sum():
        return Unreadable(f"something {colour} has other colours in it")
    best, rival = match(strength * alpha_hw, region, canvas=len(pixels_HW3))[:2]
    if best.error > ERROR_LIMIT:
        return Unreadable(f"no shape fits: the error of a {best} is {best.error:.3f}")
    if rival.error < RIVAL_RATIO * best.error:
        return Unreadable(f"a {best} or a {rival}")
    return SceneObject(best.template.shape, colour, best.template.size, best.x, best.y)


def _inner(component_hw: np.ndarray) -> np.ndarray:
    """Return the pixels whose eight neighbours all belong to the component too."""
    p = np.pad(component_hw, 1)
    rows = p[:-2] & p[1:-1] & p[2:]
    return rows[:, :-2] & rows[:, 1:-1] & rows[:, 2:]


def _read_colour(seen_3: np.ndarray, ground_3: np.ndarray) -> tuple[str, float] | Unreadable:
    """Return the nearest colour, mixed a little with the background, and its share of the mix.

    The share that comes nearest is the projection of what is seen onto the way from the background
    to the colour, held in [MIN_STRENGTH, 1].
    """
    way_K3 = PALETTE_K3 - ground_3
    strength_K = (way_K3 @ (seen_3 - ground_3)) / (way_K3**2).sum(axis=1)
    strength_K = strength_K.clip(MIN_STRENGTH, 1)
    mixed_K3 = ground_3 + strength_K[:, None] * way_K3
    off_K = np.sqrt(((mixed_K3 - seen_3) ** 2).sum(axis=1))
    best = int(off_K.argmin())
    if off_K[best] > COLOUR_LIMIT:
        red, green, blue = (int(value) for value in seen_3)
        return Unreadable(f"the nearest colour is {off_K[best]:.0f} from ({red}, {green}, {blue})")
    return list(COLOURS)[best], float(strength_K[best])


def _alpha(
    pixels_hw3: np.ndarray, ground_hw3: np.ndarray, colour_3: np.ndarray
) -> tuple[np.ndarray, float]:
    """Return how far each pixel is from ground to colour, and what lies aside of that way.

    Alpha is the projection onto the way, in units of its length; the second value sums the squares
    of what the projection leaves, in the same unit.
    """
    way_hw3, gone_hw3 = colour_3 - ground_hw3, pixels_hw3 - ground_hw3
    length_hw = (way_hw3**2).sum(axis=2)
    alpha_hw = (gone_hw3 * way_hw3).sum(axis=2) / length_hw
    aside_hw = (gone_hw3**2).sum(axis=2) / length_hw - alpha_hw**2
    return alpha_hw, float(aside_hw.sum())


def same_scene(a: Scene, b: Scene, tolerance_px: float = 2.0, canvas: int = 64) -> bool:
    """Return whether background and attributes agree and centres pair up to `tolerance_px`.

    The order of objects does not matter; distances are Euclidean, in pixels of `canvas`.
    """
    return a.background == b.background and _pair_up(a.objects, b.objects, tolerance_px / canvas)


def _pair_up(a: Sequence[SceneObject], b: Sequence[SceneObject], tolerance: float) -> bool:
    """Return whether each object of a has an equal of its own in b, at most `tolerance` away."""
    if not a or not b:
        return len(a) == len(b)
    return any(
        other.attributes == a[0].attributes
        and np.hypot(other.x - a[0].x, other.y - a[0].y) <= tolerance
        and _pair_up(a[1:], [*b[:k], *b[k + 1 :]], tolerance)
        for k, other in enumerate(b)
    )
