"""A detector of our own worlds: what their readers read, as boxes with colours.

In: an image of coloured shapes, or of icons where a table of them is given. Out: a box for each
object, to the pixel, with its colour. Nothing is learned and nothing downloaded, so that GenEval
runs whole on any machine: prompts over the world's classes, the model's drawings, these verdicts.

The readers have no confidences. Where GenEval looks at the surest box of a class, the largest
object is the surest here: scores are 0.9 and a tenth of its width, above both thresholds. An image
that cannot be read has no boxes, and says why.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from unimodal.data.scenes.reading import Unreadable, read_scene
from unimodal.data.scenes.world import COLOURS, SHAPES, Background, Scene, SceneObject, render
from unimodal.data.things.icons import STYLES
from unimodal.data.things.names import NAMES
from unimodal.data.things.reading import read_things
from unimodal.data.things.table import Things
from unimodal.data.things.world import TOGETHER, Item, ThingScene, is_own_colour, shows
from unimodal.data.things.world import render as render_things

from .detector import Detector, Known
from .prompts import Prompt, Wanted
from .rules import NO_COLOUR, Found

SURE = 0.9  # of counting's threshold, which a score must exceed
GREY = Background("plain", "grey")
PAGE = "white"
Placed = tuple[str, str, float, float, float]  # class, colour, x, y, width of the canvas


class SceneDetector(Detector):
    """Reads scenes of shapes."""

    name = "scenes"
    classes = SHAPES

    def settings(self) -> dict[str, Any]:
        """Return nothing: the reader is this commit's, which every result names."""
        return {}

    def known(self) -> list[Known]:
        """Return renders that show what is asked for, and such as do not, for each of the tasks."""
        pair = _scene(("circle", "red", 0.25, 0.5), ("square", "blue", 0.75, 0.5))
        stars = _scene(*(("star", "green", x, 0.5) for x in (0.18, 0.5, 0.82)))
        circle, square = Wanted("circle", 1, "red"), Wanted("square", 1, "blue")
        return [
            Known("pair", pair, Prompt("color_attr", (circle, square), "both"), True),
            Known("pair", pair, Prompt("colors", (Wanted("circle", 1, "blue"),), "blue"), False),
            Known("pair", pair, _beside("left of"), True),
            Known("pair", pair, _beside("right of"), False),
            Known("stars", stars, _stars(3), True),
            Known("stars", stars, _stars(2), False),
            Known("stars", stars, Prompt("single_object", (Wanted("heart", 1),), "heart"), False),
        ]

    def find(self, image_HW3: np.ndarray, prompt: Prompt) -> Found:
        """Return the shapes that can be read in an image, with their colours."""
        read = read_scene(image_HW3)
        if isinstance(read, Unreadable):
            return Found({}, note=read.reason)
        placed = [(o.shape, o.colour, o.x, o.y, o.width) for o in read.objects]
        return _boxes(placed, len(image_HW3))


class ThingDetector(Detector):
    """Reads icons and shapes, of a table of icons."""

    name = "things"

    def __init__(self, things: Things) -> None:
        self._things = things
        self._icons = [icon.name for icon in things.icons if icon.name in NAMES]  # that are read
        self.classes = (*SHAPES, *self._icons)

    def settings(self) -> dict[str, Any]:
        """Return the table's digest."""
        return {"things": self._things.digest}

    def known(self) -> list[Known]:
        """Return a render of two icons, which is of both, and of neither alone twice."""
        items = [Item(name, True, None, 0.25, 0.5, TOGETHER[2]) for name in self._icons]
        seen = [item for item in items if shows(item, STYLES[0], PAGE, self._things)]
        first, second = seen[0], replace(seen[1], x=0.75)
        image = render_things(ThingScene(PAGE, (first, second)), self._things)
        wanted = Wanted(first.name, 1), Wanted(second.name, 1)
        both = Prompt("two_object", wanted, f"{first.name} and {second.name}")
        twice = Prompt("counting", (Wanted(first.name, 2),), f"two {first.name}")
        return [Known("icons", image, both, True), Known("icons", image, twice, False)]

    def find(self, image_HW3: np.ndarray, prompt: Prompt) -> Found:
        """Return the icons and shapes that can be read, with their colours."""
        read = read_things(image_HW3, self._things)
        if isinstance(read, Unreadable):
            return Found({}, note=read.reason)
        placed = [(i.name, self._colour(i), i.x, i.y, i.width) for i in read.items]
        return _boxes(placed, len(image_HW3))

    def _colour(self, item: Item) -> str:
        """Return the colour of an item: its tint, or that which would leave it as it is."""
        if item.colour is not None:
            return item.colour
        own = (c for c in COLOURS if is_own_colour(self._things, item.name, c))
        return next(own, NO_COLOUR)


def _boxes(placed: Sequence[Placed], side: int) -> Found:
    """Return boxes in pixels of objects whose places are fractions of the canvas."""
    boxes: dict[str, list[list[float]]] = {}
    colours: dict[str, list[str | None]] = {}
    for name, colour, x, y, width in placed:
        box = [(x - width / 2), (y - width / 2), (x + width / 2), (y + width / 2)]
        score = SURE + (1 - SURE) * width
        boxes.setdefault(name, []).append([*(side * part for part in box), score])
        colours.setdefault(name, []).append(colour)
    return Found({name: np.array(rows) for name, rows in boxes.items()}, colours)


def _scene(*objects: tuple[str, str, float, float]) -> np.ndarray:
    return render(Scene(GREY, tuple(_object(*one) for one in objects)))


def _object(shape: str, colour: str, x: float, y: float) -> SceneObject:
    return SceneObject(shape, colour, "small", x, y)


def _beside(relation: str) -> Prompt:
    wanted = Wanted("square", 1), Wanted("circle", 1, position=(relation, 0))
    return Prompt("position", wanted, f"a circle {relation} a square")


def _stars(count: int) -> Prompt:
    return Prompt("counting", (Wanted("star", count),), f"{count} stars", (("star", count + 1),))
