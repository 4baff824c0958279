"""A plan in words: what a drawing will show and where, said by the assistant before it draws.

In: a scene. Out: "a plan: small red circle top left, large blue star middle." To plan in words
first helps autoregressive models with positions (PlanGen, arXiv:2503.10127). The plan of an edit of
an image that no plan told of yet begins with what the image shows: "it shows: .... a plan: ....";
to change words is easier than to read and change at once. Read again, a plan is claims, and
`agrees` says whether a drawing of them would be what was asked for.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations

from .edits import Edit
from .requests import Request, grants
from .wording import PLACES, Claim, is_in_place, place_bounds, place_of
from .world import COLOURS, SHAPES, SIZES, Background, Scene, SceneObject

_SHEET = Background("plain", "white")  # a plan says nothing of the page
_SHOWN, _PLAN = "it shows: ", "a plan: "
_WHOLE = re.compile(rf"(?:{_SHOWN}[^.]+\. )?{_PLAN}([^.]+)\.")
_OBJECT = re.compile(" ".join(f"({'|'.join(words)})" for words in (SIZES, COLOURS, SHAPES, PLACES)))
MOST = 6  # objects of a plan; the worlds have fewer


def plan(scene: Scene, before: Scene | None = None) -> str:
    """Return the plan of a scene: size, colour, shape and place of each object, row by row; behind
    those of the scene `before` it, which an edit changes, where that is given.
    """
    shown = f"{_SHOWN}{_listed(before)}. " if before is not None else ""
    return f"{shown}{_PLAN}{_listed(scene)}."


def planned(text: str) -> tuple[Claim, ...] | None:
    """Return what a plan claims, an object each; None where the words are no plan."""
    whole = _WHOLE.fullmatch(text.strip())
    found = [_OBJECT.fullmatch(one) for one in whole[1].split(", ")] if whole else []
    claims = tuple(Claim(1, *one.groups()) for one in found if one is not None)
    return claims if 0 < len(claims) == len(found) <= MOST else None


def agrees(claims: Sequence[Claim], wish: Request | Edit) -> bool:
    """Return whether a drawing of a plan grants a request, or does an edit, its objects in the
    middle of their places; what is asked of the page is not looked at.
    """
    if isinstance(wish, Request):
        objects = tuple(_in_the_middle(claim) for claim in claims)
        return grants(replace(wish, background=None), Scene(_SHEET, objects))
    numbers = range(len(wish.after.objects))
    return len(claims) == len(numbers) and any(
        all(_fits(claim, wish, k) for claim, k in zip(claims, order, strict=True))
        for order in permutations(numbers)
    )


def _listed(scene: Scene) -> str:
    objects = sorted(scene.objects, key=lambda one: (PLACES.index(place_of(one)), one.y, one.x))
    return ", ".join(f"{one.size} {one.colour} {one.shape} {place_of(one)}" for one in objects)


def _fits(claim: Claim, edit: Edit, k: int) -> bool:
    """Return whether a claim fits object k of an edit's result."""
    wanted = edit.after.objects[k]
    sizes = edit.sizes if k == edit.changed and edit.sizes else (wanted.size,)
    alike = (claim.colour, claim.shape) == (wanted.colour, wanted.shape) and claim.size in sizes
    freely = k == edit.changed and edit.kind in ("add", "move")
    there = is_in_place(wanted, str(claim.place))
    return alike and (there or (freely and edit.spot.holds(_in_the_middle(claim))))


def _in_the_middle(claim: Claim) -> SceneObject:
    """Return the object of a plan, in the middle of its place."""
    (left, right), (top, bottom) = place_bounds(str(claim.place))
    x, y = (left + right) / 2, (top + bottom) / 2
    return SceneObject(str(claim.shape), str(claim.colour), str(claim.size), x, y)
