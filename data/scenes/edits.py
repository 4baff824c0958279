"""Write edit instructions with the scene before and after, and check that one was carried out.

In: a `Scene`, a kind and a generator. Out: an `Edit`, or None when the scene allows no such edit;
`done` says whether a scene read from an image satisfies it with nothing else touched.

1. The object to change is named by a description that fits it alone, or it is 'it' (the subject).
2. A change is drawn until the result is a valid scene: nothing overlaps, all inside the canvas.
3. `done` matches objects one to one: untouched ones keep their attributes and their centre (within
   3/64 of the canvas); the changed one has the attributes and the place that the instruction says.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .phrasings import EDITS
from .questions import named, referents
from .requests import RELATION_WORDS, plain_relation, relations
from .wording import (
    COLOUR_WORDS,
    SIZE_WORDS,
    Claim,
    dressed,
    is_in_place,
    noun,
    pick,
    pick_phrasing,
    place_bounds,
    word_for,
)
from .world import (
    COLOURS,
    MARGIN,
    SHAPES,
    SIZES,
    SMALL,
    Attributes,
    Scene,
    SceneObject,
    World,
    fits,
    has_held_out_pair,
)

KINDS = ("recolour", "add", "remove", "move", "swap", "resize")
CORNERS = ("top left", "top right", "bottom left", "bottom right")
NUDGES = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
MIN_NUDGE = 0.1  # of the canvas: an object moved 'to the left' must go at least so far
SAME_PLACE = 3 / 64  # of the canvas: an untouched object's centre may stray so far
NUM_TRIES = 64  # places tried for one proposal of an edit
NUM_PROPOSALS = 6  # of a change, before the scene is said to allow none


@dataclass(frozen=True)
class Spot:
    """Where an object is wanted: in a zone, beside an anchor, a nudge away; unset, anywhere."""

    zone: str | None = None  # one of PLACES
    relation: str | None = None  # one of RELATIONS, to `anchor`
    anchor: SceneObject | None = None
    nudge: str | None = None  # one of NUDGES, away from `start`
    start: SceneObject | None = None

    def holds(self, obj: SceneObject) -> bool:
        """Return whether the object is where it is wanted."""
        if self.zone is not None:
            return is_in_place(obj, self.zone)
        if self.anchor is not None:
            return self.relation in relations(obj, self.anchor)
        if self.start is not None and self.nudge is not None:
            dx, dy = obj.x - self.start.x, obj.y - self.start.y
            right, down = NUDGES[self.nudge]
            along, across = dx * right + dy * down, abs(dx * down) + abs(dy * right)
            return along >= MIN_NUDGE - SAME_PLACE and across <= along
        return True


@dataclass(frozen=True)
class Edit:
    """An instruction, and one right result of it."""

    kind: str  # one of KINDS
    instruction: str
    phrasing: int  # index in the table of the kind
    before: Scene
    after: Scene
    subject: int | None  # index in `after` of the object last spoken of; None when it is gone
    changed: int | None = None  # index in `after` of an object that `spot` and `sizes` judge
    spot: Spot = Spot()
    sizes: tuple[str, ...] = ()  # that the changed object may have; none: the one in `after`


@dataclass(frozen=True)
class _Change:
    """What a kind of edit proposes: the objects after it, and words for the template's slots."""

    objects: tuple[SceneObject, ...]
    slots: dict[str, str]
    subject: int | None
    changed: int | None = None
    spot: Spot = Spot()
    sizes: tuple[str, ...] = ()


