"""Conversations of several turns, each judged by what the model drew in the turns before.

In: a number of samples and a seed. Out: requests, and the evaluator that asks them.

- own: draw, describe it, count in it, edit it, undo that. What is right depends on what the model
  drew, as `read_scene` reads it: a wrong drawing can be described rightly.
- edits: an image is shown and changed three times, each time as the model left it.

A conversation ends early where there is no one readable image to go on from; its further steps are
wrong. `whole` is the share of conversations in which every step is right.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from unimodal.data.scenes.chain_phrasings import DREW, UNDO
from unimodal.data.scenes.counting import count_question
from unimodal.data.scenes.edits import KINDS as EDITS
from unimodal.data.scenes.edits import Edit, edit
from unimodal.data.scenes.reading import Unreadable, read_scene
from unimodal.data.scenes.requests import request
from unimodal.data.scenes.wording import dressed, pick, pick_phrasing
from unimodal.data.scenes.world import Scene, World, generator, render, scene
from unimodal.document import Document, Image, Part, Text
from unimodal.sampling import Sampling

from .answer import Answer
from .run import Evaluator, Turn, Turns
from .score import Prediction, by_kind
from .tokenizer import as_json
from .verdicts import (
    Verdict,
    judge_caption,
    judge_drawing,
    judge_edit,
    judge_question,
)

CHAINS = "chains"  # the name of the part
FIRST_INDEX = 1 << 50  # of its scenes, beyond those of all parts of one turn
STEPS = {
    "own": ("draw", "describe", "count", "edit", "undo"),
    "edits": ("first_edit", "second_edit", "third_edit"),
}
DRAWN = ("single object", "colours", "counting", "two objects", "attribute binding")


@dataclass(frozen=True)
class Step:
    """One exchange: what the user says, and the judge of the reply."""

    name: str
    prompt: str
    judge: Callable[[Answer], Verdict]


Steps = Generator[Step, Answer, None]
"""Yields a step and is sent the answer; ends early where there is nothing to go on from."""


@dataclass(frozen=True, eq=False)
class ChainRequest:
    """One conversation; its steps follow from the answers."""

    kind: str  # one of STEPS
    number: int
    seed: int
    index: int
    world: World

    @property
    def id(self) -> str:
        """Return part and number."""
        return f"{CHAINS}/{self.number:06d}"

    @property
    def shown(self) -> Scene | None:
        """Return the scene that the user shows; None where the model draws first."""
        return scene(self.seed, self.index, self.world) if self.kind == "edits" else None

    @property
    def part(self) -> str:
        """Return the name of the part."""
        return CHAINS

    @property
    def prompt(self) -> str:
        """Return what is said first."""
        return next(self.steps()).prompt

    @property
    def expected(self) -> Any:
        """Return the scene that is shown, as JSON; None where there is none."""
        return None if self.shown is None else as_json(self.shown)

    def steps(self) -> Steps:
        """Return the steps, a pure function of the request and the answers."""
        rng = generator(self.seed, self.index, part=1)
        return _edits(self, rng) if self.kind == "edits" else _own(self, rng)


def make_chains(samples: int, seed: int, world: World) -> list[ChainRequest]:
    """Return `samples` conversations of each kind; a pure function of its arguments."""
    return [
        ChainRequest(kind, k * samples + n, seed, FIRST_INDEX + (k << 40) + n, world)
        for k, kind in enumerate(STEPS)
        for n in range(samples)
    ]


def _own(asked: ChainRequest, rng: np.random.Generator) -> Steps:
    wanted = request(pick(rng, DRAWN), rng)
    drawn = picture((yield Step("draw", wanted.text, partial(judge_drawing, wanted))))
    if drawn is None:
        return
    prompt = dressed(pick_phrasing(rng, DREW, held_out=False)[1], rng)
    yield Step("describe", prompt, partial(judge_caption, drawn))
    question = count_question(drawn, rng)
    yield Step("count", question.text, partial(judge_question, question))
    change = any_edit(drawn, rng, asked.world)
    if change is None:
        return
    answer = yield Step("edit", change.instruction, partial(judge_edit, change))
    if picture(answer) is None:
        return
    prompt = dressed(pick_phrasing(rng, UNDO, held_out=False)[1], rng)
    undone = Edit("undo", prompt, 0, drawn, drawn, None)
    yield Step("undo", prompt, partial(judge_edit, undone))


def _edits(asked: ChainRequest, rng: np.random.Generator) -> Steps:
    before = asked.shown
    for name in STEPS["edits"]:
        change = any_edit(before, rng, asked.world) if before is not None else None
        if change is None:
            return
        before = picture((yield Step(name, change.instruction, partial(judge_edit, change))))


def picture(answer: Answer) -> Scene | None:
    """Return the scene in the answer's one image; None where it is not one readable image."""
    if len(answer.images) != 1:
        return None
    read = read_scene(answer.images[0])
    return None if isinstance(read, Unreadable) or not read.objects else read


