"""Make training conversations about things: drawing, naming, answering, describing, editing.

In: (seed, index), a table of icons. Out: a `Document` in turns of user and assistant. A pure
function of its arguments, as the conversations of scenes are, beside which they stand in one
training set.

1. What the assistant draws is plain (world.py) and can be judged; what the user shows has any look
   (looks.py).
2. 'large' shows the shapes of the exact world as other programs draw them.
"""

import math
from dataclasses import dataclass, fields

import numpy as np

from unimodal.document import Document, Image, Part, Text

from ..scenes.conversations import Mix
from ..scenes.wording import dressed, pick, pick_phrasing
from ..scenes.world import COLOURS, SHAPES, generator
from . import edits, questions
from .choice import Choice, any_held_out, choice_of
from .icons import STYLES
from .looks import render_at_large
from .phrasings import DESCRIBE, DREW, EDITS
from .requests import THING_TASKS, granted, request, scene_of
from .table import Things
from .wording import told
from .world import Item, ThingScene, laid_out, render

PART = 3  # of the generator: 0 scenes, 1 their conversations, 2 drawings
EDIT_WEIGHTS = {
    "recolour": 3.0, "plain": 0.5, "page": 1.0, "resize": 1.0, "style": 0.5, "add": 1.5,
    "remove": 1.5, "replace": 1.5,
}  # fmt: skip
COUNTS = (0.4, 0.25, 0.2, 0.15)  # how often a shown image has 1 to 4 items


@dataclass(frozen=True)
class ThingsMix:
    """How often conversations are about things, and of which kinds (of any sum)."""

    things: float = 0.5  # weight beside the kinds of the Mix of scenes
    things_draw: float = 0.5  # a request, its image, and what follows
    things_name: float = 0.14  # an image of the user's: what is it?
    things_ask: float = 0.12  # several questions about an image of the user's
    things_describe: float = 0.06
    things_edit: float = 0.08  # an image of the user's, plainly drawn, and edits of it
    things_large: float = 0.1  # shapes at large, described and asked about
    things_rare: float = 0.0  # share of icons beyond the common ones

    def __post_init__(self) -> None:
        wrong = [f.name for f in fields(self) if not 0 <= getattr(self, f.name) < math.inf]
        if wrong:
            raise ValueError(f"{', '.join(wrong)}: a weight is a number of at least 0")
        if self.things_rare > 1:
            raise ValueError(f"things_rare {self.things_rare}: a share is at most 1")
        if self.things and not any(self.kinds().values()):
            raise ValueError("things have a weight but none of their kinds has one above 0")

    def kinds(self) -> dict[str, float]:
        """Return the weight of each kind of conversation."""
        return {name: getattr(self, f"things_{name}") for name in _TALKS}


def is_of_things(seed: int, index: int, mix: Mix, things_mix: ThingsMix) -> bool:
    """Return whether conversation `index` is about things, by the weights of both mixes."""
    share = things_mix.things / (things_mix.things + sum(mix.kinds().values()))
    return bool(generator(seed, index, PART).random() < share)


def conversation(
    seed: int,
    index: int,
    things: Things,
    canvas: int = 64,
    mix: Mix | None = None,
    things_mix: ThingsMix | None = None,
) -> Document:
    """Make the training conversation about things of (seed, index)."""
    mix, things_mix = mix or Mix(), things_mix or ThingsMix()
    rng = generator(seed, index, PART)
    rng.random()  # what `is_of_things` drew
    talk = _Talk(rng, choice_of(things, things_mix.things_rare), canvas, mix)
    talk_of = _TALKS[_drawn(rng, things_mix.kinds())]
    talk_of(talk)
    return Document(tuple(talk.parts))


def _drawn(rng: np.random.Generator, weights: dict[str, float]) -> str:
    """Draw a name by its weight."""
    edges = np.cumsum(list(weights.values()))
    return list(weights)[int(np.searchsorted(edges, rng.random() * edges[-1], side="right"))]


