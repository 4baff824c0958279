"""Shapes at large: turned, stretched, wobbly, outlined, shaded, textured, with a shadow.

In: a `Mark` and a page. Out: the page with the shape painted on it. What the exact world fixes
(upright, flat, hard-edged) is free here; a mark without any of it equals the exact world's shape.

The outline is the signed distance of `scenes.world` in turned and stretched coordinates.
"""

from dataclasses import dataclass

import numpy as np

from ..scenes.world import SHAPES, distance

Colour = tuple[float, float, float]
POLYGONS = {"pentagon": 5, "hexagon": 6, "octagon": 8}
MARKS = (*SHAPES, *POLYGONS, "crescent", "bar")
FILLS = ("flat", "graded", "shaded", "striped", "dotted", "grainy", "hollow")


@dataclass(frozen=True)
class Mark:
    """A shape with all that can be seen of it; sizes and places are fractions of the canvas."""

    shape: str
    """One of MARKS."""
    colour: Colour
    """sRGB, 0..255."""
    x: float
    y: float
    width: float
    turn: float = 0.0
    """Radians, clockwise."""
    aspect: float = 1.0
    """Width over height."""
    fill: str = "flat"
    """One of FILLS; hollow: the outline alone."""
    second: Colour = (255.0, 255.0, 255.0)
    """The other colour of the fill."""
    outline: float = 0.0
    """Width of the outline."""
    outline_colour: Colour = (0.0, 0.0, 0.0)
    shadow: float = 0.0
    """How far the shadow falls, to the right and down."""
    wobble: float = 0.0
    """How far a hand trembles, in parts of the half-width."""
    phase: float = 0.0
    """Where the trembling and the texture begin."""


def paint(pixels_HW3: np.ndarray, mark: Mark) -> None:
    """Paint a mark onto a page, float32 (H, W, 3) in 0..255, in place."""
    canvas = len(pixels_HW3)
    reach = mark.width / 2 * 1.5 * max(mark.aspect, 1 / mark.aspect) + mark.shadow * 2
    reach += mark.outline + 2 / canvas
    rows, columns = _around(mark.y, reach, canvas), _around(mark.x, reach, canvas)
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    region_hw3 = pixels_HW3[rows, columns]
    dx_1w = (
        np.arange(columns.start, columns.stop, dtype=np.float32)[None, :] + 0.5 - mark.x * canvas
    )
    dy_h1 = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] + 0.5 - mark.y * canvas
    if mark.shadow:
        fall = mark.shadow * canvas
        far_hw = _distance(mark, dx_1w - fall, dy_h1 - fall, canvas)[0]
        _lay(region_hw3, (0.0, 0.0, 0.0), 0.45 * (0.5 - far_hw / (1 + fall)).clip(0, 1))
    far_hw, u_hw, v_hw = _distance(mark, dx_1w, dy_h1, canvas)
    inside_hw = (0.5 - far_hw).clip(0, 1)
    if mark.fill != "hollow":
        _lay(region_hw3, _filled(mark, u_hw, v_hw), inside_hw)
    if mark.outline:
        band_hw = (0.5 + mark.outline * canvas / 2 - np.abs(far_hw)).clip(0, 1)
        _lay(region_hw3, mark.outline_colour, band_hw)


def _around(centre: float, reach: float, canvas: int) -> slice:
    return slice(
        max(0, int((centre - reach) * canvas)), min(canvas, int((centre + reach) * canvas) + 1)
    )


def _lay(region_hw3: np.ndarray, colour, cover_hw: np.ndarray) -> None:
    """Lay a colour, (3,) or (h, w, 3), over a region by its coverage."""
    region_hw3 += cover_hw[:, :, None] * (np.asarray(colour, dtype=np.float32) - region_hw3)


