"""Wide drawings for the image tokenizer: the exact scenes, and all that people may show besides.

In: (seed, number), a table of icons and photographs. Out: uint8 (canvas, canvas, 3), a pure
function of them.

A kind is drawn by the weights of a `DrawingMix`; every kind but the exact one stands on any page
(pages.py) and may be worn (wear.py). Held-out icons and held-out pairs of shapes are never shown.
Costs about 2 ms a drawing and core at 64 pixels.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np

from ..scenes.world import COLOURS, LARGE, SMALL, generator, render, scene
from . import stamp
from .hues import any_hue, away_from
from .icons import STYLES, is_held_out
from .marks import paint, random_mark
from .pages import page
from .pens import letters, strokes
from .photos import Photos
from .table import Things
from .wear import rounded, worn

PART = 2  # of the generator: 0 draws scenes, 1 conversations


@dataclass(frozen=True)
class DrawingMix:
    """How often each kind of drawing comes, of any sum."""

    exact: float = 0.25  # the scenes world as it is
    shapes: float = 0.2  # scenes at large: 1 to 8 shapes, outlined, turned, shaded, overlapping
    icon: float = 0.2  # one icon that fills most of the canvas
    icons: float = 0.2  # 2 to 6 icons and shapes
    pens: float = 0.08  # strokes and letters, alone or on a drawing
    pages: float = 0.02  # a page alone
    photos: float = 0.15  # crops of photographs; without any, none come

    def __post_init__(self) -> None:
        wrong = [f.name for f in fields(self) if not 0 <= getattr(self, f.name) < math.inf]
        if wrong:
            raise ValueError(f"{', '.join(wrong)}: a weight is a number of at least 0")
        if not any(getattr(self, f.name) for f in fields(self)):
            raise ValueError("drawings need at least one kind with a weight above 0")


def drawing(
    seed: int,
    number: int,
    canvas: int,
    things: Things,
    photos: Photos | None = None,
    mix: DrawingMix | None = None,
) -> np.ndarray:
    """Draw drawing `number` of a seed: uint8 (canvas, canvas, 3)."""
    desk = _Desk(generator(seed, number, PART), seed, number, canvas, things, photos)
    mix = mix or DrawingMix()
    kinds = [name for name in _KINDS if name != "photos" or photos is not None]
    edges = np.cumsum([getattr(mix, name) for name in kinds])
    at = int(np.searchsorted(edges, desk.rng.random() * edges[-1], side="right"))
    return _KINDS[kinds[at]](desk)


@dataclass(frozen=True)
class _Desk:
    """What drawing takes."""

    rng: np.random.Generator
    seed: int
    number: int
    canvas: int
    things: Things
    photos: Photos | None

    def page(self) -> np.ndarray:
        """Draw a page."""
        return page(self.rng, self.canvas, self.photos.crop if self.photos else None)

    def chance(self, probability: float) -> bool:
        """Draw True with this probability."""
        return bool(self.rng.random() < probability)


def _exact(desk: _Desk) -> np.ndarray:
    """Render the exact scene of (seed, number)."""
    world = SMALL if desk.canvas < 128 else LARGE
    return render(scene(desk.seed, desk.number, world, seen_only=True), desk.canvas)


def _shapes(desk: _Desk) -> np.ndarray:
    """Draw 1 to 8 shapes at large; half of the drawings are plain, as other programs draw them."""
    pixels_HW3 = desk.page()
    plain = 0.9 if desk.chance(0.5) else 0.3
    for x, y, room in _spots(desk, int(desk.rng.integers(1, 9))):
        _mark(desk, pixels_HW3, x, y, room, plain)
    return worn(pixels_HW3, desk.rng)


def _mark(
    desk: _Desk, pixels_HW3: np.ndarray, x: float, y: float, room: float, plain: float
) -> None:
    """Paint a shape of a colour that shows, at a spot with this much room."""
    ground_3 = pixels_HW3[int(y * desk.canvas), int(x * desk.canvas)]
    if desk.chance(0.5):
        names = list(COLOURS)
        colour_3 = np.array(COLOURS[names[desk.rng.integers(len(names))]], dtype=np.float32)
    else:
        colour_3 = away_from(desk.rng, ground_3)
    drawn = random_mark(desk.rng, colour_3, plain)
    width = room * float(desk.rng.uniform(0.6, 1))
    paint(pixels_HW3, replace(drawn, x=x, y=y, width=width))


def _icon(desk: _Desk) -> np.ndarray:
    """Draw one icon, mostly upright and whole."""
    pixels_HW3 = desk.page()
    width = desk.rng.uniform(0.5, 1.0) if desk.chance(0.85) else desk.rng.uniform(1.0, 1.6)
    x, y = 0.5 + desk.rng.uniform(-0.5, 0.5, 2) * max(0.08, 1 - width)
    _stamp(desk, pixels_HW3, x, y, width)
    return worn(pixels_HW3, desk.rng)


def _icons(desk: _Desk) -> np.ndarray:
    """Draw 2 to 6 icons and shapes; a quarter of the drawings repeats one icon."""
    pixels_HW3 = desk.page()
    name = _any_icon(desk) if desk.chance(0.25) else None
    for x, y, room in _spots(desk, int(desk.rng.integers(2, 7))):
        if name is None and desk.chance(0.3):
            _mark(desk, pixels_HW3, x, y, room, 0.7)
        else:
            _stamp(desk, pixels_HW3, x, y, room, name)
    return worn(pixels_HW3, desk.rng)


def _any_icon(desk: _Desk) -> str:
    """Draw an icon of all that are not held out."""
    while True:
        name = desk.things.icons[desk.rng.integers(len(desk.things.icons))].name
        if not is_held_out(name):
            return name


def _stamp(
    desk: _Desk, pixels_HW3: np.ndarray, x: float, y: float, width: float, name: str | None = None
) -> None:
    """Lay an icon in any style; some are turned, mirrored or tinted."""
    drawn = desk.things.drawing(name or _any_icon(desk), STYLES[desk.rng.integers(len(STYLES))])
    turn = float(desk.rng.uniform(-45, 45)) if desk.chance(0.1) else 0.0
    longest = max(4, round(width * desk.canvas))
    icon_hw4 = stamp.scaled(drawn, longest, turn, mirror=desk.chance(0.1))
    if desk.chance(0.2):
        red, green, blue = (float(v) for v in any_hue(desk.rng))
        icon_hw4 = stamp.tinted(icon_hw4, (red, green, blue))
    stamp.lay(pixels_HW3, icon_hw4, x, y)


def _pens(desk: _Desk) -> np.ndarray:
    """Draw with a pen or write, on a page or over a drawing."""
    pixels_HW3 = desk.page()
    if desk.chance(0.3):
        _stamp(desk, pixels_HW3, 0.5, 0.5, float(desk.rng.uniform(0.5, 0.9)))
    if desk.chance(0.6):
        strokes(pixels_HW3, desk.rng)
    else:
        letters(pixels_HW3, desk.rng)
    return worn(pixels_HW3, desk.rng)


def _pages(desk: _Desk) -> np.ndarray:
    return worn(desk.page(), desk.rng)


def _photos(desk: _Desk) -> np.ndarray:
    assert desk.photos is not None, "the kind is drawn only where there are photographs"
    pixels_HW3 = desk.photos.crop(desk.rng, desk.canvas)
    if desk.chance(0.15):
        pixels_HW3 = pixels_HW3.astype(np.float32)
        x, y, width = (float(v) for v in desk.rng.uniform(0.3, 0.7, 3))
        _stamp(desk, pixels_HW3, x, y, width)
        return rounded(pixels_HW3)
    return pixels_HW3


def _spots(desk: _Desk, count: int) -> list[tuple[float, float, float]]:
    """Return places as (x, y, room): mostly the cells of a shuffled grid, else anywhere."""
    if desk.chance(0.25):
        places = desk.rng.uniform(0.1, 0.9, (count, 2))
        rooms = np.exp(desk.rng.uniform(np.log(0.15), np.log(0.6), count))
        return [(float(x), float(y), float(r)) for (x, y), r in zip(places, rooms, strict=True)]
    columns = math.ceil(math.sqrt(count))
    cells = desk.rng.permutation(columns * columns)[:count]
    room = 0.9 / columns
    off = desk.rng.uniform(-0.06, 0.06, (count, 2))
    return [
        (
            float((cell % columns + 0.5) / columns + dx),
            float((cell // columns + 0.5) / columns + dy),
            room,
        )
        for cell, (dx, dy) in zip(cells, off, strict=True)
    ]


_KINDS: dict[str, Callable[[_Desk], np.ndarray]] = {
    "exact": _exact,
    "shapes": _shapes,
    "icon": _icon,
    "icons": _icons,
    "pens": _pens,
    "pages": _pages,
    "photos": _photos,
}
