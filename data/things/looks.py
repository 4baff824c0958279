"""Draw a scene of things as other people might: any page, any look of shapes, worn.

In: a `ThingScene` whose page is left open, and a generator. Out: uint8 (canvas, canvas, 3). Kinds,
colours, places and counts stay what the graph says.
"""

from dataclasses import replace

import numpy as np

from ..scenes.world import COLOURS
from . import stamp
from .marks import FILLS, Mark, paint, random_mark
from .pages import page
from .table import Things
from .wear import worn
from .world import Item, ThingScene, icon

Generator = np.random.Generator
TURNED = {"circle": np.pi, "ring": np.pi, "star": np.pi}  # shapes that are known at any angle
LEAN = 0.35  # radians that the others may lean: a square on its corner would be a diamond
LEAST_SEEN = 40.0  # root mean square difference from the page in an item's box
NUM_PAGES = 12  # tried


def render_at_large(
    shown: ThingScene, things: Things, canvas: int, rng: Generator
) -> np.ndarray | None:
    """Render a scene in a look drawn at random; None where no page was found that shows all."""
    plain = 0.9 if rng.random() < 0.5 else 0.4
    mirror = bool(rng.random() < 0.2)
    looks = [None if item.is_icon else _look(item, plain, rng) for item in shown.items]
    for _ in range(NUM_PAGES):
        empty_HW3 = page(rng, canvas)
        pixels_HW3 = empty_HW3.copy()
        for item, look in zip(shown.items, looks, strict=True):
            if look is not None:
                paint(pixels_HW3, look)
                continue
            longest = round(item.width * canvas)
            icon_hw4 = icon(things, item.name, shown.style, item.colour, longest)
            stamp.lay(pixels_HW3, icon_hw4[:, ::-1] if mirror else icon_hw4, item.x, item.y)
        if all(_seen(empty_HW3, pixels_HW3, item) >= LEAST_SEEN for item in shown.items):
            return worn(pixels_HW3, rng)
    return None


def _look(item: Item, plain: float, rng: Generator) -> Mark:
    """Draw a look that leaves shape and colour what they are."""
    assert item.colour is not None, f"the shape {item.name} has a colour"
    colour_3 = np.array(COLOURS[item.colour], dtype=np.float32)
    near_3 = (colour_3 + rng.normal(0, 6, 3).astype(np.float32)).clip(0, 255)
    drawn = random_mark(rng, near_3, plain)
    lean = TURNED.get(item.name, LEAN)
    mark = replace(
        drawn,
        shape=item.name,
        x=item.x,
        y=item.y,
        width=item.width,
        turn=float(rng.uniform(-lean, lean)) if drawn.turn else 0.0,
        aspect=1.0,
        wobble=0.0 if item.name == "circle" else drawn.wobble / 2,
    )
    if mark.fill == "hollow":  # the line alone has the colour
        return replace(mark, outline=max(mark.outline, 2 / 64), outline_colour=drawn.colour)
    red, green, blue = (float(v) for v in near_3 * rng.uniform(0.65, 0.95))
    return replace(mark, second=(red, green, blue))


def _seen(empty_HW3: np.ndarray, pixels_HW3: np.ndarray, item: Item) -> float:
    """Return how much an item differs from the page, as root mean square in its box."""
    canvas, half = len(empty_HW3), item.width / 2
    rows, columns = (
        slice(max(0, int((v - half) * canvas)), int((v + half) * canvas) + 1)
        for v in (item.y, item.x)
    )
    off_hw3 = pixels_HW3[rows, columns] - empty_HW3[rows, columns]
    return float(np.sqrt((off_hw3**2).sum(axis=2).mean()))


assert "hollow" in FILLS, "the fill whose line has the colour"
