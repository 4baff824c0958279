"""Read the graph of a scene of things back from pixels, or say that it cannot be read.

In: a uint8 image as world.py renders it, or as a model draws it; nothing of what was asked. Out: a
`ThingScene`, or `Unreadable` with the reason. It reads common icons in both styles, in their own
colours or tinted, and shapes, upright, apart from each other, on one of PAGES.

1. Pool the image to 64 to 127 pixels a side, smooth it, and take the page nearest to the frame.
2. Components of what is not page are items, or parts of items that only together can be read.
3. What lies around an item's centroid, in units of its spread, is scaled to 12 x 12 pixels and
   finds the templates that are likely (`sketches`).
4. Each of those is drawn as the renderer does (matching.py), where centroid and spread agree and at
   places and widths around. The least error wins, if it is small and clearly less than that of any
   other thing or colour.

Costs 40 ms an item and core at 64 pixels, and 4 s more for the first image of each page. Of 400
fresh renders it reads 99.5 % right and none wrong; 98 % at JPEG quality 50 or blurred by 1 pixel.
"""

from collections.abc import Iterator, Sequence
from functools import cache, partial
from itertools import product

import numpy as np

from ..scenes.reading import Unreadable, label, smoothed_canvas
from ..scenes.templates import smooth
from ..scenes.world import COLOURS, MARGIN, SHAPES
from .icons import STYLES
from .matching import PAD, Box, Match, Moments, Seen, Template, moments, off_page, sketch
from .names import NAMES
from .table import Things
from .world import MAX_ITEMS, PAGES, Item, ThingScene, is_own_colour, seen_share, shows

PAGE_LIMIT = 40.0  # distance of the frame's median from the page (Euclidean, sRGB)
EDGE = 36.0  # distance from the page, after smoothing, that belongs to an item
MIN_AREA_PX = 14  # smaller components are specks; pixels of a canvas of 64
ERROR_LIMIT = 0.45
SURE = 0.25  # a match with a smaller error is not tried with its neighbours
RIVAL_RATIO = 1.1  # least error of any other thing or colour over that of the best
LEAST_SEEN = 0.3  # of an icon: what shows less on a page is not looked for
SKETCH_ICON = 40  # pixels a side of the icon that a sketch is made of
NUM_CANDIDATES = 16  # drawn where their centroid and spread agree
NUM_REFINED = 4  # of those, drawn at places around it
STAINED_LIMIT = 0.015  # part of the canvas that may be neither page nor near an item


def read_things(image_HW3: np.ndarray, things: Things) -> ThingScene | Unreadable:
    """Return the scene that the pixels show, or why it cannot be read.

    image_HW3: uint8; ValueError for another type. An image that is not square, or not 64 to 512
    pixels a side, is Unreadable.
    """
    pixels_HW3 = smoothed_canvas(image_HW3)
    if isinstance(pixels_HW3, Unreadable):
        return pixels_HW3
    page = _read_page(pixels_HW3)
    if isinstance(page, Unreadable):
        return page
    found = _read_items(pixels_HW3 - np.array(PAGES[page], np.float32), page, things)
    if isinstance(found, Unreadable):
        return found
    icons = [match for match in found if match.template.is_icon]
    style = min(icons, key=_error).template.style if icons else STYLES[0]
    return ThingScene(page, tuple(match.item for match in found), style)


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
    read: list[Box] = []
    while boxes:
        match, box, boxes = _read_next(off_HW3, boxes, page, things)
        if isinstance(match, Unreadable):
            return match
        found.append(match)
        read.append(box)
    if len(found) > MAX_ITEMS:
        return Unreadable(f"{len(found)} items, and at most {MAX_ITEMS} are read")
    stained = _stained(off_HW3, read)
    if stained > STAINED_LIMIT:
        return Unreadable(f"{stained:.1%} of the canvas is neither page nor item")
    return found


def _read_next(
    off_HW3: np.ndarray, boxes: list[Box], page: str, things: Things
) -> tuple[Match | Unreadable, Box, list[Box]]:
    """Read the first box, or it and the nearest ones where it is but a part.

    Return the match, the box that it fills, and the boxes that are left.
    """
    box, *others = boxes
    found, filled = _read_item(off_HW3, box, page, things), box
    while others and (isinstance(found, Unreadable) or found.error > SURE):
        nearest = min(others, key=partial(_gap, box))
        others.remove(nearest)
        box = _union(box, nearest)
        more = _read_item(off_HW3, box, page, things)
        if isinstance(more, Match) and (isinstance(found, Unreadable) or more.error < found.error):
            found, filled = more, box
    if isinstance(found, Unreadable):
        return found, filled, boxes[1:]
    own = _square(found.item, len(off_HW3))
    left = [one for one in boxes[1:] if _gap(filled, one) >= 0 and not _is_inside(one, own)]
    return found, filled, left


