"""A conversation being written: what was said and shown so far, and the turns that all kinds share.

In: what is said, shown and drawn, turn by turn. Out: `Talk.parts`, of which a `Document` is made.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from unimodal.document import Image, Part, Text

from . import edits, questions
from .free_phrasings import EDITS as FREE_EDITS
from .free_questions import QUESTIONS as FREE_QUESTIONS
from .free_words import asked_freely, free_request, open_request, said_freely
from .phrasings import EDITS, QUESTIONS
from .plans import plan, plan_of_edit
from .requests import EXTRAS, TASKS, Request, granted, request
from .varied_questions import VARIED
from .wording import pick
from .world import Scene, World, generator, render, scene

if TYPE_CHECKING:
    from .conversations import Mix

OPEN_RATE = 0.06  # of free requests leave nearly all open
PART = 1  # of the generator: part 0 draws the scenes


class Talk:
    """A conversation being written: its parts, the scene last shown and the object spoken of."""

    def __init__(self, seed: int, index: int, world: World, canvas: int, mix: "Mix") -> None:
        self.rng = generator(seed, index, PART)
        self.seed, self.index, self.world, self.canvas, self.mix = seed, index, world, canvas, mix
        self.parts: list[Part] = []
        self.scene: Scene | None = None
        self.subject: int | None = None

    def new_scene(self) -> Scene:
        """Draw the scene of (seed, index), which the user is about to show."""
        self.scene = scene(self.seed, self.index, self.world, seen_only=True)
        return self.scene

    def user(self, text: str) -> None:
        """Let the user say something in just these words."""
        self.parts.append(Text(text, "user", self.mix.asked_weight))

    def say(self, text: str) -> None:
        """Let the user say something, in free words as often as the mix has it."""
        if self.is_free():
            text = (asked_freely if text.endswith("?") else said_freely)(text, self.rng)
        self.user(text)

    def show(self, text: str) -> None:
        """Let the user show the scene and say something, mostly in this order."""
        assert self.scene is not None, "there is nothing to show"
        image = self.image(self.scene, "user", self.mix.seen_weight)
        self.say(text)
        self.parts.insert(len(self.parts) - (self.rng.random() < 0.85), image)

    def reply(self, text: str, weight: float = 1.0) -> None:
        """Let the assistant say something."""
        self.parts.append(Text(text, "assistant", weight))

    def draw(self, drawn: Scene) -> None:
        """Let the assistant draw a scene, which is then the one last shown."""
        self.scene = drawn
        self.parts.append(self.image(drawn, "assistant", 1.0))

    def draw_planned(self, drawn: Scene, before: Scene | None = None) -> None:
        """Let the assistant draw a scene, planned in words first as often as the mix has it: all of
        it, or what changes the scene `before` it.
        """
        if self.mix.plan > 0 and self.chance(self.mix.plan):
            is_edit = before is not None and before.objects != drawn.objects
            exact = self.mix.exact_plan > 0 and self.chance(self.mix.exact_plan)
            words = plan_of_edit(before, drawn, exact) if before and is_edit else plan(drawn, exact)
            self.reply(words, self.mix.plan_weight)
        self.draw(drawn)

    def image(self, drawn: Scene, role: str, weight: float) -> Image:
        """Render a scene as an image of this role and loss weight."""
        return Image(pixels=render(drawn, self.canvas), role=role, weight=weight)

    def chance(self, probability: float) -> bool:
        """Draw True with this probability."""
        return bool(self.rng.random() < probability)

    def is_free(self) -> bool:
        """Draw whether something is said in free words; a mix without them costs no draw."""
        return self.mix.free > 0 and self.chance(self.mix.free)


def request_turn(talk: Talk) -> None:
    """Write a request and its image."""
    wanted = new_request(talk)
    talk.user(wanted.text)
    grant(talk, wanted)
    talk.subject = 0 if wanted.count == 1 else None  # after several objects, 'it' is none of them


def grant(talk: Talk, wanted: Request) -> None:
    """Draw what is wanted."""
    talk.draw_planned(granted(wanted, talk.rng, talk.world, seen_only=True))


def new_request(talk: Talk) -> Request:
    """Draw a request, in free words as often as the mix has it."""
    return granted_by(talk.world, partial(_any_request, talk))


def granted_by(world: World, draw: Callable[[], Request]) -> Request:
    """Draw requests until one wants no more objects than the world holds."""
    while True:
        wanted = draw()
        if wanted.count <= world.max_objects:
            return wanted


def _any_request(talk: Talk) -> Request:
    task = pick(talk.rng, EXTRAS if talk.chance(talk.mix.extra) else TASKS)
    if not talk.is_free():
        return request(task, talk.rng)
    return open_request(talk.rng) if talk.chance(OPEN_RATE) else free_request(task, talk.rng)


def question_turn(talk: Talk) -> None:
    """Write a question about the image last shown and its answer; nothing if it offers none."""
    asked = new_question(talk, pick(talk.rng, questions.KINDS))
    if asked is not None:
        talk.say(asked.text)
        talk.reply(asked.answer)


def new_question(talk: Talk, kind: str) -> questions.Question | None:
    """Draw a question of a kind about the image last shown; None if it offers none."""
    assert talk.scene is not None, "questions need an image"
    if talk.mix.varied > 0 and talk.chance(talk.mix.varied):
        phrasings = VARIED
    else:
        phrasings = FREE_QUESTIONS if talk.is_free() else QUESTIONS
    return questions.ask(talk.scene, kind, talk.rng, phrasings=phrasings)


def edit_turn(talk: Talk) -> None:
    """Write an instruction and the edited image; nothing if nothing can be done."""
    change = possible_edit(talk, talk.subject if talk.chance(0.7) else None)
    if change is None:
        return
    talk.say(change.instruction)
    talk.draw_planned(change.after, change.before)
    talk.subject = change.subject


def possible_edit(talk: Talk, subject: int | None) -> edits.Edit | None:
    """Draw an edit of the scene last shown; kinds that seldom find room are tried first more often.

    None when nothing can be done, as with four equal objects that nothing tells apart.
    """
    assert talk.scene is not None, "edits need an image"
    weights = np.array([_EDIT_WEIGHTS[kind] for kind in edits.KINDS])
    phrasings = FREE_EDITS if talk.is_free() else EDITS
    # A random order by weight: descending u^(1/w) (Efraimidis and Spirakis 2006, algorithm A).
    keys = talk.rng.random(len(edits.KINDS)) ** (1 / weights)
    for k in np.argsort(-keys):
        change = edits.edit(
            talk.scene, edits.KINDS[k], talk.rng, seen_only=True, world=talk.world,
            subject=subject, phrasings=phrasings,
        )  # fmt: skip
        if change is not None:
            return change
    return None


_EDIT_WEIGHTS = {
    "recolour": 1.0, "add": 2.0, "remove": 1.4, "move": 1.6, "swap": 2.6, "resize": 1.2,
}  # fmt: skip
