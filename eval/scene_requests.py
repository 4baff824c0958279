"""What the evaluation in the world of scenes asks, and which answers are right.

In: a part, a number of samples and a seed. Out: requests. Those of drawing, questions, captions and
edits are uniform over attributes, counts, sizes and backgrounds; a fifth is in phrasings that
training held out, and with a fifth of the pairs of (shape, colour) held out. Those of layout have a
box for every object of a scene, and words that say what is wanted half of the time. The other parts
of one turn stand in `people_requests.py`, those of several in `chain_exam.py`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple
from functools import partial

from unimodal.data.scenes.edits import KINDS as EDITS
from unimodal.data.scenes.edits import edit
from unimodal.data.scenes.layouts import placed, words_beside
from unimodal.data.scenes.phrasings import DESCRIBE
from unimodal.data.scenes.questions import KINDS as QUESTIONS
from unimodal.data.scenes.questions import ask
from unimodal.data.scenes.requests import TASKS, granted, request
from unimodal.data.scenes.wording import NUMBERS, dressed, pick_phrasing
from unimodal.data.scenes.world import SMALL, World, generator, has_held_out_pair, scene

from . import people_requests
from .scene_request import SceneRequest
from .tokenizer import as_json
from .verdicts import (
    expected_of,
    judge_caption,
    judge_drawing,
    judge_edit,
    judge_layout,
    judge_question,
    names_held_out_pair,
)

WORLD_PARTS = ("drawing", "questions", "captions", "edits")
PEOPLE_PARTS = ("free", "counts", "refusals", "words")
LAYOUT = "layout"
PARTS = (
    *WORLD_PARTS,
    *PEOPLE_PARTS,
    LAYOUT,
)  # add at the end: a part's place says which scenes it takes
HELD_OUT_RATE = 0.2  # of the requests are in held-out phrasings: a fifth of the phrasings are


Maker = Callable[[int, int, int], SceneRequest | None]
"""Makes the request of a number from the scene of (seed, index); None: that scene offers none."""


def make_requests(part: str, samples: int, seed: int, world: World = SMALL) -> list[SceneRequest]:
    """Return `samples` requests of each kind of a part; a pure function of its arguments."""
    makers: dict[str, tuple[Sequence[str], Callable[..., SceneRequest | None]]] = {
        "drawing": (TASKS, _drawing),
        "questions": (QUESTIONS, _question),
        "captions": (("caption",), _caption),
        "edits": (EDITS, _edit),
        "free": (people_requests.FREE, people_requests.free),
        "counts": (people_requests.numbers(world), people_requests.count),
        "refusals": (people_requests.REFUSALS, people_requests.refusal),
        "words": (people_requests.TOPICS, people_requests.words),
        LAYOUT: (layout_kinds(world), _layout),
    }
    kinds, make = makers[part]
    first = PARTS.index(part) << 40  # scenes of parts and kinds never meet
    return [
        one
        for k, kind in enumerate(kinds)
        for one in some(partial(make, kind, world), k * samples, samples, seed, first + (k << 32))
    ]


def some(make: Maker, number: int, samples: int, seed: int, index: int) -> Iterator[SceneRequest]:
    """Yield the requests from `number` on, made of scenes from `index` on that offer one."""
    end = number + samples
    while number < end:
        made = make(number, seed, index)
        index += 1
        if made is not None:
            number += 1
            yield made


def _drawing(kind: str, world: World, number: int, seed: int, index: int) -> SceneRequest | None:
    rng = generator(seed, index, part=1)
    held_out = bool(rng.random() < HELD_OUT_RATE)
    wanted = request(kind, rng, held_out, pairs=None)
    if wanted.count > world.max_objects:
        return None
    if kind == "counting" and wanted.claims[0].count < 2:
        return None  # GenEval counts two and more
    return SceneRequest(
        "drawing", number, kind, wanted.text, None, granted(wanted, rng, world),
        expected_of(wanted), partial(judge_drawing, wanted), held_out, names_held_out_pair(wanted),
    )  # fmt: skip


def _question(kind: str, world: World, number: int, seed: int, index: int) -> SceneRequest | None:
    rng, shown = generator(seed, index, part=1), scene(seed, index, world)
    held_out = bool(rng.random() < HELD_OUT_RATE)
    asked = ask(shown, kind, rng, held_out)
    if asked is None:
        return None
    return SceneRequest(
        "questions", number, kind, asked.text, shown, None,
        asked.answer, partial(judge_question, asked), held_out, has_held_out_pair(shown.objects),
    )  # fmt: skip


def _caption(kind: str, world: World, number: int, seed: int, index: int) -> SceneRequest | None:
    rng, shown = generator(seed, index, part=1), scene(seed, index, world)
    held_out = bool(rng.random() < HELD_OUT_RATE)
    prompt = dressed(pick_phrasing(rng, DESCRIBE, held_out)[1], rng)
    return SceneRequest(
        "captions", number, kind, prompt, shown, None,
        as_json(shown), partial(judge_caption, shown), held_out, has_held_out_pair(shown.objects),
    )  # fmt: skip


def _edit(kind: str, world: World, number: int, seed: int, index: int) -> SceneRequest | None:
    rng, shown = generator(seed, index, part=1), scene(seed, index, world)
    held_out = bool(rng.random() < HELD_OUT_RATE)
    wanted = edit(shown, kind, rng, held_out, world=world)
    if wanted is None:
        return None
    pair = has_held_out_pair(wanted.before.objects) or has_held_out_pair(wanted.after.objects)
    return SceneRequest(
        "edits", number, kind, wanted.instruction, shown, wanted.after,
        as_json(wanted.after), partial(judge_edit, wanted), held_out, pair,
    )  # fmt: skip


def layout_kinds(world: World) -> tuple[str, ...]:
    """Return the kinds of requests with boxes: how many there are."""
    return tuple(_boxes(count) for count in range(1, world.max_objects + 1))


def _boxes(count: int) -> str:
    return f"{NUMBERS[count]} box{'es' * (count > 1)}"


def _layout(kind: str, world: World, number: int, seed: int, index: int) -> SceneRequest | None:
    rng, wanted = generator(seed, index, part=1), scene(seed, index, world)
    held_out = bool(rng.random() < HELD_OUT_RATE)
    things = [placed(obj, rng, loose=False) for obj in wanted.objects]
    if kind != _boxes(len(things)):
        return None
    return SceneRequest(
        LAYOUT, number, kind, words_beside(things, rng, held_out), None, wanted,
        [[thing.text, *astuple(thing.box)] for thing in things],
        partial(judge_layout, things), held_out, has_held_out_pair(wanted.objects),
        boxes=tuple(thing.part() for thing in things),
    )  # fmt: skip
