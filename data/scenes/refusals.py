"""Requests and questions that the model cannot meet, and one honest sentence for each.

In: a generator, and for what depends on the picture its scene. Out: `Refused`, what is said and the
answer. An answer says what cannot be done, and what can. Each reason has one sentence of its own.

What looks alike and can be granted is trained beside it: `free_words.py` draws for people who speak
of their neighbour or their birthday, and every edit names an object that is there.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from .edits import KINDS as EDIT_KINDS
from .free_phrasings import REQUESTS as FREE_REQUESTS
from .languages import NOT_ENGLISH, foreign
from .nouns import ICON_NOUNS, NAMES, NOUNS, held_out_nouns, seen_nouns
from .phrasings import REQUESTS
from .refusal_phrasings import (
    BEYOND,
    DEEDS,
    KNOWLEDGE,
    NOUN_PHRASES,
    SIZES_IN_PIXELS,
    STRANGE,
    SUMS,
)
from .wording import (
    NUMBERS,
    Claim,
    bare_noun,
    noun,
    pick,
    pick_phrasing,
    plural,
    with_article,
)
from .world import COLOURS, SHAPES, Scene, World

NOT_DRAWN = "i cannot draw that, but i can draw shapes like {one}."
NOT_KNOWN = "i do not know that: i only know what is in my pictures."
NOT_SEEN = "the picture does not say: ask me about shapes, colours and places."
NOT_DONE = "i cannot do that: i draw, describe and edit pictures of coloured shapes."
NO_SUMS = "i do no sums, but i can count shapes in a picture."
NO_SIZES = "my pictures have {side} x {side} pixels, but shapes can be small or large."
TOO_MANY = "that is too many: i draw up to {most} shapes in a picture."
NOT_THERE = "there is no {what} in the picture."
NO_SHAPES = "i see no shapes that i know in this picture."
NO_PICTURE = "there is no picture yet: tell me what to draw."
WITHOUT_PICTURE = (
    "would you undo the last step?", "undo that", "make it blue", "what do you see?",
    "how many circles are there?", "describe the picture", "remove it", "what did you draw?",
    "put the first one back", "swap them", "go back", "what colour is it?", "the same but red",
    "move it to the left", "is there a star?", "what is in this picture?", "delete the circle",
    "make it bigger", "how many shapes do you see?",
)  # fmt: skip


ANSWERS = (
    NOT_DRAWN, NOT_KNOWN, NOT_SEEN, NOT_DONE, NO_SUMS, NO_SIZES, TOO_MANY, NOT_THERE, NO_SHAPES,
    NO_PICTURE, NOT_ENGLISH,
)  # fmt: skip


@dataclass(frozen=True)
class Refused:
    """What is said that cannot be granted, and the answer."""

    reason: str  # one of REASONS, or 'beyond', 'strange', 'absent'
    text: str
    answer: str


REASONS = (
    "noun", "noun", "noun", "noun", "knowledge", "deed", "sum", "language", "size", "number",
    "no picture",
)  # fmt: skip


def is_refusal(text: str) -> bool:
    """Return whether a reply is one of the sentences that say what cannot be granted."""
    return _refusals().fullmatch(" ".join(text.lower().split())) is not None


@cache
def _refusals() -> re.Pattern[str]:
    patterns = (re.sub(r"\\{\w+\\}", r"[a-z0-9 ]+", re.escape(answer)) for answer in ANSWERS)
    return re.compile("|".join(patterns))


def refused(
    rng: np.random.Generator,
    world: World,
    canvas: int,
    held_out: bool = False,
    icons: float = 0.0,
    reason: str | None = None,
) -> Refused:
    """Draw a request that no picture is needed for and that cannot be granted.

    `icons` is the share of unknown nouns that icons have: unknown where no things are trained.
    """
    reason = pick(rng, REASONS) if reason is None else reason
    match reason:
        case "noun":
            one = with_article(f"{pick(rng, tuple(COLOURS))} {pick(rng, SHAPES)}")
            answer = NOT_DRAWN.format(one=one)
            return Refused(reason, _unknown(rng, held_out, icons), answer)
        case "knowledge":
            return Refused(reason, pick_phrasing(rng, KNOWLEDGE, held_out)[1], NOT_KNOWN)
        case "deed":
            return Refused(reason, pick_phrasing(rng, DEEDS, held_out)[1], NOT_DONE)
        case "sum":
            return Refused(reason, _sum(rng, held_out), NO_SUMS)
        case "language":
            return Refused(reason, foreign(rng, held_out), NOT_ENGLISH)
        case "size":
            return Refused(reason, _sized(rng, held_out), NO_SIZES.format(side=canvas))
        case "number":
            most = NUMBERS[world.max_objects]
            return Refused(reason, _too_many(rng, world, held_out), TOO_MANY.format(most=most))
        case "no picture":
            return Refused(reason, pick_phrasing(rng, WITHOUT_PICTURE, held_out)[1], NO_PICTURE)
    raise ValueError(f"no reason {reason!r} to refuse: one of {', '.join(dict.fromkeys(REASONS))}")


def beyond(rng: np.random.Generator, held_out: bool = False) -> Refused:
    """Draw a question about a picture that the picture does not answer."""
    text = pick_phrasing(rng, BEYOND, held_out)[1].format(one=pick(rng, (*SHAPES, "shape")))
    return Refused("beyond", text, NOT_SEEN)


def about_strange(rng: np.random.Generator, held_out: bool = False) -> Refused:
    """Draw something said about an image that is no scene (strange.py)."""
    return Refused("strange", pick_phrasing(rng, STRANGE, held_out)[1], NO_SHAPES)


def absent(
    scene: Scene,
    rng: np.random.Generator,
    templates: Mapping[str, tuple[str, ...]],
    held_out: bool = False,
) -> Refused:
    """Draw an instruction about an object that the scene does not have.

    Mostly a near miss: the shape of one object in the colour of another. `templates` are those of
    edits that name one object.
    """
    claim = _absent_claim(scene, rng)
    what = bare_noun(claim, rng)
    kind = pick(rng, tuple(kind for kind in EDIT_KINDS if kind in ABSENT_SLOTS))
    template = pick_phrasing(rng, templates[kind], held_out)[1]
    slots = {
        name: pick(rng, [word for word in words if word != claim.colour])
        for name, words in ABSENT_SLOTS[kind].items()
    }
    words = " ".join(word for word in (claim.colour, claim.shape) if word)
    return Refused(
        "absent", template.format(one=f"the {what}", **slots), NOT_THERE.format(what=words)
    )


ABSENT_SLOTS: dict[str, dict[str, tuple[str, ...]]] = {
    "recolour": {"colour": tuple(COLOURS)},
    "remove": {},
    "move": {"spot": ("to the left", "to the right", "up", "down", "to the middle")},
    "resize": {"size": ("bigger", "smaller", "small", "large")},
}


def _absent_claim(scene: Scene, rng: np.random.Generator) -> Claim:
    """Draw a claim with a shape, mostly with a colour, that fits no object of the scene."""
    shapes = [obj.shape for obj in scene.objects]
    colours = [obj.colour for obj in scene.objects]
    for _ in range(4):
        claim = Claim(1, None, pick(rng, colours), pick(rng, shapes))
        if rng.random() < 0.6 and not any(map(claim.fits, scene.objects)):
            return claim
    shape = pick(rng, [shape for shape in SHAPES if shape not in shapes])
    return Claim(1, None, pick(rng, tuple(COLOURS)) if rng.random() < 0.5 else None, shape)


def _unknown(rng: np.random.Generator, held_out: bool, icons: float) -> str:
    """Ask for a picture of something unknown: 'draw my boss', 'two waiters in a canoe'."""
    nouns = held_out_nouns if held_out else seen_nouns
    chance = rng.random()
    if chance < 0.06:
        what = pick(rng, nouns(NAMES))
    else:
        names = nouns(ICON_NOUNS if rng.random() < icons else NOUNS)
        one, two = pick(rng, names), pick(rng, names)
        what = pick_phrasing(rng, NOUN_PHRASES, False)[1].format(
            one=one, a=with_article(one), two=two, another=with_article(two), many=plural(one),
            colour=pick(rng, tuple(COLOURS)), number=pick(rng, NUMBERS[2:]),
            shape=noun(Claim(1, None, pick(rng, tuple(COLOURS)), pick(rng, SHAPES)), rng),
        )  # fmt: skip
    table = REQUESTS if rng.random() < 0.5 else FREE_REQUESTS
    return pick_phrasing(rng, table, False)[1].format(what=what)


def _sum(rng: np.random.Generator, held_out: bool) -> str:
    first, second = (int(n) for n in rng.integers(1, 100 if rng.random() < 0.4 else 11, size=2))
    _, template = pick_phrasing(rng, SUMS, held_out)
    if max(first, second) < len(NUMBERS) and rng.random() < 0.3:
        return template.format(a=NUMBERS[first], b=NUMBERS[second])
    return template.format(a=first, b=second)


def _sized(rng: np.random.Generator, held_out: bool) -> str:
    claim = Claim(1, None, pick(rng, tuple(COLOURS)), pick(rng, SHAPES))
    side, other = (int(n) for n in rng.choice((128, 256, 300, 512, 640, 800, 1024, 1920), size=2))
    _, template = pick_phrasing(rng, SIZES_IN_PIXELS, held_out)
    return template.format(what=noun(claim, rng), side=side, other=other)


def _too_many(rng: np.random.Generator, world: World, held_out: bool) -> str:
    """Ask for more objects than a picture holds, in digits or words."""
    spelled = (
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
        "twenty",
        "fifty",
    )
    amounts = (5, 6, 7, 8, 9, 10, 11, 12, 20, 50)
    able = [k for k, amount in enumerate(amounts) if amount > world.max_objects]
    amount = pick(rng, able)
    words = [str(amounts[amount]), spelled[amount], *MANY]
    if world.max_objects < 6:
        words.append("half a dozen")
    number = pick(rng, words[2:] if rng.random() < 0.2 else words[:2])
    colour = pick(rng, tuple(COLOURS)) if rng.random() < 0.5 else None
    what = f"{number} {bare_noun(Claim(2, None, colour, pick(rng, SHAPES)), rng)}"
    table: Sequence[str] = REQUESTS if rng.random() < 0.5 else FREE_REQUESTS
    return pick_phrasing(rng, tuple(table), held_out)[1].format(what=what)


MANY = ("a hundred", "a thousand", "a dozen", "lots of", "a million", "countless", "100", "1000")
