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

from unimodal.document import Document, Image, Part, Text

from . import edits, questions
from .phrasings import DESCRIBE, GREETINGS, STORIES
from .requests import EXTRAS, TASKS, granted, request
from .wording import caption, dressed, noun, pick, pick_phrasing
from .world import SMALL, Scene, World, generator, render, scene

PART = 1  # of the generator: part 0 draws the scenes


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
    talk = _Talk(seed, index, world, canvas, mix or Mix())
    weights = talk.mix.kinds()
    edges = np.cumsum(list(weights.values()))
    kind = list(weights)[int(np.searchsorted(edges, talk.rng.random() * edges[-1], side="right"))]
    _TALKS[kind](talk)
    return Document(tuple(talk.parts))


class _Talk:
    """A conversation being written: its parts, the scene last shown and the object spoken of."""

    def __init__(self, seed: int, index: int, world: World, canvas: int, mix: Mix) -> None:
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
        """Let the user say something."""
        self.parts.append(Text(text, "user", self.mix.asked_weight))

    def show(self, text: str) -> None:
        """Let the user show the scene and say something, mostly in this order."""
        assert self.scene is not None, "there is nothing to show"
        image = self.image(self.scene, "user", self.mix.seen_weight)
        self.user(text)
        self.parts.insert(len(self.parts) - (self.rng.random() < 0.85), image)

    def reply(self, text: str) -> None:
        """Let the assistant say something."""
        self.parts.append(Text(text, "assistant"))

    def draw(self, drawn: Scene) -> None:
        """Let the assistant draw a scene, which is then the one last shown."""
        self.scene = drawn
        self.parts.append(self.image(drawn, "assistant", 1.0))

    def image(self, drawn: Scene, role: str, weight: float) -> Image:
        """Render a scene as an image of this role and loss weight."""
        return Image(pixels=render(drawn, self.canvas), role=role, weight=weight)

    def chance(self, probability: float) -> bool:
        """Draw True with this probability."""
        return bool(self.rng.random() < probability)


def _draw(talk: _Talk) -> None:
    """Write a request and its image, and what follows."""
    _request_turn(talk)
    _follow(talk)


def _request_turn(talk: _Talk) -> None:
    wanted = request(pick(talk.rng, EXTRAS if talk.chance(talk.mix.extra) else TASKS), talk.rng)
    talk.user(wanted.text)
    talk.draw(granted(wanted, talk.rng, talk.world, seen_only=True))
    is_one = sum(claim.count for claim in wanted.claims) == 1
    talk.subject = 0 if is_one else None  # after several objects, 'it' is none of them


def _follow(talk: _Talk) -> None:
    """Write further turns: mostly edits, or questions about the last image, or another request."""
    for _ in range(talk.mix.max_follows):
        if not talk.chance(talk.mix.follow):
            return
        turn = pick(talk.rng, (_edit_turn, _edit_turn, _edit_turn, _question_turn, _request_turn))
        turn(talk)


def _question_turn(talk: _Talk) -> None:
    assert talk.scene is not None, "questions need an image"
    asked = questions.ask(talk.scene, pick(talk.rng, questions.KINDS), talk.rng)
    if asked is not None:
        talk.user(asked.text)
        talk.reply(asked.answer)


def _edit_turn(talk: _Talk) -> None:
    change = _possible_edit(talk, talk.subject if talk.chance(0.7) else None)
    if change is None:
        return
    talk.user(change.instruction)
    talk.draw(change.after)
    talk.subject = change.subject


def _possible_edit(talk: _Talk, subject: int | None) -> edits.Edit | None:
    """Draw an edit of the scene last shown; kinds that seldom find room are tried first more often.

    None when nothing can be done, as with four equal objects that nothing tells apart.
    """
    assert talk.scene is not None, "edits need an image"
    weights = np.array([_EDIT_WEIGHTS[kind] for kind in edits.KINDS])
    # A random order by weight: descending u^(1/w) (Efraimidis and Spirakis 2006, algorithm A).
    keys = talk.rng.random(len(edits.KINDS)) ** (1 / weights)
    for k in np.argsort(-keys):
        change = edits.edit(
            talk.scene, edits.KINDS[k], talk.rng, seen_only=True, world=talk.world, subject=subject
        )
        if change is not None:
            return change
    return None


_EDIT_WEIGHTS = {
    "recolour": 1.0, "add": 2.0, "remove": 1.4, "move": 1.6, "swap": 2.6, "resize": 1.2,
}  # fmt: skip


def _ask(talk: _Talk) -> None:
    """Write an image and several questions about it, each of another kind."""
    low, high = talk.mix.min_questions, talk.mix.max_questions
    drawn = talk.new_scene()
    kinds = [questions.KINDS[k] for k in talk.rng.permutation(len(questions.KINDS))]
    found = [asked for kind in kinds if (asked := questions.ask(drawn, kind, talk.rng)) is not None]
    for k, asked in enumerate(found[: int(talk.rng.integers(low, high + 1))]):
        if k == 0:
            talk.show(asked.text)
        else:
            talk.user(asked.text)
        talk.reply(asked.answer)


def _describe(talk: _Talk) -> None:
    shown = talk.new_scene()
    talk.show(dressed(pick_phrasing(talk.rng, DESCRIBE, held_out=False)[1], talk.rng))
    talk.reply(caption(shown, talk.rng))
    if talk.chance(0.3):
        _question_turn(talk)


def _edit(talk: _Talk) -> None:
    """Write an image of the user's, an instruction, the edited image, sometimes more edits."""
    is_one = len(talk.new_scene().objects) == 1
    change = _possible_edit(talk, 0 if is_one and talk.chance(0.5) else None)
    if change is None:
        return _describe(talk)
    talk.show(change.instruction)
    talk.draw(change.after)
    talk.subject = change.subject
    _follow(talk)


def _story(talk: _Talk) -> None:
    """Tell that there once was an object, and then what happened to it: text and images in turn."""
    wanted = request("colours", talk.rng)
    number = int(talk.rng.integers(2, 4))
    hero = noun(wanted.claims[0], talk.rng, vary=False)
    template = pick_phrasing(talk.rng, STORIES, held_out=False)[1]
    talk.user(dressed(template.format(one=hero, number=("two", "three")[number - 2]), talk.rng))
    talk.reply(f"once there was {hero}.")
    talk.draw(granted(wanted, talk.rng, talk.world, seen_only=True))
    for _ in range(number - 1):
        event = _event(talk)
        talk.reply(event[0])
        talk.draw(event[1])
    talk.reply("the end.")


def _event(talk: _Talk) -> tuple[str, Scene]:
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


def _greet(talk: _Talk) -> None:
    said, answer = GREETINGS[
        pick_phrasing(talk.rng, tuple(said for said, _ in GREETINGS), held_out=False)[0]
    ]
    talk.user(dressed(said, talk.rng))
    talk.reply(answer)


_TALKS = {
    "draw": _draw,
    "ask": _ask,
    "describe": _describe,
    "edit": _edit,
    "story": _story,
    "greet": _greet,
}
