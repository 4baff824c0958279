"""What the exam of things asks, and which answers are right.

In: a part, a number of samples, a seed and a table of icons. Out: requests.

1. Of every kind, `samples` are about icons that training shows, a fifth of them in phrasings that
   it holds out. HELD_OUT more, in phrasings that it shows, are about icons that it holds out, and
   as many about pairs (two names, or a name and a tint) that it holds out.
2. Drawings are asked for by name, as data/things/requests.py does; questions are about a plain
   render, in either style.
"""

import math
from collections.abc import Sequence
from functools import partial

import numpy as np

from unimodal.data.scenes.wording import pick
from unimodal.data.scenes.world import generator
from unimodal.data.things.choice import Choice, UnseenIcons, UnseenPairs, has_held_out_pair, whats
from unimodal.data.things.icons import STYLES
from unimodal.data.things.questions import KINDS as QUESTIONS
from unimodal.data.things.questions import ask
from unimodal.data.things.requests import ThingRequest, granted, request, scene_of
from unimodal.data.things.table import Things
from unimodal.data.things.wording import ThingClaim, noun
from unimodal.data.things.world import Item, ThingScene

from .scene_request import SceneRequest
from .scene_requests import HELD_OUT_RATE, some
from .thing_verdicts import expected_of, judge_thing_answer, judge_thing_drawing

DRAWINGS = ("thing", "counting", "two things", "mixed", "tinted", "position")
PARTS = {"drawing": DRAWINGS, "questions": QUESTIONS}
HELD_OUT = 0.25  # requests about what is held out, for each that is not
EXAM = 4  # part of the generator: 0 scenes, 1 and 3 conversations, 2 drawings
ALONE, TWO = ((1,),), ((1, 1),)
SHOWN = {  # counts of the claims of a scene that is asked about, by kind
    "name": ALONE, "kind": ALONE, "is kind": ALONE,
    "is there": (*ALONE, *TWO, (1, 1, 1)), "colour": (*ALONE, *TWO),
    "count": (*ALONE, *TWO, (2,), (3,), (4,), (2, 1), (1, 2), (3, 1), (2, 2)),
    "side": TWO, "is side": TWO,
}  # fmt: skip
PAIRED = {  # kinds that can show a pair
    "drawing": ("two things", "mixed", "tinted", "position"),
    "questions": ("is there", "count", "colour", "side", "is side"),
}


def make_thing_requests(part: str, samples: int, seed: int, things: Things) -> list[SceneRequest]:
    """Return the requests of a part; a pure function of its arguments."""
    make = {"drawing": _drawing, "questions": _question}[part]
    few = math.ceil(samples * HELD_OUT)
    sides: dict[str, tuple[Choice, Sequence[str], int]] = {
        "nothing": (Choice(things, rare=0.0), PARTS[part], samples),
        "icons": (UnseenIcons(things), PARTS[part], few),
        "pairs": (UnseenPairs(things), PAIRED[part], few),
    }
    found: list[SceneRequest] = []
    for n, (side, (choice, kinds, wanted)) in enumerate(sides.items()):
        for k, kind in enumerate(kinds):
            first = (list(PARTS).index(part) << 40) + (n << 36) + (k << 32)  # they never meet
            making = partial(make, kind, side, choice)
            found += some(making, len(found), wanted, seed, first)
    return found


def _drawing(
    kind: str, side: str, choice: Choice, number: int, seed: int, index: int
) -> SceneRequest | None:
    rng = generator(seed, index, EXAM)
    held_out = side == "nothing" and bool(rng.random() < HELD_OUT_RATE)
    wanted = request(kind, rng, choice, held_out)
    if not _is_of_kind(wanted) or (side == "pairs" and not has_held_out_pair(whats(wanted.claims))):
        return None
    drawn = granted(wanted, rng, choice.things)
    return SceneRequest(
        "drawing", number, kind, wanted.text, None, drawn, expected_of(wanted),
        partial(judge_thing_drawing, wanted, choice.things), held_out, side == "pairs", unseen=side,
    )  # fmt: skip


def _is_of_kind(wanted: ThingRequest) -> bool:
    """Return whether two and more are counted, as GenEval does, and mixed has a shape."""
    if wanted.task == "counting":
        return wanted.claims[0].count > 1
    return wanted.task != "mixed" or not all(claim.is_icon for claim in wanted.claims)


def _question(
    kind: str, side: str, choice: Choice, number: int, seed: int, index: int
) -> SceneRequest | None:
    rng = generator(seed, index, EXAM)
    held_out = side == "nothing" and bool(rng.random() < HELD_OUT_RATE)
    shown = _shown(kind, side, rng, choice)
    asked = ask(shown, kind, rng, choice, held_out)
    if asked is None:
        return None
    text, answer = asked
    return SceneRequest(
        "questions", number, kind, text, shown, None, answer,
        partial(judge_thing_answer, answer, named(shown, answer)), held_out, side == "pairs",
        unseen=side,
    )  # fmt: skip


def _shown(kind: str, side: str, rng: np.random.Generator, choice: Choice) -> ThingScene:
    """Draw a scene that may be asked about, plainly drawn; most of its things have own colours."""
    counts = pick(rng, [c for c in SHOWN[kind] if side != "pairs" or len(c) > 1])
    is_colour = kind == "colour"
    claims = choice.claims(rng, counts, 0.0 if is_colour else 0.3, 0.8 if is_colour else 0.15)
    return scene_of(whats(claims), rng, choice.things, style=pick(rng, STYLES))


def named(shown: ThingScene, answer: str) -> Item | None:
    """Return the item of a scene that the answer to a question names; None where it names none."""
    for item in shown.items:
        if answer == noun(ThingClaim(1, (item.name,), item.is_icon, item.colour)):
            return item
    return None
