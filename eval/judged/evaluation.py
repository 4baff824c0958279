"""Questions about drawn images -> scores, every answer kept.

In: a benchmark, its files, images, a judge. Out: scores, recipe and a prediction for each question:

    {"id": "00000/0/0", "prompt": ..., "question": ..., "expected": "yes", "p": {"yes": 0.9, ...}}

1. Every image is opened once: what is missing or broken stops the run before the judge is asked.
2. The judge is asked about plain colours, and the recipe says how many it knows; then what no rank
   has answered. Each answer is kept as soon as it is known.
3. The benchmark makes scores of what predictions hold, today or later, without judge and images.

A number's name says the benchmark and the judge with its version. An answer that is missing or no
probability is an error, never a zero.
"""

import json
from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from unimodal.tokenizer.pixels import ImageError

from ..predictions import PredictionsFile, read_predictions
from ..report import progress
from ..round_trip import batches
from ..run import rank_of
from ..score import Prediction, digest, recipe
from .benchmark import Benchmark
from .benchmarks import benchmark_of
from .judge import Judge, Look, checked, known_colours, probability
from .question import SEVERAL, Question

EVALUATION = "judged"
RECIPE = {"task": str, "questions": str, "requests": int, "scorer": str, "each_token_once": bool}
ASKED = ("item", "cell", "number", "prompt", "question", "expected", "kind", "about", "answers")


def evaluate(
    judge: Judge,
    benchmark: Benchmark,
    questions: Sequence[Question],
    once: bool = False,
    batch: int = 8,
    file: Path | None = None,
    rank: int = 0,
    world_size: int = 1,
    drawing: Mapping[str, Any] | None = None,
) -> dict[str, Any] | None:
    """Return the report; None from a rank of several, which has only kept its answers in its file.

    once: count each token once where the benchmark does not. drawing: what the recipe says of how
    the images were drawn (geneval/folder.py:drawn_recipe). ValueError for images that cannot be
    used, before the judge is asked anything.
    """
    _check_distinct(questions)
    once = once or benchmark.once
    hashes = image_hashes(questions)
    settings = {
        "evaluation": EVALUATION, "task": benchmark.name, "rules": benchmark.rules,
        "questions": _digest([_asked(one) for one in questions]), "requests": len(questions),
        "drawn_images": digest([one.item, one.cell, hashes[one.picture.name]] for one in questions),
        "num_images": len({(one.picture.name, one.cell) for one in questions}),
        "each_token_once": once, "scorer": judge.name, **judge.settings(),
        "judge_on_plain_colours": known_colours(judge),
        **(drawing or {}),
    }  # fmt: skip
    mine = [one for one in questions if rank_of(one.id, world_size) == rank]
    with _kept_in(file, settings) as kept:
        missing = [one for one in mine if one.id not in kept]
        for some in progress(batches(missing, batch), f"{benchmark.name}: asking {judge.name}"):
            for one, p in zip(some, _answers(judge, some, once), strict=True):
                kept[one.id] = {**_asked(one), "p": p, "image": hashes[one.picture.name]}
        found = {one.id: kept[one.id] for one in mine}
    return report(benchmark, found, settings) if world_size == 1 else None


