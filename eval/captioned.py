"""How a model draws captioned images by their captions, and names them when they are shown.

In: a model, and images of its canvas with their captions. Out: predictions and scores.

1. Each image is asked for by its first caption ("draw a red bus"), and shown with "what is this?".
   The model alone chooses between words and an image; a request has the same noise for all models.
2. A name is right when it is one of the captions: case, stops and a leading article do not matter.
3. A drawing is compared with every image as the image tokenizer shows it, by PSNR: it is right when
   none is nearer than one with its caption. That takes no other model, and says no more than it is:
   a drawing may be nearest to its own image and still be poor, which its PSNR tells.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from unimodal.data.asking import plain_request
from unimodal.data.scenes.questions import bare
from unimodal.document import Document, Image, Text
from unimodal.sampling import Sampling

from .answer import Answer
from .intervals import Estimate, mean, share
from .reconstruction import psnr
from .run import Evaluator, Turn, Turns
from .score import Prediction, digest
from .verdicts import num_images

DRAWING, NAMING = "drawing", "naming"
QUESTION = "what is this?"


@dataclass(frozen=True, eq=False)
class Captioned:
    """An image with what is said of it."""

    name: str
    """Its file."""
    captions: tuple[str, ...]
    """Each is one way to say it; the first is asked for."""
    original: np.ndarray
    """uint8 (H, W, 3), of any size."""
    pixels: np.ndarray
    """The same on the model's canvas."""
    seen: np.ndarray
    """What the image tokenizer makes of these."""
    is_held_out: bool = False

    @property
    def psnr_db(self) -> float:
        """Return how well the image tokenizer shows it."""
        return psnr(self.pixels, self.seen)


@dataclass(frozen=True)
class CaptionedRequest:
    """One image asked for, or shown."""

    kind: str
    number: int
    """Of the image."""

    @property
    def id(self) -> str:
        """Return kind and number."""
        return f"{self.kind}/{self.number:06d}"


class CaptionedEvaluator(Evaluator[CaptionedRequest]):
    """Asks for all images by their captions, and what each of them shows."""

    name = "captioned images"

    def __init__(self, images: Sequence[Captioned], sampling: Sampling, seed: int) -> None:
        self.images, self._sampling, self._seed = images, sampling, seed

    def requests(self) -> Sequence[CaptionedRequest]:
        """Return the requests to draw, then those to name."""
        numbers = range(len(self.images))
        return [CaptionedRequest(kind, n) for kind in (DRAWING, NAMING) for n in numbers]

    def digest(self) -> str:
        """Return the SHA-256 of what is asked and shown."""
        images = [(one.captions, one.pixels.tobytes().hex()) for one in self.images]
        return digest(images)

    def prompt(self, request: CaptionedRequest) -> str:
        """Return what the user says."""
        if request.kind == NAMING:
            return QUESTION
        return plain_request(self.images[request.number].captions[0])

    def turns(self, request: CaptionedRequest) -> Turns:
        """Show the image if it is to be named, say the prompt."""
        shown = Image(self.images[request.number].pixels, role="user")
        words = Text(self.prompt(request), role="user")
        parts = (shown, words) if request.kind == NAMING else (words,)
        noise = (self._seed * 2**20 + request.number) % 2**64
        yield Turn(Document(parts), replace(self._sampling, seed=noise))

    def score(self, request: CaptionedRequest, answer: Answer) -> Prediction:
        """Return the verdict; of a drawing its codes, and its PSNR to its own image and others."""
        image = self.images[request.number]
        judged = self._drawn if request.kind == DRAWING else self._named
        return {
            "kind": request.kind,
            "name": image.name,
            "held_out": image.is_held_out,
            "prompt": self.prompt(request),
            "expected": image.captions[0],
            "answer": answer.text,
            "codes": [list(codes) for codes in answer.codes],
            **judged(request.number, answer),
        }

    def _named(self, number: int, answer: Answer) -> Prediction:
        right = bare(answer.text) in map(bare, self.images[number].captions)
        if answer.images or not right:
            said = num_images(answer) if answer.images else repr(answer.text)
            return {"right": False, "reason": f"{said} instead of words that name it"}
        return {"right": True, "reason": ""}

    def _drawn(self, number: int, answer: Answer) -> Prediction:
        if len(answer.images) != 1:
            reason = num_images(answer) + (f", {answer.text!r}" if answer.text else "")
            return {"right": False, "reason": reason, "own_db": None, "others_db": None}
        near = [psnr(one.seen, answer.images[0]) for one in self.images]
        alike = [self._share_caption(number, other) for other in range(len(near))]
        others = [db for db, same in zip(near, alike, strict=True) if not same]
        best = max(db for db, same in zip(near, alike, strict=True) if same)
        right = best >= max(others, default=-np.inf)
        nearest = self.images[int(np.argmax(near))].name
        return {
            "right": right,
            "reason": "" if right else f"nearer to {nearest}",
            "own_db": near[number],
            "others_db": float(np.mean(others)) if others else None,
        }

    def _share_caption(self, number: int, other: int) -> bool:
        mine, theirs = (set(map(bare, self.images[n].captions)) for n in (number, other))
        return number == other or bool(mine & theirs)

    def summary(self, predictions: Sequence[Prediction]) -> dict[str, Any]:
        """Return the scores of images that were taught, and of those held out, if there are any."""
        sides = {"taught": False, "held_out": True}
        found = {
            side: [p for p in predictions if p["held_out"] is held_out]
            for side, held_out in sides.items()
        }
        return {side: _scores(some) for side, some in found.items() if some}


def _scores(predictions: Sequence[Prediction]) -> dict[str, Estimate]:
    drawings = [p for p in predictions if p["kind"] == DRAWING]
    own = [p["own_db"] for p in drawings if p["own_db"] is not None]
    others = [p["others_db"] for p in drawings if p.get("others_db") is not None]
    return {
        "named": share([p["right"] for p in predictions if p["kind"] == NAMING]),
        "drawn_nearest_to_own": share([p["right"] for p in drawings]),
        "psnr_to_own_db": mean(own),
        "psnr_to_others_db": mean(others),
    }