def edit(
    scene: Scene,
    kind: str,
    rng: np.random.Generator,
    held_out: bool = False,
    seen_only: bool = False,
    world: World = SMALL,
    subject: int | None = None,
    phrasings: Mapping[str, tuple[str, ...]] = EDITS,
) -> Edit | None:
    """Draw an edit of one of KINDS, in held-out ones of the phrasings or the others.

    None when the scene allows none; ValueError for an unknown kind. With `seen_only` the result
    shows no held-out pair. `subject` is the index of the object to change (for 'add': to add
    beside), which the instruction then calls 'it'.
    """
    if kind not in KINDS:
        raise ValueError(f"no edit kind {kind!r}: one of {', '.join(KINDS)}")
    for _ in range(NUM_PROPOSALS):
        change = _CHANGERS[kind](scene, rng, subject, world)
        if change is not None and not (seen_only and has_held_out_pair(change.objects)):
            break
    else:
        return None
    index, template = pick_phrasing(rng, phrasings[kind], held_out)
    instruction = template.format(**change.slots)
    if rng.random() < 0.5:
        instruction = instruction.replace("colour", "color")
    after = Scene(scene.background, change.objects)
    return Edit(
        kind, dressed(instruction, rng), index, scene, after,
        change.subject, change.changed, change.spot, change.sizes,
    )  # fmt: skip


def done(edit: Edit, read: Scene) -> bool:
    """Return whether the scene shows the instruction carried out and all else left as it was."""
    if read.background != edit.before.background or len(read.objects) != len(edit.after.objects):
        return False
    return _matched(edit, list(edit.after.objects), list(read.objects))


def _matched(edit: Edit, wanted: list[SceneObject], found: list[SceneObject]) -> bool:
    """Return whether each wanted object has a found one of its own, whatever their order."""
    if not wanted:
        return True
    is_changed = edit.changed is not None and wanted[0] is edit.after.objects[edit.changed]
    return any(
        _matched(edit, wanted[1:], found[:k] + found[k + 1 :])
        for k, obj in enumerate(found)
        if (_is_changed(edit, wanted[0], obj) if is_changed else _is_same(wanted[0], obj))
    )


def _is_same(wanted: SceneObject, found: SceneObject) -> bool:
    return wanted.attributes == found.attributes and _is_near(wanted, found)


def _is_near(wanted: SceneObject, found: SceneObject) -> bool:
    return bool(np.hypot(wanted.x - found.x, wanted.y - found.y) <= SAME_PLACE)


def _is_changed(edit: Edit, wanted: SceneObject, found: SceneObject) -> bool:
    if (wanted.shape, wanted.colour) != (found.shape, found.colour):
        return False
    if found.size not in (edit.sizes or (wanted.size,)):
        return False
    return edit.spot.holds(found) if edit.kind in ("add", "move") else _is_near(wanted, found)


def _chosen(
    scene: Scene, rng: np.random.Generator, subject: int | None, without: str = ""
) -> tuple[int, str] | None:
    """Choose (index, words) of the object to change: the subject as 'it', or one with a name."""
    if subject is not None:
        return subject, "it"
    able = [k for k, obj in enumerate(scene.objects) if referents(scene, obj, without)]
    if not able:
        return None
    index = pick(rng, able)
    return index, f"the {named(scene, scene.objects[index], rng, without)}"


def _with(objects: Sequence[SceneObject], index: int, obj: SceneObject) -> tuple[SceneObject, ...]:
    return (*objects[:index], obj, *objects[index + 1 :])


def _recolour(
    scene: Scene, rng: np.random.Generator, subject: int | None, world: World
) -> _Change | None:
    chosen = _chosen(scene, rng, subject)
    if chosen is None:
        return None
    index, one = chosen
    old = scene.objects[index]
    colour = pick(rng, [name for name in COLOURS if name != old.colour])
    slots = {"one": one, "colour": word_for(rng, COLOUR_WORDS[colour])}
    return _Change(_with(scene.objects, index, replace(old, colour=colour)), slots, index)