def any_edit(before: Scene, rng: np.random.Generator, world: World) -> Edit | None:
    """Return an edit that the scene allows, of kinds in a random order; None if it allows none."""
    found = (edit(before, EDITS[k], rng, world=world) for k in rng.permutation(len(EDITS)))
    return next((change for change in found if change is not None), None)


class ChainEvaluator(Evaluator[ChainRequest]):
    """Holds the conversations, with images of `canvas` pixels a side."""

    name = CHAINS

    def __init__(
        self, requests: Sequence[ChainRequest], sampling: Sampling, seed: int, canvas: int
    ) -> None:
        self.canvas = canvas
        self._requests, self._sampling, self._seed = requests, sampling, seed

    def requests(self) -> Sequence[ChainRequest]:
        """Return the conversations in order."""
        return self._requests

    def shown(self, request: ChainRequest) -> np.ndarray | None:
        """Return the image that the user shows first, uint8 (canvas, canvas, 3), or None."""
        return None if request.shown is None else render(request.shown, self.canvas)

    def turns(self, request: ChainRequest) -> Turns:
        """Say each step behind what was said and drawn before, with noise of its own."""
        shown = self.shown(request)
        parts: list[Part] = [] if shown is None else [Image(pixels=shown, role="user")]
        steps, turn = request.steps(), 0
        step = next(steps, None)
        while step is not None:
            parts.append(Text(step.prompt, role="user"))
            noise = (self._seed * 2**20 + request.number * 8 + turn) % 2**64
            reply = yield Turn(Document(tuple(parts)), replace(self._sampling, seed=noise))
            parts += [replace(part, role="assistant") for part in reply]
            step, turn = _sent(steps, Answer.of(reply)), turn + 1

    def score(self, request: ChainRequest, answer: Answer) -> Prediction:
        """Return the verdict on every step."""
        told = []
        steps = request.steps()
        step = next(steps, None)
        for one in (*answer.earlier, answer):
            assert step is not None, "each answer has its step"
            verdict = step.judge(one)
            told.append({
                "name": step.name, "prompt": step.prompt, "answer": verdict.answer,
                "right": not verdict.reason, "reason": verdict.reason,
            })  # fmt: skip
            step = _sent(steps, one)
        missing = STEPS[request.kind][len(told) :]
        told += [{"name": name, "right": False, "reason": NOT_REACHED} for name in missing]
        wrong = [f"{one['name']}: {one['reason']}" for one in told if not one["right"]]
        return {
            "part": CHAINS,
            "kind": request.kind,
            "prompt": " / ".join(one["prompt"] for one in told if "prompt" in one),
            "expected": request.expected,
            "answer": None,
            "right": not wrong,
            "reason": "; ".join(wrong),
            "steps": told,
            **answer.kept(),
        }

    def summary(self, predictions: Sequence[Prediction]) -> dict[str, Any]:
        """Return the share of right steps by name, also of those reached, and of whole chains."""
        steps = [
            {"kind": step["name"], "right": step["right"], "reason": step["reason"]}
            for prediction in predictions
            for step in prediction["steps"]
        ]
        reached = [step for step in steps if step["reason"] != NOT_REACHED]
        return {**by_kind(steps), "reached": by_kind(reached), "whole": by_kind(predictions)}


NOT_REACHED = "not reached"


def _sent(steps: Steps, answer: Answer) -> Step | None:
    """Send an answer and return the next step; None at the end."""
    try:
        return steps.send(answer)
    except StopIteration:
        return None
