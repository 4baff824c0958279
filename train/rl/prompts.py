"""What a rollout asks: prompt number n of a run is a pure function of its config and n."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from unimodal.data.scenes.edits import Edit, edit
from unimodal.data.scenes.layouts import Placed, placed, words_beside
from unimodal.data.scenes.phrasings import DESCRIBE
from unimodal.data.scenes.questions import Question, ask
from unimodal.data.scenes.requests import Request as DrawingRequest
from unimodal.data.scenes.requests import request
from unimodal.data.scenes.wording import dressed, pick_phrasing
from unimodal.data.scenes.world import Scene, generator, render, scene, world_of
from unimodal.document import Document, Image, Part, Text
from unimodal.model import Model
from unimodal.room import refusal

from . import kinds
from .run import PromptsConfig

KIND, WORDS = 11, 12  # parts of the counter that draw a prompt's kind and its words
TRIED = 256  # scenes, of which one must offer a prompt
ATTEMPT = 40  # bits of the counter, above which scenes are counted that offered nothing of a kind
Wish = DrawingRequest | Edit | Question | Scene | tuple[Placed, ...]
"""What a prompt in the world of scenes asks for; a scene: its caption; things: each in its box."""


@dataclass(frozen=True, eq=False)
class Prompt:
    """A Prompt is a document to reply to, its images encoded, and what judges the reply needs."""

    kind: str
    document: Document
    wish: Wish | None = None


class Prompts(Protocol):
    """Prompts are numbered from 0 and do not end."""

    kinds: tuple[str, ...]
    """Of all prompts."""

    def __call__(self, number: int) -> Prompt:
        """Return the prompt of a number."""
        ...


class ScenePrompts:
    """ScenePrompts are requests in the world of scenes, worded as training words them: in no
    held-out phrasing, and without held-out pairs of attributes.
    """

    def __init__(self, config: PromptsConfig, model: Model, canvas: int, least: int) -> None:
        """`least`: how many tokens a reply must have room for. Raise ValueError where the context
        has no room for some kind.
        """
        self._seed, self._model, self._canvas, self._least = config.seed, model, canvas, least
        self._shares = kinds.shares(config.mix)
        self.kinds = tuple(self._shares)
        for kind in self.kinds:
            self._prompt(kind, 0)

    def __call__(self, number: int) -> Prompt:
        """Return the prompt of a number."""
        return self._prompt(kinds.draw(self._shares, generator(self._seed, number, KIND)), number)

    def _prompt(self, kind: str, number: int) -> Prompt:
        """Return the first request of a kind that a scene offers and the context has room for."""
        model = self._model
        for attempt in range(TRIED):
            if (made := self._made(kind, number + (attempt << ATTEMPT))) is None:
                continue
            document = model.codec.encode_document(Document(made[0]))
            if refusal(model.sequencer, document, model.context, self._least) is None:
                return Prompt(kind, document, made[1])
        raise ValueError(
            f"prompts.mix: none of {TRIED} requests of {kind} leaves a reply of {self._least} "
            f"tokens room in the model's context of {model.context}"
        )

    def _made(self, kind: str, index: int) -> tuple[tuple[Part, ...], Wish] | None:
        """Return what is said and wished of a scene; None where it offers nothing of the kind."""
        rng, world = generator(self._seed, index, WORDS), world_of(self._canvas)
        part, _, name = kind.partition("/")
        if part == "drawing":
            wanted = request(name.replace("_", " "), rng)
            # As GenEval does, only two and more are counted.
            is_one = name == "counting" and wanted.claims[0].count < 2
            return None if is_one else ((_said(wanted.text),), wanted)
        shown = scene(self._seed, index, world, seen_only=True)
        if part == "captions":
            words = dressed(pick_phrasing(rng, DESCRIBE, False)[1], rng)
            return (self._shown(shown), _said(words)), shown
        if part == kinds.LAYOUT:
            things = tuple(placed(obj, rng, loose=True) for obj in shown.objects)
            said = _said(words_beside(things, rng))
            return (said, *(thing.part() for thing in things)), things
        if part == "questions":
            asked = ask(shown, name, rng)
            return None if asked is None else ((self._shown(shown), _said(asked.text)), asked)
        change = edit(shown, name, rng, seen_only=True, world=world)
        return None if change is None else ((self._shown(shown), _said(change.instruction)), change)

    def _shown(self, shown: Scene) -> Image:
        return Image(pixels=render(shown, self._canvas), role="user")


def _said(words: str) -> Text:
    return Text(words, role="user")


def noise_seeds(seed: int, number: int, samples: int) -> list[int]:
    """Return the seeds of the noise of the replies to a prompt."""
    drawn = np.random.Generator(np.random.Philox(key=np.array([seed, number], np.uint64)))
    return [int(one) for one in drawn.integers(2**63, size=samples)]
