"""A model's scores in the world of scenes: drawing, questions, captions and edits.

In: a model, a seed that training never used, and how many samples each kind of request gets. Out:
scores, recipe, every prediction, and cells for a contact sheet.

1. `scene_requests.py` makes the requests of a part.
2. A `SceneEvaluator` asks them as the chat would, each with its own noise, and takes what comes:
   one sample, the model alone choosing between words and an image.
3. Each request judges its answer (`verdicts.py`): images by `read_scene` alone, words by parsing.
4. `evaluate` adds what the numbers are measured against: the same questions without the image,
   the best constant answer, perfect images through the tokenizer, the tokenizer's ceiling on
   whole scenes and the reader's own error, on damaged renders too.

A part's `overall` is the unweighted mean of its kinds. A drawing or an edit costs one image:
about 64 steps of the model, `batch` requests at a time.
"""

from collections import Counter
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from unimodal.data.scenes.requests import TASKS
from unimodal.data.scenes.world import CANVASES, World, render, world_of
from unimodal.model import Model
from unimodal.sampling import Sampling
from unimodal.sequencer import NO_BOXES

from .answer import Answer, kept_image
from .candidates import candidate_scores, chosen, parts_that_draw
from .chain_exam import CHAINS, ChainEvaluator, make_chains
from .intervals import gain, ratio
from .overlap import with_overlap
from .predictions import PredictionsFile
from .report import Cell
from .round_trip import round_trip
from .run import Evaluator, run
from .scene_evaluator import SceneEvaluator
from .scene_overlap import exam_overlap
from .scene_request import BLIND, SceneRequest
from .scene_requests import LAYOUT, WORLD_PARTS, make_requests
from .score import Prediction, by_kind, digest, recipe
from .tokenizer import reader_errors, refuse_training_seed, tokenizer_ceiling

DRAWN = ("drawing", "edits", LAYOUT)  # parts with a tokenizer's ceiling
NUM_SHOWN = {"drawing": 4, "captions": 5, "edits": 2, "free": 2, CHAINS: 4}  # of each kind, or 1


def evaluate(
    model: Model,
    samples: int,
    seed: int,
    sampling: Sampling | None = None,
    batch: int = 32,
    parts: Sequence[str] = WORLD_PARTS,
    file: Path | None = None,
    max_objects: int | None = None,
    candidates: int = 1,
    training: Sequence[str] = (),
) -> tuple[dict[str, Any], list[Cell]]:
    """Return the report (scores, recipe, predictions) and the cells of the contact sheet.

    samples: of each task or kind; sampling: None takes the model's own, its seed is ignored; file:
    where predictions are kept as they come, and taken from when it is there; max_objects: the most
    objects in a scene, at least 2; None: as many as the canvas has room for; candidates: above 1,
    drawings are also scored as the best of so many (see candidates.py); training: shards in which
    requests and images are looked for first.

    Raises ValueError when the model's images are not square or not of 64 to 512 pixels, when it was
    trained on this seed, for the part layout of a model without boxes, when the file holds
    something else, and for candidates of parts in which nothing is drawn that can be judged.
    """
    if LAYOUT in parts and not model.takes_boxes:
        raise ValueError(f"{LAYOUT}: {NO_BOXES}")
    canvas, sampling = canvas_of(model), sampling or model.sampling
    refuse_training_seed(model.card, seed)
    world = world_of(canvas, max_objects)
    evaluators = _evaluators(parts, samples, seed, sampling, canvas, world)
    settings = _settings(model, samples, seed, sampling, batch, evaluators)
    if max_objects is not None:
        settings["max_objects"] = max_objects
    several = _several(evaluators, candidates)
    found_again = exam_overlap(evaluators, training)
    with kept_in(file, settings) as kept:
        found = {name: run(model, one, kept, batch) for name, one in evaluators.items()}
        best = {
            name: chosen(model, one, found[name], candidates, kept, batch)
            for name, one in several.items()
        }
    settings |= {"candidates": candidates} if best else {}
    found |= {name: [one.prediction() for one in some] for name, some in best.items()}
    codec = model.image_tokenizer
    ceiling = tokenizer_ceiling(codec, samples * len(TASKS), seed, canvas, batch, world)
    scores = _scores(model, evaluators, found, ceiling, batch)
    for name, some in best.items():
        scores[name] |= candidate_scores(some, candidates)
    scores["reader_error"] = reader_errors(samples, seed, canvas)
    report = {
        "scores": scores,
        "predictions": [prediction for part in found.values() for prediction in part],
        "recipe": recipe(**settings),
    }
    picture = partial(render, canvas=canvas)
    cells = [
        cells_of(model, one, found[name], picture)
        for name, one in evaluators.items()
        if name != BLIND
    ]
    return with_overlap(report, found_again), [cell for of_part in cells for cell in of_part]


