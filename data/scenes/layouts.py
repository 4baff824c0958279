"""Requests with boxes, which say what is to stand where on the drawing.

In: a generator and a scene, or a `Talk`. Out: `Placed` things with their boxes, or turns.

1. A thing in a box is an object of the scene that is drawn. Its words name its shape, mostly its
   colour, sometimes its size.
2. People draw boxes by hand: in training the sides are up to a quarter longer or shorter than the
   object, whose centre is that of the box. In evaluation they are exact.
3. The words beside the boxes are a whole request, some of whose objects have boxes, or say nothing
   of what is wanted ("draw this"); every object has a box then.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unimodal.document import Box, Text

from . import edits
from .phrasings import EDITS
from .requests import Request, granted, worded
from .talk import Talk, edit_turn, new_request, question_turn
from .wording import Claim, dressed, noun, pick, pick_phrasing
from .world import SceneObject

LAYOUTS = (
    "put things where the boxes are",
    "draw this",
    "draw these things where i put them",
    "a picture like this",
    "draw it like this",
    "fill in my sketch of boxes",
    "draw what the boxes say",
    "place everything as i have drawn it",
    "make a picture with this layout",
    "follow this layout",
    "let each thing stand in its box",
    "use these boxes",
    "arrange it like this",
    "draw the things in the boxes",
    "here is where everything goes",
)
BARE_RATE = 0.5  # of requests say nothing of what is wanted beside the boxes
ALL_RATE = 0.6  # of the others have a box for every object
LOOSE_SIDES = (0.8, 1.25)  # of a box drawn by hand, in sides of the object
BOXED_EDITS = ("add", "move")  # kinds of edits that a box can place


@dataclass(frozen=True)
class Placed:
    """A thing, in words and as a claim about one object, and the box in which it is to stand."""

    text: str
    claim: Claim
    box: Box

    def part(self, weight: float = 1.0) -> Text:
        """Return what the user says of it."""
        return Text(self.text, "user", weight, self.box)


def placed(obj: SceneObject, rng: np.random.Generator, loose: bool) -> Placed:
    """Put an object of a scene in words, and a box around it, exact or as drawn by hand."""
    chance = rng.random()
    size = obj.size if chance < 0.25 else None
    colour = None if chance > 0.85 else obj.colour
    claim = Claim(1, size, colour, obj.shape)
    return Placed(noun(claim, rng), claim, _box(obj, rng, loose))


def _box(obj: SceneObject, rng: np.random.Generator, loose: bool) -> Box:
    """Return a box with the object's centre."""
    longer = rng.uniform(*LOOSE_SIDES, 2) if loose else np.ones(2)
    half_x, half_y = (
        min(obj.width / 2 * side, at, 1 - at)
        for side, at in zip(longer.tolist(), (obj.x, obj.y), strict=True)
    )
    return Box(obj.x - half_x, obj.y - half_y, obj.x + half_x, obj.y + half_y)


def bare_words(rng: np.random.Generator, held_out: bool = False) -> str:
    """Return words that leave all to the boxes."""
    return dressed(pick_phrasing(rng, LAYOUTS, held_out)[1], rng)


def words_beside(things: Sequence[Placed], rng: np.random.Generator, held_out: bool = False) -> str:
    """Return words that leave all to the boxes of these things, or as often name what is there."""
    claims = tuple(thing.claim for thing in things)
    told = worded(Request("several", claims, None, None, "", 0), rng, held_out).text
    return bare_words(rng, held_out) if rng.random() < BARE_RATE else told


def layout(talk: Talk) -> None:
    """Write a request with boxes and its image, sometimes an edit with a box, or another turn."""
    wanted = new_request(talk)
    drawn = granted(wanted, talk.rng, talk.world, seen_only=True)
    is_bare = talk.chance(BARE_RATE)
    talk.user(bare_words(talk.rng) if is_bare else wanted.text)
    boxed = drawn.objects if is_bare or talk.chance(ALL_RATE) else _some(drawn.objects, talk.rng)
    for obj in boxed:
        _box_turn(talk, obj)
    talk.draw(drawn)
    talk.subject = 0 if len(drawn.objects) == 1 else None
    for _ in range(talk.mix.max_follows):
        if not talk.chance(talk.mix.follow):
            return
        pick(talk.rng, (_edit, _edit, edit_turn, question_turn))(talk)


def _some(objects: Sequence[SceneObject], rng: np.random.Generator) -> list[SceneObject]:
    """Return one or more of the objects, in any order."""
    chosen = rng.permutation(len(objects))[: int(rng.integers(1, len(objects) + 1))]
    return [objects[k] for k in chosen]


def _box_turn(talk: Talk, obj: SceneObject) -> None:
    """Let the user draw a box for an object."""
    thing = placed(obj, talk.rng, loose=True)
    talk.parts.append(thing.part(talk.mix.asked_weight))


def _edit(talk: Talk) -> None:
    """Let the user say what to add or move, and draw where to; nothing where there is no room."""
    assert talk.scene is not None, "a request was drawn"
    change = edits.edit(
        talk.scene, pick(talk.rng, BOXED_EDITS), talk.rng, seen_only=True, world=talk.world,
        phrasings=EDITS,
    )  # fmt: skip
    if change is None or change.subject is None:
        return
    talk.say(change.instruction)
    _box_turn(talk, change.after.objects[change.subject])
    talk.draw(change.after)
    talk.subject = change.subject
