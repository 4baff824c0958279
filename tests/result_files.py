"""Result files as the evaluators write them, whose verdicts a test chooses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from vqa_files import pope, write_lines

from unimodal.eval.chain_exam import CHAINS
from unimodal.eval.geneval.detector import read_detections
from unimodal.eval.geneval.prompts import Prompt, make_prompts
from unimodal.eval.geneval.scoring import report_of
from unimodal.eval.predictions import PredictionsFile
from unimodal.eval.scene_requests import make_requests
from unimodal.eval.score import by_kind, digest, recipe, write
from unimodal.eval.vqa.evaluation import scored_answers
from unimodal.eval.vqa.source import Source
from unimodal.eval.vqa.tasks import task_of

Verdict = Callable[[int], bool]
"""Whether the answer of a number is right."""
CLASSES = ("circle", "star", "ring")


def scenes(path: Path, right: Verdict, samples: int = 3, **settings: Any) -> Path:
    """Write a result of `eval scenes --tasks drawing,questions` with these verdicts."""
    predictions, settings = _scenes(right, samples, settings)
    kept = list(predictions.values())
    scores = {
        part: by_kind([p for p in kept if p["part"] == part]) for part in ("drawing", "questions")
    }
    report = {"scores": scores, "recipe": recipe(**settings), "predictions": kept}
    write(path, report)
    return path


def scene_predictions(path: Path, right: Verdict, samples: int = 3, **settings: Any) -> Path:
    """Write what `eval scenes --predictions` keeps."""
    predictions, settings = _scenes(right, samples, settings)
    with PredictionsFile(path, settings) as kept:
        kept.update(predictions)
    return path


def _scenes(
    right: Verdict, samples: int, settings: dict[str, Any]
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    asked = [
        one for part in ("drawing", "questions") for one in make_requests(part, samples, seed=7)
    ]
    assert CHAINS not in {one.part for one in asked}
    predictions = {
        one.id: {
            "part": one.part, "kind": one.kind.replace(" ", "_"), "prompt": one.prompt,
            "expected": one.expected, "answer": None, "right": right(number),
            "reason": "" if right(number) else "<b>not</b> what was asked for",
        }
        for number, one in enumerate(asked)
    }  # fmt: skip
    recipe_ = {
        "evaluation": "scenes", "model": "a" * 64, "seed": 7, "guidance": 3.0,
        "prompts": digest([r.part, r.kind, r.prompt, r.expected] for r in asked),
        "people_prompts": digest([]), **settings,
    }  # fmt: skip
    return predictions, recipe_


def geneval_prompts(number: int = 4) -> list[Prompt]:
    """Return prompts for one object, and for so many that are counted."""
    made = make_prompts(CLASSES, number, seed=3)
    return [one for one in made if one.tag in ("single_object", "counting")]


def geneval(path: Path, right: Verdict, samples: int = 2, **drawn: Any) -> Path:
    """Write a result of `eval geneval score`; the number of an image is that among all."""
    prompts = geneval_prompts()
    lines: list[dict[str, Any]] = [
        {
            "recipe": {
                "detector": "recorded", "classes": list(CLASSES), "num_prompts": len(prompts),
                "samples_per_prompt": samples, **drawn,
            }
        }
    ]  # fmt: skip
    for number, prompt in enumerate(prompts):
        for sample in range(samples):
            wanted = prompt.include[0]
            box = [[30.0 * k, 0.0, 30.0 * k + 20, 20.0, 0.95] for k in range(wanted.count)]
            boxes = {wanted.name: box} if right(number * samples + sample) else {}
            lines.append(
                {
                    "id": f"{number:05d}/{sample:04d}", "metadata": prompt.json(),
                    "boxes": boxes, "colours": {}, "note": "",
                }
            )  # fmt: skip
    write(path, report_of(read_detections(write_lines(path.with_suffix(".lines"), lines))))
    return path


def vqa(path: Path, says_yes: Verdict, images: int = 4) -> Path:
    """Write a result of `eval score pope`, of answers that are yes or no."""
    home = path.with_suffix(".pope")
    data = pope(home, images, ("random",))
    task, source = task_of("pope"), Source(data, data)
    answers = [
        {"question_id": item.id, "answer": "yes" if says_yes(number) else "no"}
        for number, item in enumerate(task.items(source))
    ]
    write(path, scored_answers(task, source, write_lines(home / "answers.jsonl", answers), seed=5))
    return path