def _resize(
    scene: Scene, rng: np.random.Generator, subject: int | None, world: World
) -> _Change | None:
    """Change a size to a named one, or to 'bigger' or 'smaller': then any such size will do."""
    chosen = _chosen(scene, rng, subject)
    if chosen is None:
        return None
    index, one = chosen
    old, names = scene.objects[index], list(SIZES)
    others = [*scene.objects[:index], *scene.objects[index + 1 :]]
    free = [s for s in names if s != old.size and fits(replace(old, size=s), others)]
    if not free:
        return None
    new = pick(rng, free)
    is_bigger = names.index(new) > names.index(old.size)
    if rng.random() < 0.5:
        words = pick(rng, ("bigger", "larger") if is_bigger else ("smaller",))
        at = names.index(old.size)
        sizes = tuple(names[at + 1 :] if is_bigger else names[:at])
    else:
        words, sizes = word_for(rng, SIZE_WORDS[new]), (new,)
    objects = _with(scene.objects, index, replace(old, size=new))
    return _Change(objects, {"one": one, "size": words}, index, index, sizes=sizes)


def _remove(
    scene: Scene, rng: np.random.Generator, subject: int | None, world: World
) -> _Change | None:
    chosen = _chosen(scene, rng, subject)
    if chosen is None or len(scene.objects) < 2:
        return None
    index, one = chosen
    return _Change((*scene.objects[:index], *scene.objects[index + 1 :]), {"one": one}, None)


def _swap(
    scene: Scene, rng: np.random.Generator, subject: int | None, world: World
) -> _Change | None:
    chosen = _chosen(scene, rng, subject)
    if chosen is None:
        return None
    index, one = chosen
    first = scene.objects[index]
    able = [
        k
        for k, second in enumerate(scene.objects)
        if k != index and referents(scene, second) and second.attributes != first.attributes
    ]
    if not able:
        return None
    other = pick(rng, able)
    second = scene.objects[other]
    objects = _with(scene.objects, index, replace(first, x=second.x, y=second.y))
    objects = _with(objects, other, replace(second, x=first.x, y=first.y))
    if not all(fits(obj, [other for other in objects if other is not obj]) for obj in objects):
        return None
    two = f"the {named(scene, second, rng)}"
    if subject is None and rng.random() < 0.5:
        one, two = two, one
    return _Change(objects, {"one": one, "two": two}, index)


def _add(
    scene: Scene, rng: np.random.Generator, subject: int | None, world: World
) -> _Change | None:
    if len(scene.objects) >= world.max_objects:
        return None
    shape, colour, size = (pick(rng, names) for names in (SHAPES, tuple(COLOURS), tuple(SIZES)))
    says_size = rng.random() < 0.4
    wanted = _spot_to_add(scene, rng, subject)
    if wanted is None:
        return None
    spot, words = wanted
    obj = _placed((shape, colour, size), scene.objects, spot, rng)
    if obj is None:
        return None
    sizes = (size,) if says_size else tuple(SIZES)
    new = noun(Claim(1, size if says_size else None, colour, shape), rng, vary=False)
    index = len(scene.objects)
    slots = {"new": new, "spot": words and f" {words}"}
    return _Change((*scene.objects, obj), slots, index, index, spot, sizes)


def _spot_to_add(
    scene: Scene, rng: np.random.Generator, subject: int | None
) -> tuple[Spot, str] | None:
    chance = rng.random()
    if subject is None and chance < 0.4:
        return Spot(), ""
    if subject is None and chance < 0.65:
        return _zone_spot(rng, ("in", "in", "at"))
    return _relation_spot(scene, rng, subject)


def _zone_spot(rng: np.random.Generator, before: Sequence[str]) -> tuple[Spot, str]:
    if rng.random() < 0.25:
        words = f"{pick(rng, before)} the {pick(rng, ('middle', 'centre', 'center'))}"
        return Spot(zone="middle"), words
    corner = pick(rng, CORNERS)
    return Spot(zone=corner), f"{pick(rng, before)} the {corner}{pick(rng, ('', ' corner'))}"


