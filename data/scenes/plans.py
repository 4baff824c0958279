"""Plans in words: what a drawing will show and where, said by the assistant before it draws.

In: a scene. Out: "a plan: small red circle top left, large blue star middle." To plan in words
first helps autoregressive models with positions (PlanGen, arXiv:2503.10127). The plan of an edit
says what changes alone: "a change: small red circle top left to small blue circle top left."; what
comes or goes changes from or to nothing. Read again, a plan is claims, and `agrees` says whether a
drawing of them would be what was asked for.

An exact plan says all that a drawing depends on: where centres are, in 64ths of the canvas from the
left and from the top, and the page: "a plan: small red circle top left at 12 17 on plain sand."
Heads that draw many places at once cannot agree on what is left open.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations

from .edits import Edit
from .requests import Request, grants
from .wording import PLACES, Claim, ground_pattern, is_in_place, page_words, place_bounds, place_of
from .world import COLOURS, SHAPES, SIZES, Background, Scene, SceneObject

_SHEET = Background("plain", "white")  # a plan says nothing of the page
_PLAN, _CHANGE, _NOTHING = "a plan: ", "a change: ", "nothing"
_ATTRIBUTES = " ".join(f"({'|'.join(words)})" for words in (SIZES, COLOURS, SHAPES, PLACES))
_OBJECT = re.compile(rf"{_ATTRIBUTES}(?: at \d+ \d+)?")
_WHOLE = re.compile(rf"{_PLAN}(.+?)(?: on {ground_pattern().pattern})?\.")
UNITS = 64  # to the canvas, of centres
MOST = 6  # objects of a plan; the worlds have fewer


def plan(scene: Scene, exact: bool = False) -> str:
    """Return the plan of a scene: size, colour, shape and place of each object, row by row."""
    objects = sorted(scene.objects, key=lambda one: (PLACES.index(place_of(one)), one.y, one.x))
    page = f" on {page_words(scene.background)}" if exact else ""
    return f"{_PLAN}{', '.join(_said(one, exact) for one in objects)}{page}."


def plan_of_edit(before: Scene, after: Scene, exact: bool = False) -> str:
    """Return the plan of an edit: each object that changes, and what it changes to."""
    gone = [one for one in before.objects if one not in after.objects]
    new = [one for one in after.objects if one not in before.objects]
    changes: list[tuple[str, str]] = []
    # Moved and swapped ones keep their attributes; others that change keep their place.
    for is_same in (_has_attributes, _has_place):
        for old in tuple(gone):
            found = next((one for one in new if is_same(old, one)), None)
            if found is not None:
                changes.append((_said(old, exact), _said(found, exact)))
                gone.remove(old)
                new.remove(found)
    changes += [(_said(one, exact), _NOTHING) for one in gone]
    changes += [(_NOTHING, _said(one, exact)) for one in new]
    return f"{_CHANGE}{', '.join(f'{old} to {one}' for old, one in changes)}."


def planned(text: str, before: Scene | None = None) -> tuple[Claim, ...] | None:
    """Return what a plan claims, an object each; None where the words are no plan. A plan that says
    what changes is one of the scene `before` it, whose other objects stay.
    """
    change = re.fullmatch(rf"{_CHANGE}(.+)\.", text.strip())
    if change and before is not None:
        return _changed(change[1].split(", "), before)
    whole = _WHOLE.fullmatch(text.strip())
    claims = [_claim(one) for one in whole[1].split(", ")] if whole else []
    found = tuple(claim for claim in claims if claim is not None)
    return found if 0 < len(found) == len(claims) <= MOST else None


def _changed(changes: Sequence[str], before: Scene) -> tuple[Claim, ...] | None:
    """Return what is there after changes of a scene; None where one is of no object of it."""
    kept, new = list(before.objects), []
    for one in changes:
        old, _, then = one.partition(" to ")
        was, is_now = _claim(old), _claim(then)
        if (was is None and old != _NOTHING) or (is_now is None and then != _NOTHING):
            return None
        if was is not None:
            meant = next((k for k, obj in enumerate(kept) if _is(was, obj)), None)
            if meant is None:
                return None
            del kept[meant]
        new += [] if is_now is None else [is_now]
    claims = (*(Claim(1, one.size, one.colour, one.shape, place_of(one)) for one in kept), *new)
    return claims if 0 < len(claims) <= MOST else None


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


def _said(one: SceneObject, exact: bool) -> str:
    centre = f" at {round(UNITS * one.x)} {round(UNITS * one.y)}" if exact else ""
    return f"{one.size} {one.colour} {one.shape} {place_of(one)}{centre}"


def _claim(said: str) -> Claim | None:
    found = _OBJECT.fullmatch(said)
    return Claim(1, *found.groups()) if found else None


def _is(claim: Claim, one: SceneObject) -> bool:
    same = (claim.size, claim.colour, claim.shape) == (one.size, one.colour, one.shape)
    return same and is_in_place(one, str(claim.place))


def _has_attributes(old: SceneObject, new: SceneObject) -> bool:
    return old.attributes == new.attributes


def _has_place(old: SceneObject, new: SceneObject) -> bool:
    return (old.x, old.y) == (new.x, new.y)


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
