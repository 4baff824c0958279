"""Reads the scene graph back from the pixels of a picture, or says that it cannot.

In: a uint8 picture, from a renderer or a model; nothing of what was asked. Out: a `Scene`, or `Unreadable` with
the reason. Nothing is snapped: what is close to no background, colour or template is not read.

1. Pool the picture to a working canvas of 64 to 127 pixels where that is possible, and smooth it a little.
2. Take the background (of all that the world has) nearest to the frame, where no thing can be.
3. A pixel belongs to a thing when it is nearer to some colour of things than to its background; connected
   components of such pixels are the things.
4. The median of a component's inner pixels is its colour. Every pixel near it then has an alpha: how far it lies
   on the way from the background to that colour.
5. Alpha's area, spread and centroid propose templates (shape, size, centre), drawn with the renderer's own
   coverage and smoothed alike; the one with the least squared error wins, if the error is small and clearly
   smaller than the next.

Squared errors are divided by the template's outline, so they are lengths: how far, about, the outline is off.
Costs about 2 ms a scene and core. `python -m unimodal.data.reading` measures its errors.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from time import perf_counter

import numpy as np
from PIL import Image

from .scenes import (
    BACKGROUNDS,
    CANVASES,
    COLOURS,
    DIRECTIONS,
    GROUNDS,
    LARGE,
    MARGIN,
    SHAPES,
    SIZES,
    SMALL,
    Background,
    Scene,
    Thing,
    coverage,
    generator,
    paint,
    render,
    scene,
)

# Distances of colours are Euclidean in sRGB, 0..255.
GROUND_LIMIT = 30.0  # root mean square distance of the frame from the background
SPECK_LIMIT = 45.0  # distance from the background that counts as a stain
STAINED_LIMIT = 0.01  # part of the canvas that may be stained
COLOUR_LIMIT = 42.0  # distance from the named colour: below half of what lies between any two
OUTLINE_LIMIT = 0.35  # error of the best template, in pixels of a canvas of 64
MARGIN_LIMIT = 1.25  # error of the next template over that of the best
LEAST_AREA = 12  # pixels of a canvas of 64; the smallest thing covers about 70
NUM_CANDIDATES = 5  # templates compared in full
PALETTE_K3 = np.array(list(COLOURS.values()), dtype=np.float32)
PAD = 3  # pixels looked at around a component


@dataclass(frozen=True)
class Unreadable:
    """A picture that is no scene of the world, and why."""

    reason: str


@dataclass(frozen=True)
class Moments:
    """Area (pixels), centroid (pixels) and spread (standard deviation, pixels) of an alpha picture."""

    area: float
    x: float
    y: float
    spread_x: float
    spread_y: float


@dataclass(frozen=True)
class Template:
    """A shape in a size on one canvas: its moments about its box's centre, and its outline in pixels."""

    shape: str
    size: str
    moments: Moments
    outline: float


def read_scene(image_HW3: np.ndarray) -> Scene | Unreadable:
    """The scene that the pixels show, its things from top to bottom, or why it cannot be read.

    image_HW3: uint8, square, 64 to 512 pixels a side. Other types are a ValueError, other sizes are Unreadable.
    """
    if image_HW3.dtype != np.uint8 or image_HW3.ndim != 3 or image_HW3.shape[2] != 3:
        raise ValueError(f"picture of {image_HW3.dtype} {image_HW3.shape}: give uint8 (H, W, 3)")
    height, width = image_HW3.shape[:2]
    if height != width or not CANVASES[0] <= width <= CANVASES[1]:
        return Unreadable(f"{width}x{height} pixels: scenes are square, {CANVASES[0]} to {CANVASES[1]} a side")
    pixels_HW3 = smooth(_pool(image_HW3))
    ground = _read_background(pixels_HW3)
    if isinstance(ground, Unreadable):
        return ground
    return _read_things(pixels_HW3, ground)


