"""The last layer: detections -> GenEval's numbers, each with what it depends on.

In: `Detections`. Out: a report: scores, recipe, a prediction for each image.

1. Each image gets its verdict (rules.py).
2. A task's score is the share of its images that are right; the overall score is the mean of the
   tasks, whatever their numbers of prompts (`summary_scores.py` of djghosh13/geneval at af4902f).
   Intervals are clustered: images of one prompt are right or wrong together.
3. With several images a prompt, the share of prompts of which any image is right is a number of
   its own, best of n.

A number's name says whose detections it rests on and whether the prompts were rewritten: GenEval's
published numbers are those of its own Mask2Former and of raw prompts, and no other is one of them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ..intervals import clustered_share, mean_of, share
from ..score import Prediction, recipe
from .detector import Detections
from .prompts import Prompt, prompts_hash
from .rules import SCORER, Rules, judge

UNKNOWN = "unknown"  # how images were drawn that somebody else drew
DRAWING = (
    "model", "tokenizer", "seed", "guidance", "image_temperature", "image_top_k", "image_top_p",
    "steps", "resolution", "precision",
)  # fmt: skip
HIDDEN = (
    "classes",
    "num_prompts",
    "max_images",
    "max_text_tokens",
    "text_temperature",
    "rewriter",
    "rewritten",
)
READERS = ("scenes", "things")  # detectors that read an image as a whole, or not at all


def report_of(found: Detections, rules: Rules | None = None) -> dict[str, Any]:
    """Return scores, recipe and predictions.

    ValueError for thresholds that make no sense, and where a colour is needed that was not
    recorded.
    """
    rules = rules or Rules()
    if rules.problems():
        raise ValueError("; ".join(rules.problems()))
    predictions = [_prediction(id, found, rules) for id in found.images]
    settings = _settings(found, rules)
    name = name_of(found.recipe)
    return {
        "scores": _scores(name, predictions, found.recipe),
        "predictions": predictions,
        "recipe": recipe(**settings),
    }


def name_of(drawn: Mapping[str, Any]) -> str:
    """Return the name of the numbers: whose detections they rest on, and of which prompts."""
    rewritten = f"_prompts_by_{drawn['rewriter']}" if drawn.get("rewriter") else ""
    return f"geneval_by_{drawn['detector']}{rewritten}"


def _prediction(id: str, found: Detections, rules: Rules) -> Prediction:
    prompt, boxes = found.images[id]
    try:
        verdict = judge(prompt, boxes, rules)
    except ValueError as error:
        raise ValueError(f"{id}: {error}; detect again with these thresholds") from error
    asked = prompt.json()
    return {
        "id": id,
        "kind": prompt.tag,
        "prompt": prompt.text,
        "expected": {name: asked[name] for name in ("include", "exclude") if name in asked},
        "answer": verdict.kept,
        "right": verdict.right,
        "reason": verdict.reason,
        "note": boxes.note,
    }


def _scores(
    name: str, predictions: Sequence[Prediction], drawn: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the score of each task and their mean; of the best of n beside them, and the share of
    images that a reader could not read.
    """
    samples = drawn["samples_per_prompt"]
    tags: dict[str, dict[str, list[bool]]] = {}
    for one in predictions:
        number = one["id"].partition("/")[0]
        tags.setdefault(one["kind"], {}).setdefault(number, []).append(one["right"])
    of_images = {tag: clustered_share(list(prompts.values())) for tag, prompts in tags.items()}
    found = {name: {"overall": mean_of(list(of_images.values())), **of_images}}
    if samples > 1:
        best = {tag: share([any(p) for p in prompts.values()]) for tag, prompts in tags.items()}
        found[f"{name}_best_of_{samples}"] = {"overall": mean_of(list(best.values())), **best}
    if drawn["detector"] in READERS or any(one["note"] for one in predictions):
        found["detector"] = {"unreadable": share([bool(one["note"]) for one in predictions])}
    return found


def _settings(found: Detections, rules: Rules) -> dict[str, Any]:
    """Return the recipe: all that was recorded, `unknown` where nobody recorded it."""
    drawn, samples = found.recipe, found.recipe["samples_per_prompt"]
    known = {name: value for name, value in drawn.items() if name not in (*HIDDEN, *DRAWING)}
    return {
        "evaluation": "geneval",
        **{name: drawn.get(name, UNKNOWN) for name in DRAWING},
        **known,
        "prompts": prompts_hash(_prompts(found)),
        "rewriter": drawn.get("rewriter") or "raw prompts",
        "best_of": "1" if samples == 1 else f"1 and {samples}",
        "scorer": SCORER,
        **rules.json(),
    }


def _prompts(found: Detections) -> list[Prompt]:
    """Return the prompts in order, each once."""
    return [prompt for id, (prompt, _) in found.images.items() if id.endswith("/0000")]
