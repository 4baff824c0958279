"""Compare templates of things with a part of an image.

In: how an image differs from its page, a box in it, and templates. Out: a `Match`: a template at a
place, and its error there: the root of the summed squares over those of the template itself against
the page. 0 is the renderer's own image, 1 an empty page.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from PIL import Image as PILImage

from ..scenes.templates import smooth
from ..scenes.world import COLOURS, coverage
from .table import Things
from .world import PAGES, Item, icon

PAD = 3  # pixels looked at around an item
LEAST_WIDTH = 6.0  # pixels of an item
SKETCH = 12  # pixels a side
WINDOW = 4.4  # side of the square that a sketch shows, in spreads
MASS_FROM, MASS_TO = 20.0, 128.0  # distance from the page that counts as nothing, and as all
SOFTNESS = (1, 2, 4)  # passes of smoothing; the image has had the first of them
STEPS = {True: (2.0, 1.0, 1.0), False: (1.0, 0.5, 0.25)}  # pixels; an icon stands on whole ones

Box = tuple[int, int, int, int]  # top, left, bottom, right; the last two are outside


@dataclass(frozen=True)
class Moments:
    """The centroid of what differs from the page, and its spread around it."""

    x: float
    y: float
    spread: float


@dataclass(frozen=True)
class Template:
    """A thing as it may be drawn; its moments are in widths, from its centre."""

    name: str
    is_icon: bool
    colour: str | None
    style: str
    moments: Moments

    @property
    def what(self) -> tuple[str, bool, str | None]:
        """Return name, kind and colour."""
        return self.name, self.is_icon, self.colour


@dataclass(frozen=True)
class Match:
    """A template at a place (fractions of the canvas), and its error there."""

    error: float
    template: Template
    item: Item

    def __str__(self) -> str:
        words = (self.template.colour, self.template.name, self.template.style)
        return " ".join(word for word in words if word)


def moments(off_HW3: np.ndarray, box: Box) -> Moments:
    """Return the moments, in pixels, of how the pixels of a box differ from the page."""
    top, left, bottom, right = box
    far_hw = np.sqrt(np.square(off_HW3[top:bottom, left:right]).sum(axis=2))
    mass_hw = (far_hw - MASS_FROM).clip(0, MASS_TO - MASS_FROM)
    total = max(float(mass_hw.sum()), 1e-6)
    y_h, x_w = np.arange(top, bottom) + 0.5, np.arange(left, right) + 0.5
    y, x = float(mass_hw.sum(axis=1) @ y_h) / total, float(mass_hw.sum(axis=0) @ x_w) / total
    square = mass_hw.sum(axis=1) @ (y_h - y) ** 2 + mass_hw.sum(axis=0) @ (x_w - x) ** 2
    return Moments(x, y, max(1.0, float(square) / total) ** 0.5)


def sketch(off_HW3: np.ndarray, box: Box, own: Moments) -> np.ndarray:
    """Return what is around the centroid, SKETCH pixels a side, flat float32 (SKETCH^2 * 3,)."""
    top, left, bottom, right = box
    half = WINDOW / 2 * own.spread
    edge = int(half) + 2
    padded_hw3 = np.pad(off_HW3[top:bottom, left:right], ((edge, edge), (edge, edge), (0, 0)))
    x, y = own.x - left + edge, own.y - top + edge
    bands = [
        np.asarray(
            PILImage.fromarray(np.ascontiguousarray(padded_hw3[:, :, band])).resize(
                (SKETCH, SKETCH),
                PILImage.Resampling.BILINEAR,
                box=(x - half, y - half, x + half, y + half),
            )
        )
        for band in range(3)
    ]
    return np.stack(bands, axis=2).ravel()


class Seen:
    """What lies in a box and around it, to be compared with templates."""

    def __init__(self, off_HW3: np.ndarray, box: Box, page: str, things: Things) -> None:
        self.canvas, self.page, self.things = len(off_HW3), page, things
        self.top, self.left = max(0, box[0] - PAD), max(0, box[1] - PAD)
        self.seen_hw3 = np.ascontiguousarray(
            off_HW3[self.top : box[2] + PAD, self.left : box[3] + PAD]
        )
        self.icons: dict[tuple[Template, int], np.ndarray] = {}

    def fitted(self, template: Template, found: Moments) -> Match:
        """Compare a template where its centroid and spread are those found."""
        own = template.moments
        width = found.spread / own.spread
        return self.match(template, found.x - own.x * width, found.y - own.y * width, width)

    def refined(self, match: Match) -> Match:
        """Compare a template at places and widths around a match, and return the best.

        How soft the image is decides the last comparison.
        """
        for step in STEPS[match.template.is_icon]:
            around = self.around(match, step)
            match = min((match, *around), key=lambda one: one.error)
        return min(
            (self.match(match.template, *self.place(match), softness) for softness in SOFTNESS),
            key=lambda one: one.error,
        )

    def place(self, match: Match) -> tuple[float, float, float]:
        """Return x, y and width of a match in pixels."""
        item = match.item
        return item.x * self.canvas, item.y * self.canvas, item.width * self.canvas

    def around(self, match: Match, step: float) -> Iterator[Match]:
        """Compare a template a step aside, wider and narrower."""
        x, y, width = self.place(match)
        for dx, dy, more in product((-step, 0.0, step), repeat=3):
            if width + more >= LEAST_WIDTH:
                yield self.match(match.template, x + dx, y + dy, width + more)

    def match(
        self, template: Template, x: float, y: float, width: float, softness: int = 1
    ) -> Match:
        """Compare a template at a place, in pixels."""
        width = max(LEAST_WIDTH, float(round(width)) if template.is_icon else width)
        item = Item(*template.what, x / self.canvas, y / self.canvas, width / self.canvas)
        drawn_hw3 = np.zeros(self.seen_hw3.shape, np.float32)
        if template.is_icon:
            off_hw3 = self.icon(template, round(width))
            _lay(drawn_hw3, off_hw3, *_corner(off_hw3, x, y), (self.top, self.left))
        else:
            _lay(drawn_hw3, *_off_shape(item, self.page, self.canvas), (self.top, self.left))
        own = float(np.square(drawn_hw3).sum())
        off = float(np.square(self.seen_hw3 - smooth(drawn_hw3, softness)).sum())
        return Match((off / max(own, 1.0)) ** 0.5, template, item)

    def icon(self, template: Template, longest: int) -> np.ndarray:
        """Return how an icon differs from the page, drawn once for all places."""
        key = template, longest
        if key not in self.icons:
            self.icons[key] = _off_icon(
                template.name, template.style, template.colour, longest, self.page, self.things
            )
        return self.icons[key]


def off_page(item: Item, style: str, page: str, canvas: int, things: Things) -> np.ndarray:
    """Return how an item on a canvas differs from its page: float32 (canvas, canvas, 3)."""
    drawn_HW3 = np.zeros((canvas, canvas, 3), np.float32)
    if item.is_icon:
        longest = round(item.width * canvas)
        off_hw3 = _off_icon(item.name, style, item.colour, longest, page, things)
        _lay(drawn_HW3, off_hw3, *_corner(off_hw3, item.x * canvas, item.y * canvas), (0, 0))
    else:
        _lay(drawn_HW3, *_off_shape(item, page, canvas), (0, 0))
    return drawn_HW3


def _off_icon(
    name: str, style: str, colour: str | None, longest: int, page: str, things: Things
) -> np.ndarray:
    """Return how an icon differs from its page: float32 (h, w, 3)."""
    icon_hw4 = icon(things, name, style, colour, longest)
    return icon_hw4[:, :, :3] - icon_hw4[:, :, 3:] / 255 * np.array(PAGES[page], np.float32)


def _off_shape(item: Item, page: str, canvas: int) -> tuple[np.ndarray, int, int]:
    """Return how a shape differs from its page, float32 (h, w, 3), and its top and left."""
    assert item.colour is not None, f"the shape {item.name} has a colour"
    cover_hw, rows, columns = coverage(item.name, item.width, item.x, item.y, canvas)
    way_3 = np.subtract(COLOURS[item.colour], PAGES[page]).astype(np.float32)
    return cover_hw[:, :, None] * way_3, rows.start, columns.start


def _corner(off_hw3: np.ndarray, x: float, y: float) -> tuple[int, int]:
    """Return top and left of an icon with its centre at (x, y), in pixels, as in `stamp.lay`."""
    return round(y - len(off_hw3) / 2), round(x - off_hw3.shape[1] / 2)


def _lay(
    region_hw3: np.ndarray, off_hw3: np.ndarray, top: int, left: int, origin: tuple[int, int]
) -> None:
    """Add what differs from a page, at a place on the canvas, to a region with this origin."""
    y, x = top - origin[0], left - origin[1]
    inside = region_hw3[
        max(0, y) : max(0, y + len(off_hw3)), max(0, x) : max(0, x + off_hw3.shape[1])
    ]
    inside += off_hw3[max(0, -y) :, max(0, -x) :][: len(inside), : inside.shape[1]]
