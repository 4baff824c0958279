"""Make training conversations about scenes: drawing, describing, answering, editing, stories.

In: (seed, index). Out: a `Document` in turns of user and assistant, with rendered images. A pure
function of its arguments, so any worker can make any conversation; costs about 0.8 ms each.

1. A kind is drawn by the weights of the `Mix`; every text comes from the phrasings that are not
   held out, and no image shows a held-out pair of attributes.
2. What the assistant says and draws is learned from with weight 1; what the user says and shows
   has the weights `asked_weight` and `seen_weight` of the Mix.
3. 'it' in a further turn is the object last spoken of.
"""

import math
from dataclasses import dataclass, fields

import numpy as np

from unimodal.document import Document

from . import edits, questions
from .phrasings import DESCRIBE, GREETINGS, STORIES
from .requests import granted, request
from .talk import Talk, edit_turn, possible_edit, question_turn, request_turn
from .wording import caption, dressed, noun, pick, pick_phrasing
from .world import SMALL, Scene, World


@dataclass(frozen=True)
class Mix:
    """How often each kind of conversation comes (of any sum), and the loss weights of its parts."""

    draw: float = 0.42  # a request, its image, and what follows
    ask: float = 0.24  # an image of the user's and questions about it
    describe: float = 0.1  # an image of the user's and its caption
    edit: float = 0.18  # an image of the user's, an instruction, its result, and what follows
    story: float = 0.05  # a story asked for, told in text and images
    greet: float = 0.01  # small talk
    extra: float = 0.2  # share of drawing requests beyond the six tasks
    free: float = 0.0  # share of what the user says that is in free words (free_words.py)
    follow: float = 0.3  # chance of each further turn, as long as there is one
    max_follows: int = 2
    min_questions: int = 4
    max_questions: int = 6
    asked_weight: float = 0.1  # loss weight of the user's words
    seen_weight: float = 0.3  # loss weight of the user's images

    def __post_init__(self) -> None:
        wrong = [f.name for f in fields(self) if not 0 <= getattr(self, f.name) < math.inf]
        if wrong:
            raise ValueError(f"{', '.join(wrong)}: every field of a Mix is a number of at least 0")
        if self.min_questions > self.max_questions:
            raise ValueError(
                f"min_questions {self.min_questions} exceeds max_questions {self.max_questions}"
            )
        if sum(self.kinds().values()) <= 0:
            raise ValueError("a Mix needs at least one kind of conversation with a weight above 0")

    def kinds(self) -> dict[str, float]:
        """Return the weight of each kind of conversation."""
        return {name: getattr(self, name) for name in _TALKS}


def conversation(
    seed: int, index: int, world: World = SMALL, canvas: int = 64, mix: Mix | None = None
) -> Document:
    """Make the training conversation of (seed, index); images are uint8 (canvas, canvas, 3)."""
    talk = Talk(seed, index, world, canvas, mix or Mix())
    weights = talk.mix.kinds()
    edges = np.cumsum(list(weights.values()))
    kind = list(weights)[int(np.searchsorted(edges, talk.rng.random() * edges[-1], side="right"))]
    _TALKS[kind](talk)
    return Document(tuple(talk.parts))


def _draw(talk: Talk) -> None:
    """Write a request and its image, and what follows."""
    request_turn(talk)
    _follow(talk)


def _follow(talk: Talk) -> None:
    """Write further turns: mostly edits, or questions about the last image, or another request."""
    for _ in range(talk.mix.max_follows):
        if not talk.chance(talk.mix.follow):
            return
        turn = pick(talk.rng, (edit_turn, edit_turn, edit_turn, question_turn, request_turn))
        turn(talk)


def _ask(talk: Talk) -> None:
    """Write an image and several questions about it, each of another kind."""
    low, high = talk.mix.min_questions, talk.mix.max_questions
    drawn = talk.new_scene()
    kinds = [questions.KINDS[k] for k in talk.rng.permutation(len(questions.KINDS))]
    found = [asked for kind in kinds if (asked := questions.ask(drawn, kind, talk.rng)) is not None]
    for k, asked in enumerate(found[: int(talk.rng.integers(low, high + 1))]):
        if k == 0:
            talk.show(asked.text)
        else:
            talk.say(asked.text)
        talk.reply(asked.answer)


def _describe(talk: Talk) -> None:
    shown = talk.new_scene()
    talk.show(dressed(pick_phrasing(talk.rng, DESCRIBE, held_out=False)[1], talk.rng))
    talk.reply(caption(shown, talk.rng))
    if talk.chance(0.3):
        question_turn(talk)


def _edit(talk: Talk) -> None:
    """Write an image of the user's, an instruction, the edited image, sometimes more edits."""
    is_one = len(talk.new_scene().objects) == 1
    change = possible_edit(talk, 0 if is_one and talk.chance(0.5) else None)
    if change is None:
        return _describe(talk)
    talk.show(change.instruction)
    talk.draw(change.after)
    talk.subject = change.subject
    _follow(talk)


def _story(talk: Talk) -> None:
    """Tell that there once was an object, and then what happened to it: text and images in turn."""
    wanted = request("colours", talk.rng)
    number = int(talk.rng.integers(2, 4))
    hero = noun(wanted.claims[0], talk.rng, vary=False)
    template = pick_phrasing(talk.rng, STORIES, held_out=False)[1]
    talk.say(dressed(template.format(one=hero, number=("two", "three")[number - 2]), talk.rng))
    talk.reply(f"once there was {hero}.")
    talk.draw(granted(wanted, talk.rng, talk.world, seen_only=True))
    for _ in range(number - 1):
        event = _event(talk)
        talk.reply(event[0])
        talk.draw(event[1])
    talk.reply("the end.")


def _event(talk: Talk) -> tuple[str, Scene]:
    """Draw an event as (text, scene): the first object changes, or a friend comes."""
    assert talk.scene is not None, "a story begins with an image"
    while True:
        kind = pick(talk.rng, ("recolour", "add", "resize"))
        change = edits.edit(talk.scene, kind, talk.rng, seen_only=True, world=talk.world, subject=0)
        if change is None:
            continue
        hero, last = change.after.objects[0], change.after.objects[-1]
        if kind == "recolour":
            return f"one day it turned {hero.colour}.", change.after
        if kind == "add":
            return f"a {last.size} {last.colour} {last.shape} came along.", change.after
        return f"it became {hero.size}.", change.after


def _greet(talk: Talk) -> None:
    said, answer = GREETINGS[
        pick_phrasing(talk.rng, tuple(said for said, _ in GREETINGS), held_out=False)[0]
    ]
    talk.say(dressed(said, talk.rng))
    talk.reply(answer)


_TALKS = {
    "draw": _draw,
    "ask": _ask,
    "describe": _describe,
    "edit": _edit,
    "story": _story,
    "greet": _greet,
}
