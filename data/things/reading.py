"""Read the graph of a scene of things back from pixels, or say that it cannot be read.

In: a uint8 image as world.py renders it, or as a model draws it; nothing of what was asked. Out: a
`ThingScene`, or `Unreadable` with the reason. It reads common icons in both styles, in their own
colours or tinted, and shapes, upright, apart from each other, on one of PAGES.

1. Pool the image to 64 to 127 pixels a side; the page is the one nearest to the frame.
2. Components of what is not page are items, or parts of items that only together can be read.
3. An item's box, scaled to 12 x 12 pixels, finds the templates that are likely (`sketches`).
4. Each of those is drawn as the renderer does, at the places and widths around where its box fits.
   The least error wins, if it is small and clearly less than that of any other thing or colour.

The error is the root of the summed squares over those of the template itself against the page: 0 is
the renderer's own image, 1 an empty page. Costs 25 ms an item and core at 64 pixels, and 4 s for
the first image of each page.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import product

import numpy as np
from PIL import Image as PILImage

from ..scenes.reading import Unreadable, label, pool, smooth
from ..scenes.world import CANVASES, COLOURS, MARGIN, SHAPES, coverage
from .icons import STYLES
from .names import NAMES
from .table import Things
from .world import MAX_ITEMS, PAGES, SEEN, Item, ThingScene, icon, seen_share, shows

PAGE_LIMIT = 40.0  # root mean square distance of the frame from the page (Euclidean, sRGB)
LEAST_SEEN = 0.3  # of an icon: what shows less on a page is not looked for
MIN_AREA_PX = 14  # smaller components are specks, or parts of items
ERROR_LIMIT = 0.4
RIVAL_RATIO = 1.12  # least error of any other thing or colour over that of the best
SKETCH = 12  # pixels a side
SKETCH_ICON = 40  # pixels a side of the icon that a sketch is made of
NUM_CANDIDATES = 14  # drawn at the place where their box fits
NUM_REFINED = 4  # of those, drawn at places around it
STAIN, STAINED_LIMIT = 60.0, 0.03  # distance from what was read; part of the canvas that may be so
PAD = 3  # pixels looked at around an item

Box = tuple[int, int, int, int]  # top, left, bottom, right; the last two are outside


@dataclass(frozen=True)
class Template:
    """A thing as it may be drawn, and where the visible box of its sketch lies."""

    name: str
    is_icon: bool
    colour: str | None
    style: str
    side: float  # of its visible box, in widths of the whole
    x: float  # of that box's centre from the whole's, in widths
    y: float

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


def read_things(image_HW3: np.ndarray, things: Things) -> ThingScene | Unreadable:
    """Return the scene that the pixels show, or why it cannot be read.

    image_HW3: uint8; ValueError for another type. An image that is not square, or not 64 to 512
    pixels a side, is Unreadable.
    """
    if image_HW3.dtype != np.uint8 or image_HW3.ndim != 3 or image_HW3.shape[2] != 3:
        raise ValueError(f"image of {image_HW3.dtype} {image_HW3.shape}: give uint8 (H, W, 3)")
    height, width = image_HW3.shape[:2]
    least, most = CANVASES
    if height != width or not least <= width <= most:
        return Unreadable(f"{width}x{height} pixels: scenes are square, {least} to {most} a side")
    pixels_HW3 = pool(image_HW3)
    page = _read_page(pixels_HW3)
    if isinstance(page, Unreadable):
        return page
    found = _read_items(pixels_HW3 - np.array(PAGES[page], np.float32), page, things)
    if isinstance(found, Unreadable):
        return found
    styles = {match.template.style for match in found if match.template.is_icon}
    if len(styles) > 1:
        return Unreadable("icons of two styles")
    return ThingScene(page, tuple(match.item for match in found), (*styles, "flat")[0])


def _read_page(pixels_HW3: np.ndarray) -> str | Unreadable:
    """Return the page nearest to the median of the frame."""
    depth = max(1, int(MARGIN * len(pixels_HW3)))
    inside = np.zeros(pixels_HW3.shape[:2], dtype=bool)
    inside[depth:-depth, depth:-depth] = True
    frame_3 = np.median(pixels_HW3[~inside], axis=0)
    off = {name: float(np.hypot.reduce(frame_3 - colour)) for name, colour in PAGES.items()}
    best = min(off, key=off.__getitem__)
    if off[best] > PAGE_LIMIT:
        return Unreadable(f"the nearest page is {off[best]:.0f} levels away")
    return best


def _read_items(off_HW3: np.ndarray, page: str, things: Things) -> list[Match] | Unreadable:
    """Read the items of an image from which the page was subtracted."""
    boxes = _boxes(off_HW3)
    if not boxes:
        return Unreadable("nothing but a page")
    if len(boxes) > 3 * MAX_ITEMS:
        return Unreadable(f"{len(boxes)} parts, and at most {MAX_ITEMS} items are read")
    found: list[Match] = []
    while boxes:
        match, boxes = _read_next(off_HW3, boxes, page, things)
        if isinstance(match, Unreadable):
            return match
        found.append(match)
    stained = _stained(off_HW3, found, page, things)
    if stained > STAINED_LIMIT:
        return Unreadable(f"{stained:.1%} of the canvas is neither page nor item")
    if len(found) > MAX_ITEMS:
        return Unreadable(f"{len(found)} items, and at most {MAX_ITEMS} are read")
    return found


def _read_next(
    off_HW3: np.ndarray, boxes: list[Box], page: str, things: Things
) -> tuple[Match | Unreadable, list[Box]]:
    """Read the first box, with more and more of the nearest ones where it is but a part.

    Return the match and the boxes that are left.
    """
    box, *others = boxes
    first = match = _read_item(off_HW3, box, page, things)
    while isinstance(match, Unreadable) and others:
        nearest = min(others, key=partial(_gap, box))
        others.remove(nearest)
        box = _union(box, nearest)
        match = _read_item(off_HW3, box, page, things)
    if isinstance(match, Unreadable):
        return first, boxes
    return match, [other for other in others if _gap(box, other) >= 0]


def _boxes(off_HW3: np.ndarray) -> list[Box]:
    """Return the boxes of the components of what is not page, the largest first."""
    scale = len(off_HW3) / 64
    seen_HW = np.square(off_HW3).sum(axis=2) > SEEN**2
    labels_HW, count = label(_grown(seen_HW))
    boxes = []
    for number in range(1, count + 1):
        part_HW = seen_HW & (labels_HW == number)
        if part_HW.sum() >= MIN_AREA_PX * scale**2:
            boxes.append(_box(part_HW))
    return sorted(boxes, key=lambda b: (b[0] - b[2]) * (b[3] - b[1]))


def _grown(mask_HW: np.ndarray) -> np.ndarray:
    """Return a mask with all neighbours of its pixels: parts of an item mostly touch then."""
    p = np.pad(mask_HW, 1)
    rows = p[:-2] | p[1:-1] | p[2:]
    return rows[:, :-2] | rows[:, 1:-1] | rows[:, 2:]


def _box(mask_HW: np.ndarray) -> Box:
    rows, columns = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def _union(a: Box, b: Box) -> Box:
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def _gap(a: Box, b: Box) -> int:
    """Return how many pixels two boxes are apart; below 0 they overlap."""
    return max(b[0] - a[2], a[0] - b[2], b[1] - a[3], a[1] - b[3])


def _read_item(off_HW3: np.ndarray, box: Box, page: str, things: Things) -> Match | Unreadable:
    """Return the template that fits what lies in a box."""
    templates, sketches_N = sketches(things, page)
    sketch = _sketch(off_HW3, box)
    distances_N = ((sketches_N - sketch) ** 2).sum(axis=1)
    likely = np.argpartition(distances_N, NUM_CANDIDATES)[:NUM_CANDIDATES]
    seen = _Seen(off_HW3, box, page, things)
    matches = sorted((seen.fitted(templates[k]) for k in likely.tolist()), key=_error)
    refined = [seen.refined(match) for match in _others_too(matches)]
    refined.sort(key=_error)
    best = refined[0]
    if best.error > ERROR_LIMIT:
        return Unreadable(f"no thing fits: the error of a {best} is {best.error:.2f}")
    rivals = [m for m in refined + matches if m.template.what != best.template.what]
    if rivals and min(map(_error, rivals)) < RIVAL_RATIO * best.error:
        return Unreadable(f"a {best} or a {min(rivals, key=_error)}")
    return best


def _error(match: Match) -> float:
    return match.error


def _others_too(matches: Sequence[Match]) -> list[Match]:
    """Return the best matches, and the best one of another thing or colour."""
    first = matches[0].template.what
    rival = [match for match in matches[NUM_REFINED:] if match.template.what != first][:1]
    return [*matches[:NUM_REFINED], *rival]


class _Seen:
    """What lies in a box and around it, to be compared with templates."""

    def __init__(self, off_HW3: np.ndarray, box: Box, page: str, things: Things) -> None:
        self.canvas, self.box, self.page, self.things = len(off_HW3), box, page, things
        self.top, self.left = max(0, box[0] - PAD), max(0, box[1] - PAD)
        region_hw3 = off_HW3[self.top : box[2] + PAD, self.left : box[3] + PAD]
        self.shape = region_hw3.shape
        self.seen_hw3 = smooth(np.ascontiguousarray(region_hw3))
        self.icons: dict[tuple[Template, int], np.ndarray] = {}

    def fitted(self, template: Template) -> Match:
        """Compare a template where its visible box and the one seen fit."""
        top, left, bottom, right = self.box
        width = max(bottom - top, right - left) / template.side
        x = (left + right) / 2 - template.x * width
        y = (top + bottom) / 2 - template.y * width
        return self.match(template, x, y, width)

    def refined(self, match: Match) -> Match:
        """Compare a template at places and widths around a match, and return the best."""
        x, y, width = (v * self.canvas for v in (match.item.x, match.item.y, match.item.width))
        if match.template.is_icon:  # on whole pixels
            tries = product((-1.0, 0.0, 1.0), repeat=3)
            return min(self.tried(match.template, x, y, width, tries), key=_error)
        for step in (1.0, 0.5, 0.25):
            tries = product((-step, 0.0, step), repeat=3)
            match = min(self.tried(match.template, x, y, width, tries), key=_error)
            x, y, width = (v * self.canvas for v in (match.item.x, match.item.y, match.item.width))
        return match

    def tried(self, template: Template, x: float, y: float, width: float, tries) -> Iterator[Match]:
        """Compare a template at several places, in pixels."""
        for dx, dy, more in tries:
            if width + more >= 6:
                yield self.match(template, x + dx, y + dy, width + more)

    def match(self, template: Template, x: float, y: float, width: float) -> Match:
        """Compare a template at a place, in pixels."""
        width = float(round(width)) if template.is_icon else width
        item = Item(*template.what, x / self.canvas, y / self.canvas, width / self.canvas)
        drawn_hw3 = np.zeros(self.shape, np.float32)
        if template.is_icon:
            off_hw3 = self.icon(template, round(width))
            _lay(drawn_hw3, off_hw3, *_corner(off_hw3, x, y), (self.top, self.left))
        else:
            _lay(drawn_hw3, *_off_shape(item, self.page, self.canvas), (self.top, self.left))
        own = float(np.square(drawn_hw3).sum())
        off = float(np.square(self.seen_hw3 - smooth(drawn_hw3)).sum())
        return Match((off / max(own, 1.0)) ** 0.5, template, item)

    def icon(self, template: Template, longest: int) -> np.ndarray:
        """Return how an icon differs from the page, drawn once for all places."""
        key = template, longest
        if key not in self.icons:
            self.icons[key] = _off_icon(
                template.name, template.style, template.colour, longest, self.page, self.things
            )
        return self.icons[key]


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
    inside = region_hw3[max(0, y) : y + len(off_hw3), max(0, x) : x + off_hw3.shape[1]]
    inside += off_hw3[max(0, -y) :, max(0, -x) :][: len(inside), : inside.shape[1]]


def _drawn(canvas: int, page: str, items: Iterable[tuple[Item, str]], things: Things) -> np.ndarray:
    """Draw how items, each with its style, differ from their page: float32 (canvas, canvas, 3)."""
    drawn_HW3 = np.zeros((canvas, canvas, 3), np.float32)
    for item, style in items:
        if item.is_icon:
            longest = round(item.width * canvas)
            off_hw3 = _off_icon(item.name, style, item.colour, longest, page, things)
            _lay(drawn_HW3, off_hw3, *_corner(off_hw3, item.x * canvas, item.y * canvas), (0, 0))
        else:
            _lay(drawn_HW3, *_off_shape(item, page, canvas), (0, 0))
    return drawn_HW3


def _stained(off_HW3: np.ndarray, found: Sequence[Match], page: str, things: Things) -> float:
    """Return the part of the canvas that is far from what was read."""
    items = [(match.item, match.template.style) for match in found]
    drawn_HW3 = _drawn(len(off_HW3), page, items, things)
    left_HW3 = smooth(np.ascontiguousarray(off_HW3, np.float32)) - smooth(drawn_HW3)
    return float((np.square(left_HW3).sum(axis=2) > STAIN**2).mean())


def _sketch(off_HW3: np.ndarray, box: Box) -> np.ndarray:
    """Return the square around a box scaled to SKETCH pixels a side, float32 (SKETCH^2 * 3,)."""
    top, left, bottom, right = box
    side = max(bottom - top, right - left)
    square_hw3 = np.zeros((side, side, 3), np.float32)
    y, x = (side - (bottom - top)) // 2, (side - (right - left)) // 2
    square_hw3[y : y + bottom - top, x : x + right - left] = off_HW3[top:bottom, left:right]
    bands = [
        np.asarray(
            PILImage.fromarray(np.ascontiguousarray(square_hw3[:, :, c])).resize(
                (SKETCH, SKETCH), PILImage.Resampling.BILINEAR
            )
        )
        for c in range(3)
    ]
    return np.stack(bands, axis=2).ravel()


@cache
def sketches(things: Things, page: str) -> tuple[tuple[Template, ...], np.ndarray]:
    """Return the templates that show on a page, and a sketch of each, float32 (N, SKETCH^2 * 3)."""
    templates, found = [], []
    canvas = SKETCH_ICON + 8
    for what, style in _all_whats(things, page):
        item = Item(*what, 0.5, 0.5, SKETCH_ICON / canvas)
        drawn_HW3 = _drawn(canvas, page, [(item, style)], things)
        seen_HW = np.square(drawn_HW3).sum(axis=2) > SEEN**2
        if not seen_HW.any():
            continue
        box = _box(seen_HW)
        top, left, bottom, right = box
        side = max(bottom - top, right - left) / SKETCH_ICON
        x, y = (((a + b) - canvas) / 2 / SKETCH_ICON for a, b in ((left, right), (top, bottom)))
        templates.append(Template(*what, style, side, x, y))
        found.append(_sketch(drawn_HW3, box))
    return tuple(templates), np.stack(found)


def _all_whats(things: Things, page: str) -> Iterator[tuple[tuple[str, bool, str | None], str]]:
    """Yield (name, kind, colour) and style of all that may be drawn on a page."""
    for shape, colour in product(SHAPES, COLOURS):
        if shows(Item(shape, False, colour), "flat", page, things):
            yield (shape, False, colour), "flat"
    for name, style, tint in product(NAMES, STYLES, (None, *COLOURS)):
        if seen_share(things, name, style, tint, page) > LEAST_SEEN:
            yield (name, True, tint), style


def same_things(a: ThingScene, b: ThingScene, tolerance_px: float = 2.0, canvas: int = 64) -> bool:
    """Return whether page, style and items agree and centres pair up to `tolerance_px`.

    The order of items does not matter; distances are Euclidean, in pixels of `canvas`.
    """
    if (a.page, a.style, len(a.items)) != (b.page, b.style, len(b.items)):
        return False
    return _pair_up(list(a.items), list(b.items), tolerance_px / canvas)


def _pair_up(a: list[Item], b: list[Item], tolerance: float) -> bool:
    if not a:
        return True
    return any(
        other.what == a[0].what
        and np.hypot(other.x - a[0].x, other.y - a[0].y) <= tolerance
        and _pair_up(a[1:], b[:k] + b[k + 1 :], tolerance)
        for k, other in enumerate(b)
    )