def _evaluators(
    parts: Sequence[str], samples: int, seed: int, sampling: Sampling, canvas: int, world: World
) -> dict[str, Evaluator[Any]]:
    """Return the evaluator of each part in order; questions are followed by blind ones."""
    found: dict[str, Evaluator[Any]] = {}
    for part in parts:
        if part == CHAINS:
            chains = make_chains(samples, seed, world)
            found[part] = ChainEvaluator(chains, sampling, seed, canvas)
            continue
        requests = make_requests(part, samples, seed, world)
        one = SceneEvaluator(requests, sampling, seed, canvas)
        found[part] = one
        if part == "questions":
            found[BLIND] = one.blind()
    return found


def _several(
    evaluators: dict[str, Evaluator[Any]], candidates: int
) -> dict[str, Evaluator[SceneRequest]]:
    """Return the parts in which requests get several candidates; ValueError where there are
    none.
    """
    if candidates == 1:
        return {}
    found = dict(parts_that_draw(evaluators))
    if not found:
        raise ValueError(
            f"{candidates} candidates: {', '.join(evaluators)} have no candidates; name the task"
            " drawing, edits or free"
        )
    return found


def _scores(
    model: Model,
    evaluators: Mapping[str, Evaluator[Any]],
    found: Mapping[str, Sequence[Prediction]],
    ceiling: dict[str, Any],
    batch: int,
) -> dict[str, Any]:
    """Return the scores of each part beside what they are measured against."""
    scores: dict[str, Any] = {}
    for name, evaluator in evaluators.items():
        if name == BLIND:
            scores["questions"] |= baselines(found["questions"], found[BLIND])
            continue
        scores[name] = evaluator.summary(found[name])
        if isinstance(evaluator, SceneEvaluator) and name in DRAWN:
            scores[name] |= _ceilings(model, evaluator, found[name], ceiling, batch)
    return scores | {"tokenizer": ceiling["scores"]}


def baselines(seen: Sequence[Prediction], blind: Sequence[Prediction]) -> dict[str, Any]:
    """Return the scores of no image and of the best constant answer, and the gain over no image."""
    scores = by_kind(blind)
    return {
        "blind": scores,
        "majority": by_kind(majority(seen)),
        "gain_over_blind": gain(by_kind(seen)["overall"], scores["overall"]),
    }


def majority(predictions: Sequence[Prediction]) -> list[Prediction]:
    """Return predictions of the answer that, in hindsight, is right most often in each kind."""
    answers: dict[str, Counter[str]] = {}
    for p in predictions:
        answers.setdefault(p["kind"], Counter())[p["expected"]] += 1
    best = {kind: counts.most_common(1)[0][0] for kind, counts in answers.items()}
    return [
        {
            **p,
            "part": "majority",
            "answer": best[p["kind"]],
            "right": p["expected"] == best[p["kind"]],
        }
        for p in predictions
    ]


def _ceilings(
    model: Model,
    evaluator: SceneEvaluator,
    seen: Sequence[Prediction],
    ceiling: dict[str, Any],
    batch: int,
) -> dict[str, Any]:
    """Return the scores of perfect images after the tokenizer, and the score over its ceiling."""
    images = round_trip(model.image_tokenizer, perfect_images(evaluator), batch).images
    best = judged(evaluator, images)
    return {
        "perfect_images": by_kind(best),
        "over_ceiling": ratio(by_kind(seen)["overall"], ceiling["scores"]["right"]),
    }