class _Talk:
    """A conversation being written: its parts, and the scenes drawn or shown so far."""

    def __init__(self, rng: np.random.Generator, choice: Choice, canvas: int, mix: Mix) -> None:
        self.rng, self.choice, self.canvas, self.mix = rng, choice, canvas, mix
        self.parts: list[Part] = []
        self.scenes: list[ThingScene] = []

    @property
    def scene(self) -> ThingScene:
        """Return the scene last drawn or shown."""
        return self.scenes[-1]

    def user(self, text: str) -> None:
        """Let the user say something."""
        self.parts.append(Text(text, "user", self.mix.asked_weight))

    def reply(self, text: str) -> None:
        """Let the assistant say something."""
        self.parts.append(Text(text, "assistant"))

    def show(self, shown: ThingScene, pixels_HW3: np.ndarray, text: str) -> None:
        """Let the user show an image and say something, mostly in this order."""
        self.scenes.append(shown)
        image = Image(pixels=pixels_HW3, role="user", weight=self.mix.seen_weight)
        self.user(text)
        self.parts.insert(len(self.parts) - (self.rng.random() < 0.85), image)

    def draw(self, drawn: ThingScene) -> None:
        """Let the assistant draw a scene."""
        self.scenes.append(drawn)
        pixels_HW3 = render(drawn, self.choice.things, self.canvas)
        self.parts.append(Image(pixels=pixels_HW3, role="assistant"))

    def chance(self, probability: float) -> bool:
        """Draw True with this probability."""
        return bool(self.rng.random() < probability)


def _draw(talk: _Talk) -> None:
    """Write a request and its image, and what follows: edits, questions, another request."""
    _request_turn(talk)
    _follow(talk)


def _request_turn(talk: _Talk) -> None:
    wanted = request(_drawn(talk.rng, THING_TASKS), talk.rng, talk.choice)
    talk.user(wanted.text)
    talk.draw(granted(wanted, talk.rng, talk.choice.things))


def _follow(talk: _Talk) -> None:
    turns = (_edit_turn, _edit_turn, _edit_turn, _drew_turn, _question_turn, _request_turn)
    for _ in range(talk.mix.max_follows):
        if not talk.chance(talk.mix.follow):
            return
        pick(talk.rng, turns)(talk)


def _edit_turn(talk: _Talk) -> None:
    """Write an edit of the scene last shown, or take the last edit back."""
    if len(talk.scenes) > 1 and talk.chance(0.3):
        undo = pick_phrasing(talk.rng, EDITS["undo"], held_out=False)[1]
        talk.user(dressed(undo, talk.rng))
        talk.draw(talk.scenes[0 if "first" in undo else -2])
        return
    kind = _drawn(talk.rng, EDIT_WEIGHTS)
    found = edits.edit(talk.scene, kind, talk.rng, talk.choice)
    if found is not None:
        talk.user(found[0])
        talk.draw(found[1])


def _drew_turn(talk: _Talk) -> None:
    text = pick_phrasing(talk.rng, DREW, held_out=False)[1]
    talk.user(dressed(text, talk.rng))
    talk.reply(told(talk.scene))


def _question_turn(talk: _Talk) -> None:
    """Write a question about the scene last shown, other than what it shows."""
    kinds = [kind for kind in questions.KINDS if kind != "name"]
    asked = questions.ask(talk.scene, pick(talk.rng, kinds), talk.rng, talk.choice)
    if asked is not None:
        talk.user(asked[0])
        talk.reply(asked[1])


def _name(talk: _Talk) -> None:
    """Write an icon of the user's, alone, and what it is; sometimes questions about it."""
    shown, pixels_HW3 = _shown(talk, 1)
    asked = questions.ask(shown, "name", talk.rng, talk.choice)
    assert asked is not None, "a thing has a name"
    talk.show(shown, pixels_HW3, asked[0])
    talk.reply(asked[1])
    if talk.chance(0.4):
        _question_turn(talk)


def _ask(talk: _Talk) -> None:
    """Write an image of the user's and several questions about it, each of another kind."""
    shown, pixels_HW3 = _shown(talk, _any_count(talk))
    _questions(talk, shown, pixels_HW3)


def _questions(talk: _Talk, shown: ThingScene, pixels_HW3: np.ndarray) -> None:
    order = talk.rng.permutation(len(questions.KINDS)).tolist()
    kinds = [questions.KINDS[k] for k in order]
    found = [questions.ask(shown, kind, talk.rng, talk.choice) for kind in kinds]
    asked = [one for one in found if one is not None][: int(talk.rng.integers(3, 6))]
    for k, (text, answer) in enumerate(asked):
        if k == 0:
            talk.show(shown, pixels_HW3, text)
        else:
            talk.user(text)
        talk.reply(answer)


