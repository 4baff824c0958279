"""TIFA v1.0: multiple-choice questions about what a caption says.

Yushi-Hu/tifa at 8e37050 (arXiv:2303.11897), Apache-2.0: a JSON list of {id, caption, question,
choices, answer, element_type}. Images: a JSON file {id: image}, or a folder of files `<id>.png`.

1. Of yes and no the judge is asked "<question> Answer yes or no."; of other choices each gets a
   letter, and the letter is asked for. The answer is the choice that begins most probably.
   Officially a VQA model answers freely, and the nearest choice by SBERT counts: another number.
2. A prompt is worth the share of its questions that are answered as expected; the score is the mean
   over prompts. Element types pool their questions.
"""

from collections.abc import Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from ..score import Prediction
from ..vqa.clusters import mean_of_clusters
from ..vqa.source import Row, objects, read_json
from .benchmark import Benchmark, grouped, mean_of_prompts, texts_of
from .judge import NO, YES
from .question import Question, check_images, images_by_stem

YES_NO, LETTERS = " Answer yes or no.", "\nAnswer with the option's letter."


class Tifa(Benchmark):
    """Choices by the probability of their first word or letter."""

    name = "tifa"
    rules = "tifa 8e37050, choices by letters"

    def prompts(self, data: Path) -> dict[str, str]:
        """Return each caption, of the file of questions or of `tifa_v1.0_text_inputs.json`."""
        rows = objects(read_json(data), str(data))
        return texts_of(((row.text("id"), row.text("caption")) for row in rows), data)

    def questions(self, data: Path, images: Path, cells: int) -> list[Question]:
        """Return a question for each object of the file."""
        rows, found = objects(read_json(data), str(data)), images_by_stem(images)
        check_images(list(dict.fromkeys(row.text("id") for row in rows)), found, images)
        counts: dict[str, int] = {}
        made = []
        for row in rows:
            item = row.text("id")
            if len(found[item]) > 1:
                raise ValueError(f"{images} has several images of {item}: keep one")
            number = counts[item] = counts.get(item, -1) + 1
            text, answers = _asked(row)
            made.append(Question(
                item, 0, number, row.text("caption"), text, answers,
                _expected(row, answers), row.text("element_type"), found[item][0],
            ))  # fmt: skip
        return made

    def value(self, prediction: Prediction) -> float:
        """Return 1 for the expected answer."""
        return float(is_right(prediction))

    def prompt_values(self, predictions: Sequence[Prediction]) -> dict[str, dict[str, float]]:
        """Return the share of each prompt's questions that are answered as expected."""
        prompts = grouped(predictions, "item")
        return {"tifa": {some[0]["item"]: sum(map(is_right, some)) / len(some) for some in prompts}}

    def scores(self, predictions: Sequence[Prediction]) -> dict[str, Any]:
        """Return the score over prompts, and the share right of each element type."""
        (values,) = self.prompt_values(predictions).values()
        kinds = grouped(predictions, "kind")
        return {
            "tifa": mean_of_prompts(values.values()),
            **{
                some[0]["kind"]: mean_of_clusters((o["item"], float(is_right(o))) for o in some)
                for some in sorted(kinds, key=lambda some: some[0]["kind"])
            },
        }


def is_right(prediction: Prediction) -> bool:
    """Return whether the expected answer is the most probable one, and no other is as probable."""
    p = prediction["p"]
    best = max(p.values())
    return p[prediction["expected"]] == best and list(p.values()).count(best) == 1


def _asked(row: Row) -> tuple[str, dict[str, tuple[str, ...]]]:
    """Return what is asked, and the words of each choice."""
    question, choices = row.text("question"), row.texts("choices")
    if len(set(choices)) < len(choices) or not 2 <= len(choices) <= len(ascii_uppercase):
        raise ValueError(f"{row.place}: choices are 2 to 26 different texts, not {choices!r:.80}")
    if set(choices) == {"yes", "no"}:
        return question + YES_NO, {"yes": YES, "no": NO}
    lines = [f"{letter}. {one}" for letter, one in zip(ascii_uppercase, choices, strict=False)]
    words: dict[str, tuple[str, ...]] = {
        one: (letter, f" {letter}") for letter, one in zip(ascii_uppercase, choices, strict=False)
    }
    return "\n".join([question, *lines]) + LETTERS, words


def _expected(row: Row, answers: dict[str, tuple[str, ...]]) -> str:
    answer = row.text("answer")
    if answer not in answers:
        raise ValueError(f"{row.place}: the answer {answer!r} is none of the choices")
    return answer