def perfect_images(evaluator: SceneEvaluator) -> list[np.ndarray]:
    """Return an image for each request that grants it, uint8 (canvas, canvas, 3)."""
    return [
        evaluator.picture(request.ideal)
        for request in evaluator.requests()
        if request.ideal is not None
    ]


def judged(evaluator: SceneEvaluator, images: Sequence[np.ndarray]) -> list[Prediction]:
    """Return the verdicts where each of the requests is answered by an image."""
    return [
        evaluator.score(request, Answer("", (image,)))
        for request, image in zip(evaluator.requests(), images, strict=True)
    ]


def cells_of(
    model: Model,
    evaluator: Evaluator[Any],
    predictions: Sequence[Prediction],
    picture: Callable[[Any], np.ndarray],
) -> list[Cell]:
    """Return cells of the first requests of each kind, as they came."""
    shown: Counter[str] = Counter()
    cells = []
    for request, prediction in zip(evaluator.requests(), predictions, strict=True):
        if shown[request.kind] == NUM_SHOWN.get(request.part, 1):
            continue
        images = [] if request.shown is None else [picture(request.shown)]
        is_drawn = request.part == CHAINS or request.ideal is not None
        kept = prediction.get("latents") or prediction["codes"]
        images += [_drawn(model, content) for content in kept if is_drawn]
        if images:
            shown[request.kind] += 1
            cells.append(
                Cell(tuple(images), prediction["prompt"], _told(prediction), prediction["right"])
            )
    return cells


def _drawn(model: Model, content: Sequence[float]) -> np.ndarray:
    """Return the image uint8 (H, W, 3) of codes or latents that the model drew."""
    (decoded,) = model.codec.decode([kept_image(model, content)])
    assert decoded.pixels is not None
    return decoded.pixels


def _told(prediction: Prediction) -> str:
    """Return the words of an answer that has any worth reading, and why it is wrong."""
    said = isinstance(prediction["answer"], str)
    told = said and (prediction["part"] == "captions" or prediction["right"])
    words = [prediction["answer"]] if told else []
    return "; ".join(text for text in [*words, prediction["reason"]] if text)


def kept_in(
    file: Path | None, settings: dict[str, Any]
) -> AbstractContextManager[MutableMapping[str, Prediction]]:
    """Return where predictions are kept: in the file, where answers depend on no batch size."""
    if file is None:
        return nullcontext({})
    return PredictionsFile(
        file, {name: value for name, value in settings.items() if name != "batch_size"}
    )


def _settings(
    model: Model,
    samples: int,
    seed: int,
    sampling: Sampling,
    batch: int,
    evaluators: Mapping[str, Evaluator[Any]],
) -> dict[str, Any]:
    asked = [r for name, one in evaluators.items() if name != BLIND for r in one.requests()]
    of_world = [_asked_for(r) for r in asked if r.part in WORLD_PARTS]
    others = [_asked_for(r) for r in asked if r.part not in WORLD_PARTS]
    groups = {"prompts": of_world, "people_prompts": others}
    return {
        "evaluation": "scenes",
        "model": model.hash,
        "tokenizer": model.sequencer.codec_hash,
        **{name: digest(told) for name, told in groups.items() if told},
        **how_asked(model, samples, seed, sampling, batch),
    }


def _asked_for(request: Any) -> list[Any]:
    return [request.part, request.kind, request.prompt, request.expected]


def how_asked(
    model: Model, samples: int, seed: int, sampling: Sampling, batch: int
) -> dict[str, Any]:
    """Return the part of a recipe that says how many were asked, how, and on what."""
    parameter = next(model.transformer.parameters())
    return {
        "samples_per_kind": samples,
        "seed": seed,
        **{name: value for name, value in asdict(sampling).items() if name != "seed"},
        "batch_size": batch,
        "resolution": canvas_of(model),
        "device": parameter.device.type,
        "precision": str(parameter.dtype).removeprefix("torch."),
    }


def canvas_of(model: Model) -> int:
    """Return the side in pixels of what a model draws; ValueError where a scene is not so."""
    width, height = model.canvas
    if width != height or not CANVASES[0] <= width <= CANVASES[1]:
        raise ValueError(
            f"the model draws {width}x{height} pixels: scenes are square, "
            f"{CANVASES[0]} to {CANVASES[1]} pixels a side"
        )
    return width
