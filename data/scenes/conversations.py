"""Make training conversations about scenes: drawing, describing, answering, editing, stories.

In: (seed, index). Out: a `Document` in turns of user and assistant, with rendered images. A pure
function of its arguments, so any worker can make any conversation; costs about 0.8 ms each.

1. A kind is drawn by the weights of the `Mix`; every text comes from the phrasings that are not
   held out, and no image shows a held-out pair of attributes.
2. What the assistant says and draws is learned from with weight 1; its plans, and what the user
   says and shows, have the weights `plan_weight`, `asked_weight` and `seen_weight` of the Mix.
3. 'it' in a further turn is the object last spoken of.
"""

import math
from dataclasses import dataclass, fields

import numpy as np

from unimodal.document import Document, Image

from . import questions
from .chains import chain
from .comparisons import compare
from .contrasts import contrast
from .counting import count_question, counted_scene, listed_words, question_of
from .free_questions import DESCRIBE as FREE_DESCRIBE
from .layouts import layout
from .phrasings import DESCRIBE, EDITS, GREETINGS, STORIES
from .refusals import about_strange, absent, beyond, refused
from .requests import granted, request
from .small_talk import small_talk
from .strange import strange
from .tales import next_event, tale
from .talk import Talk, edit_turn, new_question, possible_edit, question_turn, request_turn
from .wording import caption, dressed, noun, pick, pick_phrasing
from .world import SMALL, World


@dataclass(frozen=True)
class Mix:
    """How often each kind of conversation comes (of any sum), and the loss weights of its parts."""

    draw: float = 0.42  # a request, its image, and what follows
    ask: float = 0.24  # an image of the user's and questions about it
    describe: float = 0.1  # an image of the user's and its caption
    edit: float = 0.18  # an image of the user's, an instruction, its result, and what follows
    story: float = 0.05  # a story asked for, told in text and images
    greet: float = 0.01  # a greeting
    chain: float = 0.0  # three to six exchanges about a picture that changes (chains.py)
    count: float = 0.0  # how many, even over kinds and numbers (counting.py)
    compare: float = 0.0  # two images side by side (comparisons.py)
    contrast: float = 0.0  # two requests that differ in one thing (contrasts.py)
    tale: float = 0.0  # a story, or a series, of a wished number of pictures (tales.py)
    chat: float = 0.0  # small talk, answered in words (small_talk.py)
    refuse: float = 0.0  # what cannot be granted, and things like it that can (refusals.py)
    layout: float = 0.0  # a request with boxes that say what is to stand where (layouts.py)
    unknown_icons: float = 0.0  # share of unknown nouns that icons have; 0 where things are trained
    extra: float = 0.2  # share of drawing requests beyond the six tasks
    free: float = 0.0  # share of what the user says that is in free words (free_words.py)
    plan: float = 0.0  # share of drawings that are planned in words first (plans.py)
    exact_plan: float = 0.0  # share of the plans that say centres and the page, too
    follow: float = 0.3  # chance of each further turn, as long as there is one
    max_follows: int = 2
    min_questions: int = 4
    max_questions: int = 6
    varied: float = 0.0  # share of questions in many more phrasings (varied_questions.py)
    hard: float = 0.0  # share of the questions about an image that are of the kinds questions.HARD
    plan_weight: float = 1.0  # loss weight of plans
    asked_weight: float = 0.1  # loss weight of the user's words
    seen_weight: float = 0.3  # loss weight of the user's images

    def __post_init__(self) -> None:
        wrong = [f.name for f in fields(self) if not 0 <= getattr(self, f.name) < math.inf]
        if wrong:
            raise ValueError(f"{', '.join(wrong)}: every field of a Mix is a number of at least 0")
        shares = [
            name
            for name in ("free", "unknown_icons", "hard", "plan", "exact_plan", "varied")
            if getattr(self, name) > 1
        ]
        if shares:
            raise ValueError(f"{', '.join(shares)}: a share is at most 1")
        if self.min_questions > self.max_questions:
            raise ValueError(
                f"min_questions {self.min_questions} exceeds max_questions {self.max_questions}"
            )
        if not 0 < (total := sum(self.kinds().values())) < math.inf:
            raise ValueError(
                f"the weights of kinds of conversation sum to {total}: a number above 0 is needed"
            )

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
    """Write an image and several questions about it, each of another kind but for the hard ones."""
    low, high = talk.mix.min_questions, talk.mix.max_questions
    talk.new_scene()
    kinds = [questions.KINDS[k] for k in talk.rng.permutation(len(questions.KINDS))]
    if talk.mix.hard > 0:
        kinds = [pick(talk.rng, questions.HARD) if talk.chance(talk.mix.hard) else k for k in kinds]
    found = [asked for kind in kinds if (asked := new_question(talk, kind)) is not None]
    for k, asked in enumerate(found[: int(talk.rng.integers(low, high + 1))]):
        if k == 0:
            talk.show(asked.text)
        else:
            talk.say(asked.text)
        talk.reply(asked.answer)


