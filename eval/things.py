"""A model's scores in the world of things: icons drawn by name, and named when they are shown.

In: a model, a table of icons, a seed that training never used, and how many samples each kind gets.
Out: scores, recipe, every prediction, and cells for a contact sheet, as `scenes.py` has them.

1. `thing_requests.py` makes the requests of a part.
2. A `ThingEvaluator` asks them as a `SceneEvaluator` does; only its images are of another world.
3. Each request judges its answer (`thing_verdicts.py`): images by `read_things` alone.
4. `evaluate` adds what the numbers are measured against. Questions: the same without the image, and
   the best constant answer. Drawing: perfect images through the tokenizer, whole scenes read back
   from those, and the reader's own error on the fresh renders.

Scores of a part are of icons and pairs that training shows; those it holds out stand apart.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unimodal.data.scenes.reading import Unreadable
from unimodal.data.scenes.world import Scene
from unimodal.data.things.reading import read_things, same_things
from unimodal.data.things.table import Things
from unimodal.data.things.world import ThingScene, render
from unimodal.model import Model
from unimodal.sampling import Sampling

from .intervals import mean, ratio, share
from .overlap import with_overlap
from .reconstruction import psnr, ssim
from .report import Cell, progress
from .round_trip import RoundTrip, round_trip
from .run import run
from .scene_evaluator import SceneEvaluator, refused
from .scene_overlap import exam_overlap
from .scene_request import BLIND, SceneRequest
from .scenes import baselines, canvas_of, cells_of, how_asked, judged, kept_in, perfect_images
from .score import Prediction, apart, by_kind, digest, recipe
from .thing_requests import PARTS, make_thing_requests
from .thing_verdicts import from_json
from .tokenizer import refuse_training_seed


class ThingEvaluator(SceneEvaluator):
    """Asks the requests of one part, with images of `canvas` pixels a side."""

    def __init__(
        self,
        requests: Sequence[SceneRequest],
        sampling: Sampling,
        seed: int,
        canvas: int,
        things: Things,
    ) -> None:
        super().__init__(requests, sampling, seed, canvas)
        self.things = things

    def picture(self, shown: Scene | ThingScene) -> np.ndarray:
        """Return the image of a scene of things, uint8 (canvas, canvas, 3)."""
        assert isinstance(shown, ThingScene), f"a {type(shown).__name__} belongs to another world"
        return render(shown, self.things, self.canvas)

    def truths(self) -> list[ThingScene]:
        """Return the scenes that perfect images show, in order."""
        return [r.ideal for r in self.requests() if isinstance(r.ideal, ThingScene)]

    def summary(self, predictions: Sequence[Prediction]) -> dict[str, Any]:
        """Return the kinds' scores where nothing but phrasings is held out; hold-outs apart.

        Icons and pairs that are held out are compared in phrasings that training shows.
        """
        seen = [p for p in predictions if p["unseen"] == "nothing"]
        return {
            **by_kind(seen),
            "by_words": apart(seen, "held_out_words"),
            "by_icon": _beside(predictions, "icons"),
            "by_pair": _beside(predictions, "pairs"),
            **refused(self.requests(), predictions),
        }


def _beside(predictions: Sequence[Prediction], side: str) -> dict[str, Any]:
    """Return the scores of what is seen and of one side that is held out, in seen phrasings."""
    mine = [
        {**p, "held_out": p["unseen"] == side}
        for p in predictions
        if p["unseen"] in ("nothing", side) and not p["held_out_words"]
    ]
    return apart(mine, "held_out")


def evaluate(
    model: Model,
    things: Things,
    samples: int,
    seed: int,
    sampling: Sampling | None = None,
    batch: int = 32,
    parts: Sequence[str] = tuple(PARTS),
    file: Path | None = None,
    training: Sequence[str] = (),
) -> tuple[dict[str, Any], list[Cell]]:
    """Return the report (scores, recipe, predictions) and the cells of the contact sheet.

    samples: of each kind, where nothing is held out; sampling: None takes the model's own, its seed
    is ignored; file: where predictions are kept as they come, and taken from when it is there;
    training: shards in which requests and images are looked for first.

    Raises ValueError when the model's images are not square or not of 64 to 512 pixels, when it was
    trained on this seed, when no icon of the table is held out, and when the file holds something
    else.
    """
    canvas, sampling = canvas_of(model), sampling or model.sampling
    refuse_training_seed(model.card, seed)
    asked = {
        part: ThingEvaluator(
            make_thing_requests(part, samples, seed, things), sampling, seed, canvas, things
        )
        for part in parts
    }
    settings = {
        "evaluation": "things",
        "model": model.hash,
        "tokenizer": model.sequencer.codec_hash,
        "things": things.digest,
        "prompts": _digest(asked),
        **how_asked(model, samples, seed, sampling, batch),
    }
    asking = asked | ({BLIND: asked["questions"].blind()} if "questions" in asked else {})
    found_again = exam_overlap(asked, training)
    with kept_in(file, settings) as kept:
        found = {name: run(model, one, kept, batch) for name, one in asking.items()}
    report = {
        "scores": _scores(model, asked, found, batch),
        "predictions": [prediction for part in found.values() for prediction in part],
        "recipe": recipe(**settings),
    }
    cells = [cells_of(model, one, found[part], one.picture) for part, one in asked.items()]
    return with_overlap(report, found_again), [cell for of_part in cells for cell in of_part]


def _digest(asked: Mapping[str, ThingEvaluator]) -> str:
    """Return the hash of all prompts and of what is expected of them."""
    requests = [request for one in asked.values() for request in one.requests()]
    return digest([r.part, r.kind, r.prompt, r.expected] for r in requests)


def _scores(
    model: Model,
    asked: Mapping[str, ThingEvaluator],
    found: Mapping[str, Sequence[Prediction]],
    batch: int,
) -> dict[str, Any]:
    """Return the scores of each part beside what they are measured against."""
    scores: dict[str, Any] = {part: one.summary(found[part]) for part, one in asked.items()}
    if "questions" in scores:
        scores["questions"] |= baselines(_seen(found["questions"]), _seen(found[BLIND]))
    if "drawing" not in scores:
        return scores
    drawing = asked["drawing"]
    trip = round_trip(model.image_tokenizer, perfect_images(drawing), batch)
    best = judged(drawing, trip.images)
    perfect = drawing.summary(best)
    del perfect["words_instead"], perfect["by_words"]  # images depend on no words
    over = ratio(scores["drawing"]["overall"], perfect["overall"])
    scores["drawing"] |= {"over_perfect": over, "perfect_images": perfect}
    scores["tokenizer"] = _ceiling(drawing, trip, best)
    return scores | {"reader_error": _reader_errors(drawing, trip.originals)}


def _seen(predictions: Sequence[Prediction]) -> list[Prediction]:
    return [p for p in predictions if p["unseen"] == "nothing"]


def _ceiling(
    drawing: ThingEvaluator, trip: RoundTrip, best: Sequence[Prediction]
) -> dict[str, Any]:
    """Return how often a whole scene is read back from what the tokenizer makes of it."""
    pairs = list(zip(trip.originals, trip.images, strict=True))
    similar = [ssim(*pair) for pair in pairs]  # canvases of 64 and more: none is too small for it
    return {
        "right": share(
            [_is_read(p, truth) for p, truth in zip(best, drawing.truths(), strict=True)]
        ),
        "unreadable": share([p["answer"] is None for p in best]),
        "psnr_db": mean([psnr(*pair) for pair in pairs]),
        "ssim": mean([one for one in similar if one is not None]),
    }


def _is_read(prediction: Prediction, truth: ThingScene) -> bool:
    """Return whether what was read in an image is the true scene, centres within 2 pixels of 64."""
    return prediction["answer"] is not None and same_things(from_json(prediction["answer"]), truth)


def _reader_errors(drawing: ThingEvaluator, images: Sequence[np.ndarray]) -> dict[str, Any]:
    """Return how often `read_things` misreads fresh renders, and calls them unreadable."""
    read = [read_things(image, drawing.things) for image in progress(images, "reading")]
    unreadable = [isinstance(one, Unreadable) for one in read]
    wrong = [
        isinstance(one, ThingScene) and not same_things(one, truth)
        for one, truth in zip(read, drawing.truths(), strict=True)
    ]
    return {"unreadable": share(unreadable), "misread": share(wrong)}
