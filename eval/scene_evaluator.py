"""Ask a model the requests of one part of the world of scenes, and judge what comes.

In: requests (`scene_requests.py`), how to sample, a seed. Out: predictions, and their summary: the
scores of each kind, and what they are split by.
"""

import re
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import Any, Self

import numpy as np

from unimodal.data.scenes.wording import COLOUR_WORDS, SHAPE_WORDS, plural
from unimodal.data.scenes.world import Scene, render
from unimodal.data.things.world import ThingScene
from unimodal.document import Document, Image, Text
from unimodal.sampling import Sampling

from .answer import Answer
from .intervals import Estimate, share
from .run import Evaluator, Turn, Turns
from .scene_request import BLIND, SceneRequest
from .score import Prediction, apart, by_kind
from .verdicts import CENTRES, SIDES, is_near


class SceneEvaluator(Evaluator[SceneRequest]):
    """Asks the requests of one part, with images of `canvas` pixels a side."""

    def __init__(
        self, requests: Sequence[SceneRequest], sampling: Sampling, seed: int, canvas: int
    ) -> None:
        self.name = requests[0].part
        self.canvas = canvas
        self._requests, self._sampling, self._seed = requests, sampling, seed

    def requests(self) -> Sequence[SceneRequest]:
        """Return the requests of the part in order."""
        return self._requests

    def blind(self) -> Self:
        """Return the evaluator that asks the same with the same noise, and shows no images."""
        other = copy(self)
        other.name, other._requests = BLIND, [request.blind() for request in self._requests]
        return other

    def picture(self, shown: Scene | ThingScene) -> np.ndarray:
        """Return the image of a scene, uint8 (canvas, canvas, 3)."""
        assert isinstance(shown, Scene), f"a {type(shown).__name__} belongs to another world"
        return render(shown, self.canvas)

    def turns(self, request: SceneRequest) -> Turns:
        """Show the image, say the prompt; the noise is that of seed * 2^20 + the number."""
        words = Text(request.prompt, role="user")
        noise = (self._seed * 2**20 + request.number) % 2**64
        shown = self.shown(request)
        images = () if shown is None else (Image(pixels=shown, role="user"),)
        document = Document((*images, words, *request.boxes))
        yield Turn(document, replace(self._sampling, seed=noise))

    def score(self, request: SceneRequest, answer: Answer) -> Prediction:
        """Return the verdict, with the codes of images: they can be judged again."""
        verdict = request.judge(answer)
        return {
            "part": request.part,
            "kind": request.kind.replace(" ", "_"),
            "prompt": request.prompt,
            "expected": request.expected,
            "answer": verdict.answer,  # words, or the scene read in an image; None: unreadable
            "right": not verdict.reason,
            "reason": verdict.reason,
            **verdict.measured,
            "held_out_words": request.held_out_words,  # phrased as training never phrased it
            "held_out_pair": request.held_out_pair,  # two (shape, colour) never shown together
            **replace(answer, earlier=()).kept(),
            **({} if request.unseen is None else {"unseen": request.unseen}),
        }

    def summary(self, predictions: Sequence[Prediction]) -> dict[str, Any]:
        """Return the kinds' scores; phrasings and pairs held out of training beside the others.

        Counts are split by what is counted and by how many there are, drawings have the share that
        was refused in words.
        """
        return {
            **by_kind(predictions),
            "by_words": apart(predictions, "held_out_words"),
            "by_pair": apart(predictions, "held_out_pair"),
            **_counts(predictions),
            **_offsets(predictions),
            **_unseen(predictions),
            **refused(self._requests, predictions),
        }

    def shown(self, request: SceneRequest) -> np.ndarray | None:
        """Return the image that comes before the prompt, uint8 (H, W, 3), if there is one."""
        if request.image is not None or request.shown is None:
            return request.image
        return self.picture(request.shown)


def _counts(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Return the scores of count questions by what names the counted and by their number."""
    counts = [p for p in predictions if p["part"] == "counts" or p["kind"] == "count"]
    if not counts:
        return {}
    kinds = by_kind([{**p, "kind": f"count_of_{counted(p['prompt'])}"} for p in counts])
    numbers = by_kind([{**p, "kind": f"count_is_{p['expected']}"} for p in counts])
    found = {**kinds, **(numbers if counts[0]["part"] != "counts" else {})}
    return {name: score for name, score in found.items() if name != "overall"}


def counted(prompt: str) -> str:
    """Return what names the objects that a question counts: all, colour, shape, colour_shape."""
    words = set(re.findall(r"[a-z-]+", prompt.lower()))
    named = [
        name
        for name, table in (("colour", COLOUR_WORDS), ("shape", SHAPE_WORDS))
        if any({w, plural(w)} & words for synonyms in table.values() for w in synonyms)
    ]
    return "_".join(named) or "all"


def _offsets(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Return the share of boxes in which what was asked for stands, by its centre and all sides."""
    measured = {"boxes_by_centre": CENTRES, "boxes_by_sides": SIDES}
    found = {
        name: [is_near(one) for p in predictions for one in p.get(key, ())]
        for name, key in measured.items()
    }
    return {name: share(each) for name, each in found.items() if each}


def _unseen(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Return the scores of requests in free words by what of them is held out of training."""
    sides = by_kind([{**p, "kind": f"unseen_{p['unseen']}"} for p in predictions if "unseen" in p])
    return {name: score for name, score in sides.items() if name != "overall"}


def refused(
    requests: Sequence[SceneRequest], predictions: Sequence[Prediction]
) -> dict[str, Estimate]:
    """Return the share of requests for an image that were answered by words alone."""
    drawings = [
        prediction["reason"].startswith("no images")
        for request, prediction in zip(requests, predictions, strict=True)
        if request.ideal is not None
    ]
    return {"words_instead": share(drawings)} if drawings else {}
