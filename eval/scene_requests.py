"""What the evaluation in the world of scenes asks, and which answers are right.

In: a part (drawing, questions, captions, edits), a number of samples and a seed. Out: requests,
uniform over attributes, counts, sizes and backgrounds; a fifth in phrasings that training held
out, and with a fifth of the pairs of (shape, colour) held out.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from unimodal.data.scenes.edits import KINDS as EDITS
from unimodal.data.scenes.edits import edit
from unimodal.data.scenes.phrasings import DESCRIBE
from unimodal.data.scenes.questions import KINDS as QUESTIONS
from unimodal.data.scenes.questions import ask
from unimodal.data.scenes.requests import TASKS, granted, request
from unimodal.data.scenes.wording import dressed, pick_phrasing
from unimodal.data.scenes.world import SMALL, Scene, World, generator, has_held_out_pair, scene

from .answer import Answer
from .tokenizer import as_json
from .verdicts import (
    Verdict,
    expected_of,
    judge_caption,
    judge_drawing,
    judge_edit,
    judge_question,
    names_held_out_pair,
)

PARTS = ("drawing", "questions", "captions", "edits")
BLIND = "blind"  # the part of questions without their images
HELD_OUT_RATE = 0.2  # of the requests are in held-out phrasings: a fifth of the phrasings are


@dataclass(frozen=True, eq=False)
class SceneRequest:
    """One request with what tells whether its answer is right."""

    part: str  # one of PARTS, or BLIND
    number: int  # in the part
    kind: str
    prompt: str
    shown: Scene | None  # the image that comes before the prompt
    ideal: Scene | None  # a scene that a perfect image would show; None: words are wanted
    expected: Any
    judge: Callable[[Answer], Verdict]
    held_out_words: bool
    held_out_pair: bool

    @property
    def id(self) -> str:
        """Return part and number; ids of a part sort as its requests do."""
        return f"{self.part}/{self.number:06d}"

    def blind(self) -> "SceneRequest":
        """Return the same request without its image."""
        return replace(self, part=BLIND, shown=None)


Maker = Callable[[int, int, int], SceneRequest | None]
"""Makes the request of a number from the scene of (seed, index); None: that scene offers none."""


def make_requests(part: str, samples: int, seed: int, world: World = SMALL) -> list[SceneRequest]:
    """Return `samples` requests of each kind of a part; a pure function of its arguments."""
    makers: dict[str, tuple[Sequence[str], Callable[..., SceneRequest | None]]] = {
        "drawing": (TASKS, _drawing),
        "questions": (QUESTIONS, _question),
        "captions": (("caption",), _caption),
        "edits": (EDITS, _edit),
    }
    kinds, make = makers[part]
    first = PARTS.index(part) << 40  # scenes of parts and kinds never meet
    return [
        one
        for k, kind in enumerate(kinds)
        for one in _some(partial(make, kind, world), k * samples, samples, seed, first + (k << 32))
    ]


def _some(make: Maker, number: int, samples: int, seed: int, index: int) -> Iterator[SceneRequest]:
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
