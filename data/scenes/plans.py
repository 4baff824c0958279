"""A plan in words: what a drawing will show and where, said by the assistant before it draws.

In: a scene. Out: "a plan: small red circle top left, large blue star middle." To plan in words
first helps autoregressive models with positions (PlanGen, arXiv:2503.10127).
"""

from .wording import PLACES, place_of
from .world import Scene


def plan(scene: Scene) -> str:
    """Return the plan of a scene: size, colour, shape and place of each object, row by row."""
    objects = sorted(scene.objects, key=lambda one: (PLACES.index(place_of(one)), one.y, one.x))
    said = [f"{one.size} {one.colour} {one.shape} {place_of(one)}" for one in objects]
    return f"a plan: {', '.join(said)}."
