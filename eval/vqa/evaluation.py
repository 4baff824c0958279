"""A model's scores on a benchmark, beside what they are measured against.

In: a model (ours, or an `Answerer` of other people's), a task and a source. Out: scores, recipe
and every prediction, judged.

1. The task reads the files, and every image is opened once: what is broken stops the run here.
2. `asking.VqaEvaluator` asks everything in three passes, resumable and divided among ranks.
3. `report` judges all predictions anew from what they hold, and sums up: the task's scores; the
   same scores of the best constant answer of each category, of the blind pass and of the one with
   wrong images; and what the image is worth, item by item.

Answers that are there already (`AnswersFile`) cannot be asked for again without images: they have
the first pass alone.

`scored_again` makes the same report of kept predictions, and `scored_answers` one of answers that
another program wrote.
"""

from collections import Counter
from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

from unimodal.data.sizes import ImageRule, of_canvas
from unimodal.families.fits import Fit
from unimodal.model import Model
from unimodal.sampling import Sampling

from ..answerers.answerer import Answerer
from ..answerers.answers_file import AnswersFile
from ..intervals import Estimate
from ..overlap import Probe, overlap, with_overlap
from ..predictions import PredictionsFile
from ..run import run
from ..score import Prediction, digest, recipe
from .asking import BLIND, PASSES, SEEN, SHUFFLED, VqaEvaluator, greedy, sample
from .clusters import mean_of_clusters, scaled
from .item import Item
from .pictures import Pictures, name_of
from .source import Row, Source, read_lines
from .task import Task, check_items, mean
from .tasks import task_of

EVALUATION = "vqa"
MAJORITY = "majority"
WIDEST = 4.0  # of images, unless --max-aspect-ratio says another


def evaluate(
    model: Model | Answerer,
    task: Task,
    source: Source,
    seed: int,
    samples: int | None = None,
    template: str | None = None,
    target_pixels: int | None = None,
    max_aspect_ratio: float | None = None,
    batch: int = 32,
    file: Path | None = None,
    rank: int = 0,
    world_size: int = 1,
    training: Sequence[str] = (),
) -> dict[str, Any] | None:
    """Return the report (scores, recipe, predictions); None from a rank of several, which has only
    kept its predictions in its file.

    samples: about how many items, whole groups, chosen by the seed; None: all. file: where
    predictions are kept as they come, and taken from when it is there. target_pixels,
    max_aspect_ratio: to which images are resized; None: a model's own pixels and 4, and for other
    people's models, which have processors, images as they are. training: shards in which the
    questions and images are looked for. ValueError for files that cannot be used, before the model
    is asked anything.
    """
    if world_size > 1 and file is None:
        raise ValueError(f"{world_size} ranks keep their predictions in files: give --predictions")
    task.check()
    items = task.items(source)
    check_items(items)
    asked = sample(items, samples, seed)
    rule = _rule(model, target_pixels, max_aspect_ratio)
    pictures = Pictures(source.images, rule)
    template = task.template if template is None else template
    sampling, passes = _asking(model, items)
    sampling = greedy(sampling, task.max_tokens, seed)
    evaluator = VqaEvaluator(task, asked, pictures, template, seed, sampling, passes)
    settings = {
        **_settings(task, items, asked, pictures.check(asked), seed),
        **_identity(model),
        "template": template,
        "requests": sum(1 for _ in evaluator.requests()),
        "max_text_tokens": task.max_tokens,
        "text_temperature": 0.0,
        **_sizes(rule),
    }
    found_again = overlap_of(asked, pictures, training) if training else None
    with _kept_in(file, settings) as kept:
        found = run(model, evaluator, kept, batch, rank, world_size)
    if world_size > 1:
        return None
    return with_overlap(report(task, found, settings | {"batch_size": batch}), found_again)


def overlap_of(
    items: Sequence[Item], pictures: Pictures, training: Sequence[str]
) -> dict[str, Any]:
    """Return how much of questions and their images is in training shards."""
    probes = [Probe(one.id, one.question, tuple(map(name_of, one.images))) for one in items]
    images = {name_of(image): image for one in items for image in one.images}
    contents = ((name, pictures.content(image)) for name, image in images.items())
    return overlap(probes, contents, training)


