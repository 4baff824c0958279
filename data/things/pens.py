"""Pen strokes and letters: scribbles, lines, arcs, boxes and words, drawn with soft edges.

In: a generator and a page. Out: the page with the strokes. They are drawn three times as large and
averaged.
"""

import numpy as np
from PIL import Image as PILImage
from PIL import ImageDraw, ImageFont

from ..lettering import SHIPPED
from .hues import away_from

Generator = np.random.Generator
FINER = 3
FONTS = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSerif.ttf", "DejaVuSansMono.ttf")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789?!"


def strokes(pixels_HW3: np.ndarray, rng: Generator) -> None:
    """Draw 1 to 6 strokes of one pen, in place."""
    pen_3 = _pen(rng, pixels_HW3)
    side = len(pixels_HW3) * FINER
    cover = PILImage.new("L", (side, side))
    draw = ImageDraw.Draw(cover)
    width = int(rng.uniform(0.012, 0.07) * side) + 1
    for _ in range(int(rng.integers(1, 7))):
        _stroke(draw, rng, side, width)
    _ink(pixels_HW3, cover, pen_3)


def letters(pixels_HW3: np.ndarray, rng: Generator) -> None:
    """Write 1 to 6 letters, in place."""
    pen_3 = _pen(rng, pixels_HW3)
    side = len(pixels_HW3) * FINER
    cover = PILImage.new("L", (side, side))
    text = "".join(LETTERS[k] for k in rng.integers(len(LETTERS), size=int(rng.integers(1, 7))))
    points = side * rng.uniform(0.5, 1.1) / max(1.3, len(text) * rng.uniform(0.6, 1.1))
    font = ImageFont.truetype(str(SHIPPED / FONTS[rng.integers(len(FONTS))]), points)
    x, y = rng.uniform(0.3, 0.7, 2) * side
    ImageDraw.Draw(cover).text((x, y), text, 255, font, anchor="mm")
    _ink(pixels_HW3, cover, pen_3)


def _pen(rng: Generator, pixels_HW3: np.ndarray) -> np.ndarray:
    """Choose a pen that shows on this page: often the darkest or the lightest."""
    ground_3 = pixels_HW3.mean(axis=(0, 1))
    if rng.random() < 0.4:
        return np.full(3, 15.0 if ground_3.mean() > 110 else 245.0, dtype=np.float32)
    return away_from(rng, ground_3)


def _stroke(draw: ImageDraw.ImageDraw, rng: Generator, side: int, width: int) -> None:
    kind = rng.integers(5)
    x0, y0, x1, y1 = rng.uniform(0.05, 0.95, 4) * side
    box = (min(x0, x1), min(y0, y1), max(x0, x1) + width, max(y0, y1) + width)
    if kind == 0:
        draw.line([tuple(p) for p in _curve(rng) * side], fill=255, width=width, joint="curve")
    elif kind == 1:
        draw.line([(x0, y0), (x1, y1)], fill=255, width=width)
    elif kind == 2:
        start = float(rng.uniform(0, 360))
        draw.arc(box, start, start + float(rng.uniform(90, 360)), fill=255, width=width)
    elif kind == 3:
        draw.rectangle(box, outline=255, width=width)
    else:
        draw.ellipse(box, outline=255, width=width)


def _curve(rng: Generator) -> np.ndarray:
    """Return points (n, 2) of a curve through random places (Catmull and Rom 1974)."""
    p = rng.uniform(0.05, 0.95, (int(rng.integers(4, 8)), 2))
    t = np.linspace(0, 1, 8, endpoint=False)[:, None]
    pieces = [
        0.5
        * (
            2 * p[k]
            + (p[k + 1] - p[k - 1]) * t
            + (2 * p[k - 1] - 5 * p[k] + 4 * p[k + 1] - p[k + 2]) * t**2
            + (3 * p[k] - p[k - 1] - 3 * p[k + 1] + p[k + 2]) * t**3
        )
        for k in range(1, len(p) - 2)
    ]
    return np.concatenate(pieces)


def _ink(pixels_HW3: np.ndarray, cover: PILImage.Image, pen_3: np.ndarray) -> None:
    share_HW1 = np.asarray(cover.reduce(FINER), dtype=np.float32)[:, :, None] / 255
    pixels_HW3 += share_HW1 * (pen_3 - pixels_HW3)
