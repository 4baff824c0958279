"""Match what covers a region of an image with the shapes of the world in all their sizes.

In: alpha, how far each pixel of a region is covered. Out: the likeliest templates (shape, size) at
their places, best first, with the error of each.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from .world import SHAPES, SIZES, coverage

NUM_CANDIDATES = 6  # (shape, size) pairs compared in full
SOFTNESS = (1, 2, 4)  # passes of smoothing; the image has had the first of them

Region = tuple[slice, slice]  # rows and columns of the pooled image


@dataclass(frozen=True)
class Moments:
    """Area, centroid and spread (standard deviation) of an alpha image, in pixels."""

    area: float
    x: float
    y: float
    spread_x: float
    spread_y: float


@dataclass(frozen=True)
class Template:
    """A shape in one size on one canvas: moments (x, y from the box's centre), outline (pixels)."""

    shape: str
    size: str
    moments: Moments
    outline: float


@dataclass(frozen=True)
class Match:
    """A template at a place (fractions of the canvas), and its error there."""

    error: float
    template: Template
    x: float
    y: float

    def __str__(self) -> str:
        return f"{self.template.size} {self.template.shape} at ({self.x:.2f}, {self.y:.2f})"


def match(alpha_hw: np.ndarray, region: Region, canvas: int) -> list[Match]:
    """Match the likeliest (shape, size) pairs, each in its best softness; the best comes first."""
    seen = moments(alpha_hw)
    templates = sorted(_templates(canvas), key=lambda t: _unlike(seen, t.moments))
    matches = []
    for template in templates[:NUM_CANDIDATES]:
        x = (region[1].start + seen.x - template.moments.x) / canvas
        y = (region[0].start + seen.y - template.moments.y) / canvas
        drawn_hw = _draw(template.shape, template.size, x, y, region, canvas)
        square = min(((alpha_hw - smooth(drawn_hw, n)) ** 2).sum() for n in SOFTNESS)
        matches.append(Match(float(square) ** 0.5 / template.outline, template, x, y))
    return sorted(matches, key=lambda match: match.error)


def moments(alpha_hw: np.ndarray) -> Moments:
    """Return the moments of an alpha image; x, y count from its corner, pixel (0, 0) is at 0.5."""
    area = float(alpha_hw.sum())
    x, spread_x = _mean_and_spread(alpha_hw.sum(axis=0) / area)
    y, spread_y = _mean_and_spread(alpha_hw.sum(axis=1) / area)
    return Moments(area, x, y, spread_x, spread_y)


def _mean_and_spread(mass_n: np.ndarray) -> tuple[float, float]:
    at_n = np.arange(len(mass_n)) + 0.5
    mean = float(mass_n @ at_n)
    return mean, max(0.0, float(mass_n @ (at_n - mean) ** 2)) ** 0.5


@cache
def _templates(canvas: int) -> tuple[Template, ...]:
    """Return a template of every shape in every size."""
    return tuple(_template(shape, size, canvas) for shape in SHAPES for size in SIZES)


def _template(shape: str, size: str, canvas: int) -> Template:
    whole = (slice(0, canvas), slice(0, canvas))
    alpha_HW = smooth(_draw(shape, size, 0.5, 0.5, whole, canvas))
    m = moments(alpha_HW)
    centred = Moments(m.area, m.x - canvas / 2, m.y - canvas / 2, m.spread_x, m.spread_y)
    return Template(shape, size, centred, outline=float(np.hypot(*np.gradient(alpha_HW)).sum()))


def _draw(shape: str, size: str, x: float, y: float, region: Region, canvas: int) -> np.ndarray:
    """Draw the coverage of the pixels of a region by a shape, float32."""
    alpha_HW = np.zeros((canvas, canvas), dtype=np.float32)
    cover_hw, rows, columns = coverage(shape, SIZES[size], x, y, canvas)
    alpha_HW[rows, columns] = cover_hw
    return alpha_HW[region]


def _unlike(a: Moments, b: Moments) -> float:
    """Return how far two moments are apart, their places aside.

    Summed are the squared log ratios of the areas and of the squared spreads.
    """
    if min(a.area, a.spread_x, a.spread_y) <= 0:
        return np.inf
    return float(
        np.log(a.area / b.area) ** 2
        + 4 * np.log(a.spread_x / b.spread_x) ** 2
        + 4 * np.log(a.spread_y / b.spread_y) ** 2
    )


def smooth(pixels_HWx: np.ndarray, num_passes: int = 1) -> np.ndarray:
    """Smooth by 1/4, 1/2, 1/4 along rows and columns, `num_passes` times, the border repeated.

    pixels_HWx: (H, W) or (H, W, channels), float32, and so is the result.
    """
    height, width = pixels_HWx.shape[:2]
    rows_HW = _smoother(height, num_passes) @ pixels_HWx.reshape(height, -1)
    if pixels_HWx.ndim == 2:
        return rows_HW @ _smoother(width, num_passes).T
    return _smoother(width, num_passes) @ rows_HW.reshape(pixels_HWx.shape)


@cache
def _smoother(size: int, num_passes: int) -> np.ndarray:
    """Return the matrix, float32 (size, size), that smooths a column of pixels."""
    once = 0.5 * np.eye(size) + 0.25 * (np.eye(size, k=1) + np.eye(size, k=-1))
    once[0, 0] = once[-1, -1] = 0.75
    return np.linalg.matrix_power(once, num_passes).astype(np.float32)