def report(
    task: Task, predictions: Sequence[Prediction], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return scores, recipe and predictions with their verdicts."""
    passes = {
        name: task.judged([p for p in predictions if p["pass"] == name], settings["seed"])
        for name in PASSES
    }
    seen = passes[SEEN]
    scores = {**task.scores(seen), "unparsed": mean(seen, "unparsed")}
    baselines = {MAJORITY: task.judged(constants(task, seen), settings["seed"]), **passes}
    for name in (MAJORITY, BLIND, SHUFFLED):
        if baselines[name]:
            scores[name] = task.scores(baselines[name])
            others = task.whole(baselines[name])
            scores[f"gain_over_{name}"] = gain(task.whole(seen), others, task.most)
    judged = [one for name in PASSES for one in passes[name]]
    return {"scores": {task.name: scores}, "recipe": recipe(**settings), "predictions": judged}


def constants(task: Task, predictions: Sequence[Prediction]) -> list[Prediction]:
    """Return predictions of the answer that, in hindsight, is the right one most often in each
    category.
    """
    answers: dict[str, Counter[str]] = {}
    for one in predictions:
        answers.setdefault(one["kind"], Counter())[task.constant(one["expected"])] += 1
    best = {
        kind: min(counts, key=lambda one: (-counts[one], one)) for kind, counts in answers.items()
    }
    return [{**one, "pass": MAJORITY, "answer": best[one["kind"]]} for one in predictions]


def gain(seen: Sequence[Prediction], others: Sequence[Prediction], most: float) -> Estimate:
    """Return the mean difference of the worth (0 to `most`) of answers to the same items."""
    worth = {one["item"]: one["value"] for one in seen}
    differences = ((one["group"], worth[one["item"]] - one["value"]) for one in others)
    # As a share of 0 to 1, so that equal answers everywhere shrink the interval to no point.
    shares = ((group, (1 + difference / most) / 2) for group, difference in differences)
    found = scaled(mean_of_clusters(shares), 2 * most)
    value, low, high = (
        None if one is None else one - most for one in (found.value, found.low, found.high)
    )
    return Estimate(value, low, high, found.n)


def scored_again(files: Sequence[Path]) -> dict[str, Any]:
    """Return the report of predictions in files that ranks or a single run kept; ValueError where
    they are of different runs, or some are missing.
    """
    settings, predictions = read_predictions(files)
    task = task_of(settings["task"])
    missing = settings["requests"] - len(predictions)
    if missing:
        names = ", ".join(map(str, files))
        if missing < 0:
            raise ValueError(f"{names}: {len(predictions)} of {settings['requests']} predictions")
        raise ValueError(
            f"{names}: {len(predictions)} of {settings['requests']} predictions are there; run "
            "the same `unimodal eval vqa` again, which goes on from them, and give all ranks' files"
        )
    found = [predictions[id] for id in sorted(predictions)]
    seen = [p for p in found if p["pass"] == SEEN]
    questions = {p["item"]: _question(p) for p in seen}
    is_same = all(_question(p) == questions.get(p["item"]) for p in found)
    if not is_same or digest_of(seen) != settings["questions"]:
        raise ValueError(f"{files[0]}: the questions are not those of its first line")
    try:
        return report(task, found, settings)
    except (AttributeError, KeyError, TypeError) as error:  # `expected` is what a task makes of it
        raise ValueError(f"{files[0]}: the questions are not of {task.name}: {error!r}") from error


def scored_answers(task: Task, source: Source, file: Path, seed: int) -> dict[str, Any]:
    """Return the report of answers that another program wrote: objects of `question_id` and
    `answer` (or `prediction`), a line each or in a list; ValueError where an id is unknown, twice
    there or missing. Baselines but the best constant answer need the model.
    """
    task.check()
    items = task.items(source)
    check_items(items)
    answers = AnswersFile(file)
    answers.check([item.id for item in items])
    predictions = [
        {
            "item": item.id, "pass": SEEN, "kind": item.kind, "group": item.group,
            "prompt": item.question, "expected": item.expected, "answer": answers.of(item.id),
        }
        for item in items
    ]  # fmt: skip
    settings = {**_settings(task, items, items, None, seed), **answers.settings()}
    return report(task, predictions, settings)


def read_predictions(files: Sequence[Path]) -> tuple[dict[str, Any], dict[str, Prediction]]:
    """Return the recipe and the predictions by id of files of one run; ValueError for others."""
    settings: dict[str, Any] | None = None
    found: dict[str, Prediction] = {}
    for file in files:
        rows = read_lines(file)
        there = rows[0].fields.get("recipe") if rows else None
        if not isinstance(there, dict) or there.get("evaluation") != EVALUATION:
            raise ValueError(f"{file} holds no predictions of `unimodal eval vqa`")
        for name, wanted in RECIPE.items():
            if type(there.get(name)) is not wanted:
                raise ValueError(f"{file}: {name} of its recipe is {there.get(name)!r:.80}")
        if settings not in (None, there):
            raise ValueError(f"{file} and {files[0]} hold predictions of different runs")
        settings = there
        for line in rows[1:]:
            id = line.text("id")
            if id in found:
                raise ValueError(f"{line.place}: {id} is there twice")
            found[id] = _predicted(line, id)
    assert settings is not None, "at least one file is given"
    return settings, found


RECIPE = {"task": str, "seed": int, "requests": int, "questions": str}
PREDICTED = {
    "item": str, "pass": str, "kind": str, "group": str, "prompt": str, "expected": dict,
    "answer": str,
}  # fmt: skip


def _predicted(line: Row, id: str) -> Prediction:
    """Return what a line predicts; ValueError where its id or a value is no such thing."""
    for name, wanted in PREDICTED.items():
        if not isinstance(line.get(name), wanted):
            raise ValueError(f"{line.place}: {name} is {line.get(name)!r:.80}")
    if id != f"{line.get('pass')}/{line.get('item')}":
        raise ValueError(f"{line.place}: the id {id} is not of {line.get('item')}")
    return {name: line.get(name) for name in PREDICTED}


def digest_of(predictions: Sequence[Prediction]) -> str:
    """Return the SHA-256 of what was asked, whatever the order."""
    return digest(sorted(map(_question, predictions), key=lambda one: one[0]))


def _question(prediction: Prediction) -> list[Any]:
    return [prediction[name] for name in ("item", "kind", "group", "expected")]


def _settings(
    task: Task, items: Sequence[Item], asked: Sequence[Item], hashes: Mapping[str, str] | None,
    seed: int,
) -> dict[str, Any]:  # fmt: skip
    questions = [
        {"item": one.id, "kind": one.kind, "group": one.group, "expected": one.expected}
        for one in asked
    ]
    images = None if hashes is None else digest(
        [[one.id, *(hashes[name_of(image)] for image in one.images)] for one in asked]
    )  # fmt: skip
    return {
        "evaluation": EVALUATION, "task": task.name, "rules": task.rules,
        "questions": digest_of(questions),
        "prompts": digest([one.id, one.question] for one in asked),
        "images": images, "items": len(asked), "of_items": len(items), "left_out": task.left_out,
        "seed": seed,
        **({} if task.package is None else {"scorer": f"{task.package} {version(task.package)}"}),
    }  # fmt: skip


def _kept_in(
    file: Path | None, settings: Mapping[str, Any]
) -> AbstractContextManager[MutableMapping[str, Prediction]]:
    """Return where predictions are kept; the recipe has no batch size: no answer depends on it."""
    return nullcontext({}) if file is None else PredictionsFile(file, settings)


def _rule(
    model: Model | Answerer, target_pixels: int | None, max_aspect_ratio: float | None
) -> ImageRule | Fit | None:
    """Return how images are resized before a model sees them; None: not at all."""
    if isinstance(model, Model) and model.fit is not None:
        if (target_pixels, max_aspect_ratio) != (None, None):
            raise ValueError("this model fits images by its authors' rule: ask for no size")
        return model.fit
    if isinstance(model, Answerer):
        if model.is_recorded and (target_pixels or max_aspect_ratio):
            raise ValueError("answers that are there already were given to images of some size")
        if target_pixels is None and max_aspect_ratio is not None:
            raise ValueError(f"max_aspect_ratio {max_aspect_ratio:g} needs target_pixels")
        if target_pixels is None:
            return None
        rule = ImageRule(target_pixels, 1, max_aspect_ratio or WIDEST)
    else:
        patch = model.image_tokenizer.geometry.patch
        rule = of_canvas(model.canvas, patch, target_pixels, max_aspect_ratio or WIDEST)
    if problems := rule.problems():
        raise ValueError("; ".join(problems))
    return rule


def _sizes(rule: ImageRule | Fit | None) -> dict[str, Any]:
    """Return what the recipe says of how images are resized."""
    if rule is None or isinstance(rule, ImageRule):
        target, widest = (rule.target_pixels, rule.max_aspect_ratio) if rule else (None, None)
        return {"target_pixels": target, "max_aspect_ratio": widest}
    return {"fit": str(rule)}


def _asking(model: Model | Answerer, items: Sequence[Item]) -> tuple[Sampling, tuple[str, ...]]:
    """Return how a model replies and in which passes it is asked; ValueError where it cannot be."""
    if not isinstance(model, Answerer):
        return model.sampling, PASSES
    model.check([item.id for item in items])
    return Sampling(), (SEEN,) if model.is_recorded else PASSES


def _identity(model: Model | Answerer) -> dict[str, Any]:
    """Return who answers, where and how precisely."""
    if isinstance(model, Answerer):
        return model.settings()
    parameter = next(model.transformer.parameters())
    return {
        "model": model.hash,
        "tokenizer": model.sequencer.codec_hash,
        "device": parameter.device.type,
        "precision": str(parameter.dtype).removeprefix("torch."),
    }
