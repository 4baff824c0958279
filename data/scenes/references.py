"""Point at objects by where they are or how big: 'the left one', 'the lowest star'.

In: a scene and an object's number. Out: words that fit this object alone, plainly: it is further
that way than any other by a tenth of the canvas.
"""

import re
from collections.abc import Iterator

import numpy as np

from .wording import pick
from .world import SIZES, Scene

PLAINLY = 0.1  # of the canvas
WAYS = {  # axis, sign, words
    "left": ("x", -1, ("left", "leftmost")),
    "right": ("x", 1, ("right", "rightmost")),
    "top": ("y", -1, ("top", "upper", "highest")),
    "bottom": ("y", 1, ("bottom", "lower", "lowest")),
}


def pointed(scene: Scene, index: int, rng: np.random.Generator) -> str | None:
    """Return words that point at an object; None where nothing sets it apart plainly."""
    found = list(_pointers(scene, index))
    return pick(rng, found) if found else None


def with_reference(instruction: str, words: str) -> str:
    """Return an instruction about 'it' that points at the object by other words instead."""
    return re.sub(r"\b[Ii]t\b", words, instruction, count=1)


def _pointers(scene: Scene, index: int) -> Iterator[str]:
    obj = scene.objects[index]
    others = [other for k, other in enumerate(scene.objects) if k != index]
    alike = [other for other in others if other.shape == obj.shape]
    for noun, rivals in (("one", others), (obj.shape, alike)):
        if not rivals:
            continue
        for way, (axis, sign, words) in WAYS.items():
            least = min(sign * (getattr(obj, axis) - getattr(other, axis)) for other in rivals)
            if least >= PLAINLY:
                yield from (f"the {word} {noun}" for word in words)
                yield f"the {noun} {'at' if axis == 'y' else 'on'} the {way}"
        widths = [SIZES[other.size] for other in rivals]
        if SIZES[obj.size] > max(widths):
            yield from (f"the biggest {noun}", f"the largest {noun}")
        elif SIZES[obj.size] < min(widths):
            yield f"the smallest {noun}"