def _pool(image_HW3: np.ndarray) -> np.ndarray:
    """Means over k x k pixels, float32, with the largest k that divides the side and leaves 64 pixels or more."""
    side = len(image_HW3)
    k = next(k for k in range(side // CANVASES[0], 0, -1) if side % k == 0)
    blocks = image_HW3.astype(np.float32).reshape(side // k, k, side // k, k, 3)
    return blocks.mean(axis=(1, 3)) if k > 1 else blocks.reshape(side, side, 3)


def smooth(pixels_HWx: np.ndarray) -> np.ndarray:
    """Weights 1/4, 1/2, 1/4 along rows and columns; the border is repeated."""
    for axis in (0, 1):
        before, after = np.empty_like(pixels_HWx), np.empty_like(pixels_HWx)
        to, since = [slice(None)] * pixels_HWx.ndim, [slice(None)] * pixels_HWx.ndim
        to[axis], since[axis] = slice(None, -1), slice(1, None)
        first, last = [slice(None)] * pixels_HWx.ndim, [slice(None)] * pixels_HWx.ndim
        first[axis], last[axis] = slice(0, 1), slice(-1, None)
        before[tuple(since)], before[tuple(first)] = pixels_HWx[tuple(to)], pixels_HWx[tuple(first)]
        after[tuple(to)], after[tuple(last)] = pixels_HWx[tuple(since)], pixels_HWx[tuple(last)]
        pixels_HWx = 0.5 * pixels_HWx + 0.25 * (before + after)
    return pixels_HWx


@cache
def _backgrounds() -> tuple[Background, ...]:
    """Every background of the world."""
    plain = [Background("plain", first) for first in GROUNDS]
    return tuple(plain) + tuple(
        Background(kind, first, second, direction)
        for kind in BACKGROUNDS
        for first in GROUNDS
        for second in GROUNDS
        for direction in DIRECTIONS
        if kind != "plain" and first != second
    )


@cache
def _frame(canvas: int) -> np.ndarray:
    """Flat indices of the pixels in the margin, where no thing can be."""
    inside = np.zeros((canvas, canvas), dtype=bool)
    depth = int(MARGIN * canvas)
    inside[depth:-depth, depth:-depth] = True
    return np.flatnonzero(~inside)


@cache
def _frames(canvas: int) -> np.ndarray:
    """The frames of all backgrounds, float32 (backgrounds, pixels of the frame * 3)."""
    frames = [smooth(paint(g, canvas)).reshape(-1, 3)[_frame(canvas)] for g in _backgrounds()]
    return np.stack(frames).reshape(len(frames), -1)


def _read_background(pixels_HW3: np.ndarray) -> Background | Unreadable:
    canvas = len(pixels_HW3)
    frame = pixels_HW3.reshape(-1, 3)[_frame(canvas)].ravel()
    errors = ((_frames(canvas) - frame) ** 2).sum(axis=1) / (len(frame) / 3)
    best = int(errors.argmin())
    if errors[best] > GROUND_LIMIT**2:
        return Unreadable(f"the background is none of the world's: {errors[best] ** 0.5:.0f} levels away")
    return _backgrounds()[best]


def _read_things(pixels_HW3: np.ndarray, ground: Background) -> Scene | Unreadable:
    canvas = len(pixels_HW3)
    ground_HW3 = smooth(paint(ground, canvas))
    far_HW = ((pixels_HW3 - ground_HW3) ** 2).sum(axis=2)  # squared distance from the background
    near_HW = ((pixels_HW3[:, :, None] - PALETTE_K3) ** 2).sum(axis=3).min(axis=2)
    labels_HW, count = label(near_HW < far_HW)
    things = []
    for k in range(1, count + 1):
        part_HW = labels_HW == k
        if part_HW.sum() < LEAST_AREA * (canvas / 64) ** 2:
            continue
        window = _window(part_HW)
        thing = _read_thing(pixels_HW3[window], ground_HW3[window], part_HW[window], window, canvas)
        if isinstance(thing, Unreadable):
            return thing
        far_HW[window] = 0
        things.append(thing)
    if (stained := float((far_HW > SPECK_LIMIT**2).mean())) > STAINED_LIMIT:
        return Unreadable(f"{stained:.1%} of the canvas is neither background nor a thing")
    return Scene(ground, tuple(things))


def label(mask_HW: np.ndarray) -> tuple[np.ndarray, int]:
    """Connected components (8 neighbours) of a bool mask: (labels int (H, W), 0 outside and 1, 2, ... inside; count).

    Rows are cut into runs, runs that touch one of the row above are united.
    """
    padded = np.pad(mask_HW, ((0, 0), (1, 1)))
    width = padded.shape[1]
    edges = np.flatnonzero(np.diff(padded.ravel())) + 1
    starts, ends = edges[::2], edges[1::2]  # flat positions; a run is [start, end)
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


def _window(part_HW: np.ndarray) -> tuple[slice, slice]:
    """The rows and columns of a component and `PAD` pixels around it."""
    spans = []
    for axis in (1, 0):
        hit = np.flatnonzero(part_HW.any(axis=axis))
        spans.append(slice(max(0, hit[0] - PAD), min(part_HW.shape[1 - axis], hit[-1] + 1 + PAD)))
    return spans[0], spans[1]


def _read_thing(
    pixels_hw3: np.ndarray,
    ground_hw3: np.ndarray,
    part_hw: np.ndarray,
    window: tuple[slice, slice],
    canvas: int,
) -> Thing | Unreadable:
    core_hw = _inner(part_hw)
    if not core_hw.any():
        return Unreadable("a part of the picture is too thin for a thing")
    colour_3 = np.median(pixels_hw3[core_hw], axis=0)
    apart_k = np.sqrt(((PALETTE_K3 - colour_3) ** 2).sum(axis=1))
    if apart_k.min() > COLOUR_LIMIT:
        return Unreadable(f"colour {tuple(int(c) for c in colour_3)} is none of the world's")
    way_hw3, gone_hw3 = colour_3 - ground_hw3, pixels_hw3 - ground_hw3
    length_hw = (way_hw3**2).sum(axis=2)
    alpha_hw = (gone_hw3 * way_hw3).sum(axis=2) / length_hw
    aside = ((gone_hw3 - alpha_hw[:, :, None] * way_hw3) ** 2).sum(axis=2) / length_hw
    found = _best_template(alpha_hw, window, float(aside.sum()), canvas)
    if isinstance(found, Unreadable):
        return found
    template, x, y = found
    return Thing(template.shape, list(COLOURS)[apart_k.argmin()], template.size, x, y)


def _inner(part_hw: np.ndarray) -> np.ndarray:
    """The pixels whose eight neighbours all belong to the component too."""
    p = np.pad(part_hw, 1)
    rows = p[:-2] & p[1:-1] & p[2:]
    return rows[:, :-2] & rows[:, 1:-1] & rows[:, 2:]


def moments(alpha_hw: np.ndarray) -> Moments:
    """The moments of an alpha picture; (x, y) in pixels from the window's corner, pixel (0, 0) lying at 0.5."""
    area = float(alpha_hw.sum())
    means, spreads = [], []
    for axis in (0, 1):
        mass = alpha_hw.sum(axis=axis)
        at = np.arange(len(mass)) + 0.5
        mean = float(mass @ at) / area
        means.append(mean)
        spreads.append(max(0.0, float(mass @ (at - mean) ** 2) / area) ** 0.5)
    return Moments(area, *means, *spreads)


@cache
def _templates(canvas: int) -> tuple[Template, ...]:
    """All templates of a canvas; their moments' (x, y) are offsets from the box's centre."""
    found = []
    for shape in SHAPES:
        for size in SIZES:
            alpha_HW = _draw(shape, size, 0.5, 0.5, (slice(0, canvas), slice(0, canvas)), canvas)
            m = moments(alpha_HW)
            offset = Moments(m.area, m.x - canvas / 2, m.y - canvas / 2, m.spread_x, m.spread_y)
            outline = float(np.hypot(*np.gradient(alpha_HW)).sum())
            found.append(Template(shape, size, offset, outline))
    return tuple(found)


def _draw(shape: str, size: str, x: float, y: float, window: tuple[slice, slice], canvas: int) -> np.ndarray:
    """The smoothed coverage of a shape within a window of the canvas."""
    alpha_HW = np.zeros((canvas, canvas), dtype=np.float32)
    cover_hw, rows, columns = coverage(shape, SIZES[size], x, y, canvas)
    alpha_HW[rows, columns] = cover_hw
    return smooth(alpha_HW[window])


def _best_template(
    alpha_hw: np.ndarray, window: tuple[slice, slice], aside: float, canvas: int
) -> tuple[Template, float, float] | Unreadable:
    seen = moments(alpha_hw)
    errors = []
    for template in sorted(_templates(canvas), key=lambda t: _unlike(seen, t.moments))[:NUM_CANDIDATES]:
        x = (window[1].start + seen.x - template.moments.x) / canvas
        y = (window[0].start + seen.y - template.moments.y) / canvas
        drawn_hw = _draw(template.shape, template.size, x, y, window, canvas)
        error = (float(((alpha_hw - drawn_hw) ** 2).sum()) + aside) / template.outline
        errors.append((error * 64 / canvas, template, x, y))
    errors.sort(key=lambda e: e[0])
    (error, template, x, y), (next_error, other, _, _) = errors[:2]
    name, other_name = f"{template.size} {template.shape}", f"{other.size} {other.shape}"
    if error > OUTLINE_LIMIT:
        return Unreadable(f"no shape fits: a {name} at ({x:.2f}, {y:.2f}) is {error:.2f} pixels off")
    if next_error < MARGIN_LIMIT * error:
        return Unreadable(f"a {name} or a {other_name} at ({x:.2f}, {y:.2f}): {error:.2f}, {next_error:.2f}")
    return template, x, y


def _unlike(a: Moments, b: Moments) -> float:
    """How far two moments are apart, their places aside."""
    if min(a.area, a.spread_x, a.spread_y) <= 0:
        return np.inf
    return float(
        np.log(a.area / b.area) ** 2
        + 4 * np.log(a.spread_x / b.spread_x) ** 2
        + 4 * np.log(a.spread_y / b.spread_y) ** 2
    )


def same_scene(a: Scene, b: Scene, tolerance_px: float, canvas: int) -> bool:
    """True when backgrounds and things agree and the things pair up with centres within `tolerance_px`.

    The order of things does not matter; distances are Euclidean, in pixels of `canvas`.
    """
    return a.background == b.background and _pair_up(a.things, b.things, tolerance_px / canvas)


def _pair_up(a: Sequence[Thing], b: Sequence[Thing], tolerance: float) -> bool:
    """True when some assignment pairs each thing of a with its like in b at most `tolerance` away."""
    if not a or not b:
        return len(a) == len(b)
    looks = (a[0].shape, a[0].colour, a[0].size)
    return any(
        (other.shape, other.colour, other.size) == looks
        and np.hypot(other.x - a[0].x, other.y - a[0].y) <= tolerance
        and _pair_up(a[1:], [*b[:k], *b[k + 1 :]], tolerance)
        for k, other in enumerate(b)
    )


def blurred(image_HW3: np.ndarray, sigma_px: float) -> np.ndarray:
    """The picture (uint8) after a Gaussian blur; the border is repeated."""
    reach = int(np.ceil(4 * sigma_px))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma_px) ** 2)
    kernel /= kernel.sum()
    pixels = image_HW3.astype(np.float64)
    for axis in (0, 1):
        pad = [(reach, reach) if a == axis else (0, 0) for a in range(3)]
        wide = np.pad(pixels, pad, mode="edge")
        views = np.lib.stride_tricks.sliding_window_view(wide, len(kernel), axis=axis)
        pixels = views @ kernel
    return (pixels + 0.5).astype(np.uint8)


def noisy(image_HW3: np.ndarray, sigma: float, seed: int, index: int) -> np.ndarray:
    """The picture (uint8) with normal noise of `sigma` levels of 255 on every value."""
    noise_HW3 = sigma * generator(seed, index, part=1).standard_normal(image_HW3.shape)
    return (image_HW3 + noise_HW3 + 0.5).clip(0, 255).astype(np.uint8)


def compressed(image_HW3: np.ndarray, quality: int) -> np.ndarray:
    """The picture (uint8) after JPEG compression with chroma at half resolution."""
    from unimodal.tokenizer.pixels import open_picture  # here, for it brings torch, which reading does not need

    file = BytesIO()
    Image.fromarray(image_HW3).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return np.array(open_picture(file.getvalue()).image)


def damages(seed: int) -> dict[str, Callable[[np.ndarray, int], np.ndarray]]:
    """What is done to renders to measure the reader: name -> (picture, index) -> picture."""
    return {
        "render": lambda image, index: image,
        "blur, sigma 0.5 px": lambda image, index: blurred(image, 0.5),
        "blur, sigma 1 px": lambda image, index: blurred(image, 1.0),
        "noise, sigma 5": lambda image, index: noisy(image, 5, seed, index),
        "noise, sigma 10": lambda image, index: noisy(image, 10, seed, index),
        "noise, sigma 20": lambda image, index: noisy(image, 20, seed, index),
        "JPEG, quality 90": lambda image, index: compressed(image, 90),
        "JPEG, quality 75": lambda image, index: compressed(image, 75),
        "JPEG, quality 50": lambda image, index: compressed(image, 50),
    }


@dataclass(frozen=True)
class Errors:
    """How often the reader was wrong on `num_samples` damaged renders; unreadable counts as wrong."""

    damage: str
    num_samples: int
    num_right: int
    num_unreadable: int
    scenes_per_s: float  # read on one core, damage and rendering aside


def measure(num_samples: int, seed: int, canvas: int = 64) -> Iterator[Errors]:
    """The reader's errors on renders of (seed, 0 .. num_samples - 1) in every kind of damage.

    The world is the large one from 128 pixels; right means: all exact, centres within 2 pixels of a canvas of 64.
    """
    world = LARGE if canvas >= 128 else SMALL
    for name, damage in damages(seed).items():
        num_right = num_unreadable = 0
        spent_s = 0.0
        for index in range(num_samples):
            truth = scene(seed, index, world)
            picture = damage(render(truth, canvas), index)
            start_s = perf_counter()
            found = read_scene(picture)
            spent_s += perf_counter() - start_s
            num_unreadable += isinstance(found, Unreadable)
            num_right += isinstance(found, Scene) and same_scene(truth, found, 2.0, 64)
        yield Errors(name, num_samples, num_right, num_unreadable, num_samples / spent_s)


def main() -> None:
    """Print the table of `measure`."""
    parser = argparse.ArgumentParser(prog="python -m unimodal.data.reading", description=measure.__doc__)
    parser.add_argument("--samples", type=int, default=1000, help="scenes of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--canvas", type=int, default=64, help="pixels a side")
    options = parser.parse_args()
    print(f"seed {options.seed}, canvas {options.canvas}, {options.samples} scenes a row")
    print(f"{'picture':20} {'right':>8} {'unreadable':>11} {'misread':>8} {'scenes/s':>9}")
    for row in measure(options.samples, options.seed, options.canvas):
        misread = row.num_samples - row.num_right - row.num_unreadable
        counts = (row.num_right, row.num_unreadable, misread)
        right, unreadable, wrong = (f"{count / row.num_samples:.2%}" for count in counts)
        print(f"{row.damage:20} {right:>8} {unreadable:>11} {wrong:>8} {row.scenes_per_s:9.0f}", flush=True)


if __name__ == "__main__":
    main()