def _describe(talk: _Talk) -> None:
    shown, pixels_HW3 = _shown(talk, _any_count(talk))
    _description(talk, shown, pixels_HW3)


def _description(talk: _Talk, shown: ThingScene, pixels_HW3: np.ndarray) -> None:
    text = pick_phrasing(talk.rng, DESCRIBE, held_out=False)[1]
    talk.show(shown, pixels_HW3, dressed(text, talk.rng))
    talk.reply(told(shown))
    if talk.chance(0.3):
        _question_turn(talk)


def _edit(talk: _Talk) -> None:
    """Write an image of the user's, drawn as the assistant draws, and edits of it."""
    shown = _plain_scene(talk, _any_count(talk))
    kind = _drawn(talk.rng, EDIT_WEIGHTS)
    found = edits.edit(shown, kind, talk.rng, talk.choice)
    pixels_HW3 = render(shown, talk.choice.things, talk.canvas)
    if found is None:
        return _description(talk, shown, pixels_HW3)
    talk.show(shown, pixels_HW3, found[0])
    talk.draw(found[1])
    _follow(talk)


def _large(talk: _Talk) -> None:
    """Write shapes as other programs draw them, described or asked about."""
    shown, pixels_HW3 = _seen(talk, lambda: _shapes(talk))
    if talk.chance(0.5):
        _questions(talk, shown, pixels_HW3)
    else:
        _description(talk, shown, pixels_HW3)


def _any_count(talk: _Talk) -> int:
    return int(np.searchsorted(np.cumsum(COUNTS), talk.rng.random())) + 1


def _plain_scene(talk: _Talk, count: int) -> ThingScene:
    """Draw a scene of so many items: half of those with several repeat one thing."""
    if count > 1 and talk.chance(0.5):
        left = count
        counts = []
        while left:
            counts.append(int(talk.rng.integers(1, left + 1)))
            left -= counts[-1]
    else:
        counts = [1] * count
    claims = talk.choice.claims(talk.rng, counts)
    items = [(c.names[0], c.is_icon, c.colour) for c in claims for _ in range(c.count)]
    return scene_of(items, talk.rng, talk.choice.things, style=pick(talk.rng, STYLES))


def _shown(talk: _Talk, count: int) -> tuple[ThingScene, np.ndarray]:
    """Draw a scene of the user's and its image, in any size and look."""
    return _seen(talk, lambda: _loosened(talk, _plain_scene(talk, count)))


def _loosened(talk: _Talk, shown: ThingScene) -> ThingScene:
    """Return the scene with items of other sizes, laid out anew."""
    low, high = (0.5, 0.92) if len(shown.items) == 1 else (0.32, 0.43)
    widths = talk.rng.uniform(low, high, len(shown.items)).tolist()
    return _relaid(talk, shown, widths)


def _relaid(talk: _Talk, shown: ThingScene, widths: list[float]) -> ThingScene:
    places = laid_out(talk.rng, widths)
    items = tuple(
        Item(*item.what, x, y, width)
        for item, (x, y), width in zip(shown.items, places, widths, strict=True)
    )
    return ThingScene(shown.page, items, shown.style)


def _shapes(talk: _Talk) -> ThingScene:
    """Draw a scene of 1 to 4 shapes, some of them alike."""
    while True:
        kinds = [
            (pick(talk.rng, SHAPES), False, pick(talk.rng, tuple(COLOURS)))
            for _ in range(int(talk.rng.integers(1, 4)))
        ]
        whole = [pick(talk.rng, kinds) for _ in range(_any_count(talk))]
        if not any_held_out(whole):
            break
    low, high = (0.3, 0.8) if len(whole) == 1 else (0.2, 0.42)
    widths = talk.rng.uniform(low, high, len(whole)).tolist()
    return _relaid(talk, ThingScene("white", tuple(Item(*what) for what in whole)), widths)


def _seen(talk: _Talk, make) -> tuple[ThingScene, np.ndarray]:
    """Draw scenes until one can be seen as a whole, and return it with its image."""
    while True:
        shown = make()
        pixels_HW3 = render_at_large(shown, talk.choice.things, talk.canvas, talk.rng)
        if pixels_HW3 is not None:
            return shown, pixels_HW3


_TALKS = {
    "draw": _draw,
    "name": _name,
    "ask": _ask,
    "describe": _describe,
    "edit": _edit,
    "large": _large,
}