def _relation_spot(
    scene: Scene, rng: np.random.Generator, subject: int | None, moving: int | None = None
) -> tuple[Spot, str] | None:
    """Choose a spot beside the subject ('it'), or beside a named object that does not move."""
    chosen = (subject, "it") if subject is not None else None
    if chosen is None:
        able = [k for k, obj in enumerate(scene.objects) if k != moving and referents(scene, obj)]
        if not able:
            return None
        index = pick(rng, able)
        chosen = index, f"the {named(scene, scene.objects[index], rng)}"
    relation = pick(rng, tuple(RELATION_WORDS))
    words = f"{pick(rng, RELATION_WORDS[relation])} {chosen[1]}"
    return Spot(relation=relation, anchor=scene.objects[chosen[0]]), words


def _placed(
    attributes: Attributes, others: Sequence[SceneObject], spot: Spot, rng: np.random.Generator
) -> SceneObject | None:
    """Place an object where it is free and plainly where it is wanted; None when none is found."""
    edge = SIZES[attributes[2]] / 2 + MARGIN
    (left, right), (top, bottom) = place_bounds(spot.zone) if spot.zone else ((0, 1), (0, 1))
    low, high = (max(left, edge), max(top, edge)), (min(right, 1 - edge), min(bottom, 1 - edge))
    if low[0] > high[0] or low[1] > high[1]:
        return None
    for x, y in rng.uniform(low, high, size=(NUM_TRIES, 2)).tolist():
        obj = SceneObject(*attributes, x, y)
        if spot.anchor is not None and plain_relation(obj, spot.anchor) != spot.relation:
            continue
        if fits(obj, others) and spot.holds(obj):
            return obj
    return None


def _move(
    scene: Scene, rng: np.random.Generator, subject: int | None, world: World
) -> _Change | None:
    chosen = _chosen(scene, rng, subject)
    if chosen is None:
        return None
    index, one = chosen
    old = scene.objects[index]
    others = [*scene.objects[:index], *scene.objects[index + 1 :]]
    wanted = _spot_to_move(scene, rng, index)
    if wanted is None:
        return None
    spot, words = wanted
    if spot.nudge is None and spot.holds(old):
        return None  # it is there already
    if spot.nudge is None:
        obj = _placed(old.attributes, others, spot, rng)
    else:
        obj = _nudged(old, others, spot, rng)
    if obj is None or _is_near(old, obj):
        return None
    return _Change(
        _with(scene.objects, index, obj), {"one": one, "spot": words}, index, index, spot
    )


def _spot_to_move(scene: Scene, rng: np.random.Generator, index: int) -> tuple[Spot, str] | None:
    chance = rng.random()
    if chance < 0.35:
        nudge = pick(rng, tuple(NUDGES))
        words = nudge if nudge in ("up", "down") else f"to the {nudge}"
        return Spot(nudge=nudge, start=scene.objects[index]), words
    if chance < 0.7 or len(scene.objects) < 2:
        return _zone_spot(rng, ("to", "to", "into"))
    return _relation_spot(scene, rng, None, moving=index)


def _nudged(
    old: SceneObject, others: Sequence[SceneObject], spot: Spot, rng: np.random.Generator
) -> SceneObject | None:
    """Move the object a random way along the nudge's direction, to where it is free."""
    assert spot.nudge is not None, "only a nudge has a direction"
    right, down = NUDGES[spot.nudge]
    for step in rng.uniform(MIN_NUDGE + SAME_PLACE, 0.6, size=NUM_TRIES):
        obj = replace(old, x=old.x + right * float(step), y=old.y + down * float(step))
        if fits(obj, others):
            return obj
    return None


_CHANGERS: dict[str, Callable[[Scene, np.random.Generator, int | None, World], _Change | None]] = {
    "recolour": _recolour,
    "add": _add,
    "remove": _remove,
    "move": _move,
    "swap": _swap,
    "resize": _resize,
}
