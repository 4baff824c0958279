"""The exams before and after a lesson: the user's images, and a short one of the world of scenes.

In: a model, the album and the lesson. Out: scores; every answer is kept in `exams/` as it comes, so
that an exam which was stopped goes on. Both models are asked the same with the same noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from unimodal.eval.captioned import Captioned, CaptionedEvaluator
from unimodal.eval.options import EVAL_SEED
from unimodal.eval.predictions import PredictionsFile
from unimodal.eval.results.stored import Result
from unimodal.eval.run import run
from unimodal.eval.scenes import WORLD_PARTS, evaluate
from unimodal.eval.score import Prediction
from unimodal.model import Model

from .lesson import Lesson

BATCH = 32


@dataclass(frozen=True, eq=False)
class Marks:
    """What a model was worth in the exams."""

    scores: dict[str, Any]
    """Of the user's images: of those taught, and those held out."""
    predictions: Sequence[Prediction]
    scenes: dict[str, Any]
    """Of the world of scenes, part by part; empty where it was not asked."""
    recipe: dict[str, Any]
    """What the scores of images depend on."""
    answered: Result | None
    """Every answer of the exam of scenes; None where it was not asked."""


def examine(model: Model, images: Sequence[Captioned], lesson: Lesson, when: str) -> Marks:
    """Return the marks of a model; `when`, before or after, names its files."""
    lesson.exams.mkdir(parents=True, exist_ok=True)
    evaluator = CaptionedEvaluator(images, model.sampling, EVAL_SEED)
    recipe = {
        "evaluation": "captioned images",
        "model": model.hash,
        "prompts": evaluator.digest(),
        "seed": EVAL_SEED,
        "guidance": model.sampling.guidance,
        "image_temperature": model.sampling.image_temperature,
    }
    with PredictionsFile(lesson.exams / f"images_{when}.jsonl", recipe) as kept:
        predictions = run(model, evaluator, kept, BATCH)
    scores = evaluator.summary(predictions)
    if not lesson.exam:
        return Marks(scores, predictions, {}, recipe, None)
    file = lesson.exams / f"scenes_{when}.jsonl"
    report, _ = evaluate(model, lesson.exam, EVAL_SEED, batch=BATCH, file=file)
    answered = Result(file, report["scores"], report["recipe"], report["predictions"])
    scenes = {part: answered.scores[part] for part in WORLD_PARTS if part in answered.scores}
    return Marks(scores, predictions, scenes, recipe, answered)
