"""Pages to draw on: of one colour, graded, patterned, of paper, or a blurred photograph.

In: a generator and a canvas. Out: float32 (canvas, canvas, 3) in 0..255.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image as PILImage

from .hues import HUES, any_hue

Generator = np.random.Generator
Photo = Callable[[Generator, int], np.ndarray]
"""Draws a crop of a photograph: uint8 (side, side, 3) for a side in pixels."""

WHITE = np.full(3, 255, dtype=np.float32)
USUAL = ("white", "black", "ivory", "cream", "light grey", "grey", "sand", "sky", "mint",
         "lavender", "light blue")  # fmt: skip


def page(rng: Generator, canvas: int, photo: Photo | None = None) -> np.ndarray:
    """Draw a page; a third of them is white."""
    chance = rng.random()
    if chance < 0.32:
        return solid(WHITE, canvas)
    if chance < 0.48:
        usual = np.array(HUES[USUAL[rng.integers(len(USUAL))]], dtype=np.float32)
        return solid(usual, canvas)
    if chance < 0.64:
        return solid(any_hue(rng), canvas)
    kinds = (graded, graded, patterned, patterned, horizon, paper, blurred)
    kind = kinds[rng.integers(len(kinds))]
    return blurred(rng, canvas, photo) if kind is blurred else kind(rng, canvas)


def solid(colour_3: np.ndarray, canvas: int) -> np.ndarray:
    """Fill a page with one colour."""
    return np.tile(colour_3.astype(np.float32), (canvas, canvas, 1))


def mixed(first_3: np.ndarray, second_3: np.ndarray, share_HW: np.ndarray) -> np.ndarray:
    """Mix two colours by the share of the second."""
    return (first_3 + (second_3 - first_3) * share_HW[:, :, None]).astype(np.float32)


def graded(rng: Generator, canvas: int) -> np.ndarray:
    """Let one colour run into another along any direction or around a point."""
    x_1W, y_H1 = _places(canvas)
    if rng.random() < 0.3:
        x, y = rng.random(2)
        share_HW = np.hypot(x_1W - x, y_H1 - y).clip(0, 1)
    else:
        angle = rng.uniform(0, 2 * np.pi)
        along_HW = (x_1W - 0.5) * np.cos(angle) + (y_H1 - 0.5) * np.sin(angle)
        share_HW = (along_HW / 1.4 + 0.5).clip(0, 1)
    return mixed(any_hue(rng), any_hue(rng), share_HW)


def patterned(rng: Generator, canvas: int) -> np.ndarray:
    """Draw stripes, checks, dots or ruled lines of two colours."""
    x_1W, y_H1 = _places(canvas)
    angle = rng.choice((0, np.pi / 2, rng.uniform(0, np.pi)))
    period = rng.uniform(4, 20) / 64
    u_HW = (x_1W * np.cos(angle) + y_H1 * np.sin(angle)) / period + rng.random()
    v_HW = (y_H1 * np.cos(angle) - x_1W * np.sin(angle)) / period + rng.random()
    u_HW, v_HW = np.sin(2 * np.pi * u_HW), np.sin(2 * np.pi * v_HW)
    kind = rng.integers(4)
    wave_HW = (u_HW, u_HW * v_HW, u_HW + v_HW - 1.0, np.maximum(u_HW, v_HW) - 0.94)[
        kind
    ]  # stripes, checks, dots, squared paper
    sharp = period * canvas / 4  # a pixel of soft edge
    first, second = any_hue(rng), any_hue(rng)
    if rng.random() < 0.5:  # two shades of one colour
        second = (first + rng.uniform(-60, 60)).clip(0, 255)
    return mixed(first, second, (0.5 + sharp * wave_HW).clip(0, 1))


def horizon(rng: Generator, canvas: int) -> np.ndarray:
    """Draw a sky above a ground."""
    _, y_H1 = _places(canvas)
    below_H1 = ((y_H1 - rng.uniform(0.35, 0.8)) * canvas + 0.5).clip(0, 1)
    return mixed(any_hue(rng), any_hue(rng), np.broadcast_to(below_H1, (canvas, canvas)))


def paper(rng: Generator, canvas: int) -> np.ndarray:
    """Draw light paper with a grain."""
    ground = rng.uniform(215, 255, 3) if rng.random() < 0.7 else any_hue(rng)
    grain_HW1 = rng.normal(0, rng.uniform(1, 8), (canvas, canvas, 1))
    return (ground + grain_HW1).clip(0, 255).astype(np.float32)


def blurred(rng: Generator, canvas: int, photo: Photo | None = None) -> np.ndarray:
    """Draw a photograph out of focus, or without photographs clouds of a few colours."""
    if photo is not None:
        small = PILImage.fromarray(photo(rng, int(rng.integers(4, 17))))
    else:
        side = int(rng.integers(2, 6))
        colours = np.stack([any_hue(rng) for _ in range(side * side)])
        small = PILImage.fromarray(colours.reshape(side, side, 3).astype(np.uint8))
    return np.asarray(small.resize((canvas, canvas), PILImage.Resampling.BICUBIC), np.float32)


def _places(canvas: int) -> tuple[np.ndarray, np.ndarray]:
    """Return x (1, W) and y (H, 1) of the pixels' centres, in fractions of the canvas."""
    at_n = ((np.arange(canvas) + 0.5) / canvas).astype(np.float32)
    return at_n[None, :], at_n[:, None]