def _boxes(off_HW3: np.ndarray) -> list[Box]:
    """Return the boxes of the components of what is not page, the largest first."""
    least_px = MIN_AREA_PX * (len(off_HW3) / 64) ** 2
    labels_HW, count = label(np.square(off_HW3).sum(axis=2) > EDGE**2)
    areas = np.bincount(labels_HW.ravel(), minlength=count + 1)
    boxes = [_box(labels_HW == k) for k in range(1, count + 1) if areas[k] >= least_px]
    return sorted(boxes, key=lambda b: (b[0] - b[2]) * (b[3] - b[1]))


def _box(mask_HW: np.ndarray) -> Box:
    rows, columns = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def _union(a: Box, b: Box) -> Box:
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def _gap(a: Box, b: Box) -> int:
    """Return how many pixels two boxes are apart; below 0 they overlap."""
    return max(b[0] - a[2], a[0] - b[2], b[1] - a[3], a[1] - b[3])


def _square(item: Item, canvas: int) -> Box:
    """Return the box of an item on a canvas of so many pixels."""
    top, left, bottom, right = (
        round((centre + side * item.width / 2) * canvas)
        for side in (-1, 1)
        for centre in (item.y, item.x)
    )
    return top, left, bottom, right


def _is_inside(box: Box, other: Box) -> bool:
    """Return whether the centre of a box lies in another: it is a part of what fills that."""
    y, x = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return other[0] <= y <= other[2] and other[1] <= x <= other[3]


def _stained(off_HW3: np.ndarray, read: Sequence[Box]) -> float:
    """Return the part of the canvas that is not page, outside the boxes that were read."""
    seen_HW = np.square(off_HW3).sum(axis=2) > EDGE**2
    for top, left, bottom, right in read:
        seen_HW[max(0, top - PAD) : bottom + PAD, max(0, left - PAD) : right + PAD] = False
    return float(seen_HW.mean())


def _read_item(off_HW3: np.ndarray, box: Box, page: str, things: Things) -> Match | Unreadable:
    """Return the template that fits what lies in a box."""
    templates, sketches_Nd = sketches(things, page)
    found = moments(off_HW3, box)
    distances_N = np.square(sketches_Nd - sketch(off_HW3, box, found)).sum(axis=1)
    likely = np.argpartition(distances_N, NUM_CANDIDATES)[:NUM_CANDIDATES]
    seen = Seen(off_HW3, box, page, things)
    matches = sorted((seen.fitted(templates[k], found) for k in likely.tolist()), key=_error)
    refined = sorted((seen.refined(match) for match in _with_rival(matches)), key=_error)
    best = refined[0]
    if best.error > ERROR_LIMIT:
        return Unreadable(f"no thing fits: the error of a {best} is {best.error:.2f}")
    rivals = [m for m in refined + matches if m.template.what != best.template.what]
    if rivals and min(map(_error, rivals)) < RIVAL_RATIO * best.error:
        return Unreadable(f"a {best} or a {min(rivals, key=_error)}")
    return best


def _error(match: Match) -> float:
    return match.error


def _with_rival(matches: Sequence[Match]) -> list[Match]:
    """Return the best matches, and the next one of another thing or colour than the best."""
    first = matches[0].template.what
    rival = [match for match in matches[NUM_REFINED:] if match.template.what != first][:1]
    return [*matches[:NUM_REFINED], *rival]


@cache
def sketches(things: Things, page: str) -> tuple[tuple[Template, ...], np.ndarray]:
    """Return the templates that show on a page, and a sketch of each, float32 (N, d)."""
    templates, found = [], []
    canvas = SKETCH_ICON + 8
    for what, style in _all_whats(things, page):
        item = Item(*what, 0.5, 0.5, SKETCH_ICON / canvas)
        off_HW3 = smooth(off_page(item, style, page, canvas, things))
        box = 0, 0, canvas, canvas
        own = moments(off_HW3, box)
        x, y = ((v - canvas / 2) / SKETCH_ICON for v in (own.x, own.y))
        templates.append(Template(*what, style, Moments(x, y, own.spread / SKETCH_ICON)))
        found.append(sketch(off_HW3, box, own))
    return tuple(templates), np.stack(found)


def _all_whats(things: Things, page: str) -> Iterator[tuple[tuple[str, bool, str | None], str]]:
    """Yield (name, kind, colour) and style of all that may be drawn on a page."""
    for shape, colour in product(SHAPES, COLOURS):
        if shows(Item(shape, False, colour), STYLES[0], page, things):
            yield (shape, False, colour), STYLES[0]
    common = [icon.name for icon in things.icons if icon.name in NAMES]
    for name, style, tint in product(common, STYLES, (None, *COLOURS)):
        if tint is not None and is_own_colour(things, name, tint):
            continue
        if seen_share(things, name, style, tint, page) > LEAST_SEEN:
            yield (name, True, tint), style


def same_things(a: ThingScene, b: ThingScene, tolerance_px: float = 2.0, canvas: int = 64) -> bool:
    """Return whether page, style and items agree and centres pair up to `tolerance_px`.

    The order of items does not matter, nor the style where no item is an icon; distances are
    Euclidean, in pixels of `canvas`.
    """
    has_style = any(item.is_icon for item in (*a.items, *b.items))
    if a.page != b.page or len(a.items) != len(b.items) or (has_style and a.style != b.style):
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