def _distance(
    mark: Mark, dx_1w: np.ndarray, dy_h1: np.ndarray, canvas: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the signed distance in pixels, and the place in the shape in its half-widths."""
    half = mark.width * canvas / 2
    cos, sin = np.float32(np.cos(mark.turn)), np.float32(np.sin(mark.turn))
    tall = np.float32(mark.aspect)
    u_hw = dx_1w * cos + dy_h1 * sin
    v_hw = (dy_h1 * cos - dx_1w * sin) * tall
    far_hw = _outline(mark.shape, u_hw, v_hw, half) / max(tall, np.float32(1))
    if mark.wobble:
        angle_hw = np.arctan2(v_hw, u_hw)
        tremor_hw = np.sin(3 * angle_hw + mark.phase) + np.sin(7 * angle_hw - 2 * mark.phase)
        far_hw = far_hw + np.float32(mark.wobble * half / 2) * tremor_hw
    return far_hw, u_hw / half, v_hw / half


def _outline(shape: str, x_hw: np.ndarray, y_hw: np.ndarray, half: float) -> np.ndarray:
    if shape in POLYGONS:
        number = POLYGONS[shape]
        angles = (np.arange(number) * 2 * np.pi / number + np.pi / 2).astype(np.float32)
        sides = [x_hw * np.cos(a) + y_hw * np.sin(a) for a in angles]
        return np.maximum.reduce(sides) - np.float32(half * np.cos(np.pi / number))
    if shape == "crescent":
        disc, bite = np.hypot(x_hw, y_hw) - half, np.hypot(x_hw - 0.45 * half, y_hw) - 0.8 * half
        return np.maximum(disc, -bite)
    if shape == "bar":
        return np.maximum(np.abs(x_hw) - half, np.abs(y_hw) - 0.22 * half)
    return distance(shape, x_hw, y_hw, half)


def _filled(mark: Mark, u_hw: np.ndarray, v_hw: np.ndarray) -> np.ndarray:
    """Return the colour of the fill, (3,) or float32 (h, w, 3)."""
    first_3, second_3 = (np.array(c, dtype=np.float32) for c in (mark.colour, mark.second))
    if mark.fill == "flat":
        return first_3
    if mark.fill == "graded":
        share_hw = v_hw / 2 + 0.5
    elif mark.fill == "shaded":  # lit from the upper left
        share_hw = np.hypot(u_hw + 0.4, v_hw + 0.4) / 1.6
    elif mark.fill == "striped":
        share_hw = 0.5 + 2 * np.sin(9 * u_hw + mark.phase)
    elif mark.fill == "dotted":
        share_hw = 2 * (np.sin(8 * u_hw + mark.phase) * np.sin(8 * v_hw + mark.phase)) - 0.5
    else:  # a grain that is a function of the place: rough, and the same each time
        share_hw = np.modf(np.abs(np.sin(91 * u_hw + 47 * v_hw + mark.phase)) * 4375)[0] / 2
    return first_3 + (second_3 - first_3) * share_hw.clip(0, 1)[:, :, None]


def random_mark(rng: np.random.Generator, colour_3: np.ndarray, plain: float = 0.3) -> Mark:
    """Draw a mark of this colour, anywhere; `plain` is the chance of each of its parts being so."""
    colour = _tuple(colour_3)
    shape = MARKS[rng.integers(len(MARKS) if rng.random() < 0.3 else len(SHAPES))]
    fill = "flat" if rng.random() < max(plain, 0.5) else FILLS[rng.integers(len(FILLS))]
    width = float(np.exp(rng.uniform(np.log(0.15), np.log(0.75))))
    outline = 0.0
    if fill == "hollow" or rng.random() > max(plain, 0.6):
        outline = float(rng.uniform(1, 3.5)) / 64
    dark = rng.random() < 0.6
    edge = rng.uniform(0, 60, 3) if dark and fill != "hollow" else colour_3 * rng.uniform(0.5, 1)
    x, y = (float(v) for v in rng.uniform(0.1, 0.9, 2))
    return Mark(
        shape,
        colour,
        x,
        y,
        width,
        turn=0.0 if rng.random() < plain else float(rng.uniform(-np.pi, np.pi)),
        aspect=1.0 if rng.random() < max(plain, 0.6) else float(np.exp(rng.uniform(-0.6, 0.6))),
        fill=fill,
        second=_tuple((colour_3 * rng.uniform(0.4, 1) + rng.uniform(0, 90)).clip(0, 255)),
        outline=outline,
        outline_colour=_tuple(edge),
        shadow=0.0 if rng.random() < max(plain, 0.75) else float(rng.uniform(1, 4)) / 64,
        wobble=0.0 if rng.random() < max(plain, 0.75) else float(rng.uniform(0.03, 0.15)),
        phase=float(rng.uniform(0, 2 * np.pi)),
    )


def _tuple(colour_3: np.ndarray) -> Colour:
    red, green, blue = (float(v) for v in colour_3)
    return red, green, blue