def _describe(talk: Talk) -> None:
    shown = talk.new_scene()
    table = FREE_DESCRIBE if talk.is_free() else DESCRIBE
    talk.show(dressed(pick_phrasing(talk.rng, table, held_out=False)[1], talk.rng))
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
    talk.draw_planned(change.after, change.before)
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
        event = next_event(talk)
        talk.reply(event[0])
        talk.draw(event[1])
    talk.reply("the end.")


def _count(talk: Talk) -> None:
    """Write an image, drawn or shown, and questions of how many, the numbers even."""
    drawn, claim = counted_scene(talk.rng, talk.world)
    asked = [question_of(drawn, claim, talk.rng)]
    asked += [count_question(drawn, talk.rng) for _ in range(int(talk.rng.integers(*_MORE_COUNTS)))]
    if talk.chance(0.5):
        talk.say(listed_words(drawn, talk.rng))
        talk.draw_planned(drawn)
        talk.say(asked[0].text)
    else:
        talk.scene = drawn
        talk.show(asked[0].text)
    talk.reply(asked[0].answer)
    for one in asked[1:]:
        talk.say(one.text)
        talk.reply(one.answer)


_MORE_COUNTS = (1, 5)  # further questions, the last excluded


def _chat(talk: Talk) -> None:
    """Write one to three exchanges of small talk, sometimes before a picture."""
    for _ in range(int(talk.rng.integers(1, 4))):
        said, answer = small_talk(talk.rng)
        talk.say(said)
        talk.reply(answer)
    if talk.chance(0.3):
        request_turn(talk)


def _refuse(talk: Talk) -> None:
    """Write what cannot be granted, mostly followed by what can."""
    if talk.chance(0.08):
        return _refuse_strange(talk)
    if talk.chance(0.25):
        talk.new_scene()
        return _refuse_about_image(talk)
    refusal = refused(talk.rng, talk.world, talk.canvas, icons=talk.mix.unknown_icons)
    talk.say(refusal.text)
    talk.reply(refusal.answer)
    if talk.chance(0.4):
        request_turn(talk)
        if talk.chance(0.4):
            _refuse_about_drawing(talk)


def _refuse_strange(talk: Talk) -> None:
    """Let the user show an image that is no scene, and then ask for one."""
    shown = strange(talk.rng, talk.canvas)
    talk.parts.append(Image(pixels=shown, role="user", weight=0.0))  # noise is not to be learned
    refusal = about_strange(talk.rng)
    talk.say(refusal.text)
    talk.reply(refusal.answer)
    if talk.chance(0.4):
        request_turn(talk)


def _refuse_about_image(talk: Talk) -> None:
    """Let the user ask of an image what it does not show, and then what it does."""
    assert talk.scene is not None, "the user shows an image"
    about = beyond(talk.rng) if talk.chance(0.4) else absent(talk.scene, talk.rng, EDITS)
    talk.show(about.text)
    talk.reply(about.answer)
    pick(talk.rng, (edit_turn, question_turn))(talk)


def _refuse_about_drawing(talk: Talk) -> None:
    assert talk.scene is not None, "a request was drawn"
    about = beyond(talk.rng) if talk.chance(0.4) else absent(talk.scene, talk.rng, EDITS)
    talk.say(about.text)
    talk.reply(about.answer)


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
    "chain": chain,
    "count": _count,
    "compare": compare,
    "contrast": contrast,
    "tale": tale,
    "chat": _chat,
    "refuse": _refuse,
    "layout": layout,
}
