"""The world of things: icons and shapes on a page, with the graph of every image known.

In: what is to be seen. Out: a `ThingScene`, sizes and places in fractions of the canvas, and its
image: as the assistant draws it, plain and upright, so that `reading.py` can judge it (looks.py
draws it as other people might).

1. `laid_out` gives every item a place: one in the middle, two along an axis, more in the cells of a
   grid, apart by at least twice MARGIN.
2. `shows` tells whether an item can be told from a page.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from ..scenes.world import COLOURS, GROUNDS, MARGIN, SHAPES
from . import stamp
from .icons import STYLES
from .marks import Mark, paint
from .pages import solid
from .table import Things
from .wear import rounded

PAGES: dict[str, tuple[int, int, int]] = {  # sRGB, 0..255
    "white": (255, 255, 255),
    "black": (20, 20, 20),
    **GROUNDS,
    "pink": (255, 205, 220),
    "yellow": (255, 240, 160),
    "blue": (70, 120, 210),
    "green": (70, 150, 90),
}
USUAL_PAGES = ("white", *GROUNDS)  # where no page is asked for
WHITE_SHARE = 0.5  # of those
MAX_ITEMS = 4
ALONE = {"small": 0.4, "medium": 0.62, "large": 0.88}  # width of an item alone, by its size
USUAL_ALONE = 0.75
TOGETHER = {2: 0.43, 3: 0.4, 4: 0.4}  # width of an icon among so many items
SHAPE_SHARE = 0.85  # width of a shape, of the width that an icon would have
LEAST_CONTRAST = 55.0  # distance of a shape's colour from the page (Euclidean, sRGB)
SEEN = 28.0  # distance from the page at which a pixel of an icon is seen
LEAST_SEEN = 0.7  # part of an icon that is
OWN_COLOUR = 45.0  # root mean square distance of a tinted icon from the plain one that is no tint


@dataclass(frozen=True)
class Item:
    """An icon or a shape on the page; x, y (down) are the centre of its box, `width` its side."""

    name: str
    """Of an icon, or one of SHAPES."""
    is_icon: bool
    colour: str | None
    """One of COLOURS; None: an icon in its own colours."""
    x: float = 0.5
    y: float = 0.5
    width: float = USUAL_ALONE

    @property
    def what(self) -> tuple[str, bool, str | None]:
        """Return name, kind and colour."""
        return self.name, self.is_icon, self.colour


@dataclass(frozen=True)
class ThingScene:
    """Items that do not overlap, on one of PAGES, the icons in one style."""

    page: str
    items: tuple[Item, ...]
    style: str = "flat"


def usual_page(rng: np.random.Generator) -> str:
    """Draw a page where none is asked for."""
    if rng.random() < WHITE_SHARE:
        return "white"
    return USUAL_PAGES[rng.integers(1, len(USUAL_PAGES))]


def usual_width(is_icon: bool, count: int) -> float:
    """Return the width of an item among `count` items."""
    width = USUAL_ALONE if count == 1 else TOGETHER[count]
    return width if is_icon else width * SHAPE_SHARE


def laid_out(
    rng: np.random.Generator, widths: Sequence[float], relation: str | None = None
) -> list[tuple[float, float]]:
    """Place boxes of these widths (at most 0.4375 where there are several) and return centres.

    The first of two then stands in `relation` to the second: left of, right of, above or below.
    """
    assert 1 <= len(widths) <= MAX_ITEMS, f"{len(widths)} items: 1 to {MAX_ITEMS} have room"
    if len(widths) == 1:
        room = min(0.08, (1 - widths[0]) / 2 - MARGIN)
        x, y = 0.5 + rng.uniform(-room, room, 2)
        return [(float(x), float(y))]
    if len(widths) == 2:
        return _two(rng, widths, relation)
    cells = rng.permutation(4)[: len(widths)].tolist()
    return [
        (_inside(rng, cell % 2, width), _inside(rng, cell // 2, width))
        for cell, width in zip(cells, widths, strict=True)
    ]


def _inside(rng: np.random.Generator, half: int, width: float) -> float:
    """Place a box in the first or second half of an axis, its margin inside."""
    room = 0.25 - width / 2 - MARGIN
    return 0.25 + 0.5 * half + float(rng.uniform(-room, room))


def _two(
    rng: np.random.Generator, widths: Sequence[float], relation: str | None
) -> list[tuple[float, float]]:
    """Place two boxes along an axis, apart on it at least 1.5 times as far as across it."""
    relations = ("left of", "right of", "above", "below")
    relation = relation or relations[rng.integers(4)]
    turned = relation in ("right of", "below")
    first, second = (widths[1], widths[0]) if turned else (widths[0], widths[1])
    free = 1 - first - second - 4 * MARGIN
    before, between = (free * np.sort(rng.random(2))).tolist()
    along = [MARGIN + before + first / 2]
    along.append(MARGIN + before + first + 2 * MARGIN + (between - before) + second / 2)
    slack = min((along[1] - along[0]) / 1.5, 1 - max(widths) - 2 * MARGIN)
    slant = float(rng.uniform(-slack, slack)) / 2
    middle = 0.5 + float(rng.uniform(-0.02, 0.02))
    across = [middle + slant, middle - slant]
    places = list(zip(along, across, strict=True))
    if relation in ("above", "below"):
        places = [(y, x) for x, y in places]
    return places[::-1] if turned else places


def render(shown: ThingScene, things: Things, canvas: int = 64) -> np.ndarray:
    """Render a scene as the assistant draws it: uint8 (canvas, canvas, 3)."""
    pixels_HW3 = solid(np.array(PAGES[shown.page], dtype=np.float32), canvas)
    for item in shown.items:
        put(pixels_HW3, item, shown.style, things)
    return rounded(pixels_HW3)


def put(pixels_HW3: np.ndarray, item: Item, style: str, things: Things) -> None:
    """Draw an item plainly, in place."""
    if not item.is_icon:
        assert item.colour is not None, f"the shape {item.name} has a colour"
        paint(pixels_HW3, Mark(item.name, COLOURS[item.colour], item.x, item.y, item.width))
        return
    icon_hw4 = icon(things, item.name, style, item.colour, round(item.width * len(pixels_HW3)))
    stamp.lay(pixels_HW3, icon_hw4, item.x, item.y)


def icon(things: Things, name: str, style: str, colour: str | None, longest: int) -> np.ndarray:
    """Return an icon, tinted where it has a colour: float32 (h, w, 4), premultiplied."""
    icon_hw4 = stamp.scaled(things.drawing(name, style), longest)
    return icon_hw4 if colour is None else stamp.tinted(icon_hw4, COLOURS[colour])


def shows(item: Item, style: str, page: str, things: Things) -> bool:
    """Return whether an item stands out from a page."""
    if item.is_icon:
        return seen_share(things, item.name, style, item.colour, page) >= LEAST_SEEN
    assert item.colour is not None, f"the shape {item.name} has a colour"
    off = np.subtract(COLOURS[item.colour], PAGES[page])
    return float(np.sqrt((off**2).sum())) >= LEAST_CONTRAST


@cache
def seen_share(things: Things, name: str, style: str, colour: str | None, page: str) -> float:
    """Return the part of an icon's area that can be told from a page."""
    icon_hw4 = icon(things, name, style, colour, 24)
    alpha_hw = icon_hw4[:, :, 3] / 255
    off_hw3 = icon_hw4[:, :, :3] - alpha_hw[:, :, None] * np.array(PAGES[page], dtype=np.float32)
    seen_hw = np.square(off_hw3).sum(axis=2) > SEEN**2
    return float(alpha_hw[seen_hw].sum() / alpha_hw.sum())


@cache
def is_own_colour(things: Things, name: str, colour: str) -> bool:
    """Return whether a tint leaves an icon about as it is, in any style: a red fire engine."""
    return any(
        _root_mean_square(
            icon(things, name, style, colour, 24) - icon(things, name, style, None, 24)
        )
        < OWN_COLOUR
        for style in STYLES
    )


def _root_mean_square(off_hw4: np.ndarray) -> float:
    """Return how far apart two drawings are where they are drawn (Euclidean, sRGB)."""
    square_hw = np.square(off_hw4[:, :, :3]).sum(axis=2)
    return float(np.sqrt(square_hw.sum() / max(1, (square_hw > 0).sum())))


assert len(set(SHAPES) & set(PAGES)) == 0, "a page is no shape"