def report(
    benchmark: Benchmark, predictions: Mapping[str, Prediction], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return scores, recipe and predictions; ValueError for what is no probability."""
    found = [{"id": id, "group": one["item"], **one} for id, one in predictions.items()]
    for one in found:
        p = one.get("p")
        if not isinstance(p, dict) or sorted(p) != one["answers"]:
            raise ValueError(
                f"prediction {one['id']}: `p` has not a probability for each of "
                f"{', '.join(one['answers'])}; nothing is scored"
            )
        for name, value in p.items():
            checked(value, f"prediction {one['id']}, {name!r}")
        one["value"] = benchmark.value(one)
    return {
        "scores": {name_of(settings): benchmark.scores(found)},
        "recipe": recipe(**settings),
        "predictions": found,
    }


def name_of(settings: Mapping[str, Any]) -> str:
    """Return the name of the numbers: of what is asked, by whom, and how words are counted."""
    official = benchmark_of(settings["task"]).once
    counted = "_each_token_once" if settings["each_token_once"] and not official else ""
    return f"{settings['task']}_by_{settings['scorer']}{counted}"


def scored_again(files: Sequence[Path]) -> dict[str, Any]:
    """Return the report of predictions in files that ranks or a single run kept; ValueError where
    they are of different runs, or some are missing.
    """
    settings: dict[str, Any] | None = None
    found: dict[str, Prediction] = {}
    for file in files:
        there, predictions = read_predictions(file)
        if there.get("evaluation") != EVALUATION:
            raise ValueError(f"{file} holds no predictions of `unimodal eval judged`")
        for name, wanted in RECIPE.items():
            if type(there.get(name)) is not wanted:
                raise ValueError(f"{file}: {name} of its recipe is {there.get(name)!r:.80}")
        if settings not in (None, there):
            raise ValueError(f"{file} and {files[0]} hold predictions of different runs")
        if twice := found.keys() & predictions.keys():
            raise ValueError(f"{file}: {min(twice)} is there twice")
        settings, found = there, found | predictions
    assert settings is not None, "at least one file is given"
    names = ", ".join(map(str, files))
    if len(found) != settings["requests"]:
        raise ValueError(
            f"{names}: {len(found)} of {settings['requests']} answers are there; run the same "
            "`unimodal eval judged` again, which goes on from them, and give all ranks' files"
        )
    if (
        _digest([{name: one.get(name) for name in ASKED} for one in found.values()])
        != (settings["questions"])
    ):
        raise ValueError(f"{names}: the questions are not those of the first line")
    benchmark = benchmark_of(settings["task"])
    try:
        return report(benchmark, found, settings)
    except (
        AttributeError,
        KeyError,
        TypeError,
    ) as error:  # `about` is what a benchmark makes of it
        raise ValueError(
            f"{names}: the questions are not of {benchmark.name}: {error!r}"
        ) from error


def image_hashes(questions: Sequence[Question]) -> dict[str, str]:
    """Return the SHA-256 of each image's file; ValueError that names those which cannot be used."""
    firsts = {one.picture.name: one for one in reversed(questions)}
    found, bad = {}, []
    for name, one in progress(list(firsts.items()), "images"):
        try:
            pixels, found[name] = one.picture.open()
        except (ImageError, OSError) as error:
            bad.append(f"{one.item}: {error}")
            continue
        one.cut(pixels)
    if bad:
        raise ValueError(
            f"{len(bad)} of {len(firsts)} images cannot be used, so nothing is scored: "
            f"{'; '.join(bad[:SEVERAL])}"
        )
    return found


def _answers(judge: Judge, questions: Sequence[Question], once: bool) -> list[dict[str, float]]:
    """Return the probability of each answer to each question."""
    pictures = {one.picture.name: one.picture for one in questions}
    pixels = {name: picture.open()[0] for name, picture in pictures.items()}
    asked = [
        Look(
            one.cut(pixels[one.picture.name]),
            one.text,
            tuple(word for words in one.answers.values() for word in words),
        )
        for one in questions
    ]
    return [
        {name: probability(begins, words, once, judge.name) for name, words in one.answers.items()}
        for one, begins in zip(questions, judge.look(asked), strict=True)
    ]


def _asked(question: Question) -> Prediction:
    values = (
        question.item, question.cell, question.number, question.prompt, question.text,
        question.expected, question.kind, dict(question.about), sorted(question.answers),
    )  # fmt: skip
    return dict(zip(ASKED, values, strict=True))


def _digest(asked: Sequence[Prediction]) -> str:
    """Return the SHA-256 of what is asked, whatever the order."""
    return digest(sorted(asked, key=lambda one: json.dumps(one, sort_keys=True)))


def _check_distinct(questions: Sequence[Question]) -> None:
    ids = [one.id for one in questions]
    if len(set(ids)) < len(ids):
        twice = next(id for id in ids if ids.count(id) > 1)
        raise ValueError(f"two questions have the id {twice}")


def _kept_in(
    file: Path | None, settings: Mapping[str, Any]
) -> AbstractContextManager[MutableMapping[str, Prediction]]:
    return nullcontext({}) if file is None else PredictionsFile(file, settings)
