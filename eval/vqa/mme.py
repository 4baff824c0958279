"""MME: two questions of yes and no about each image, of which one is true and one is not.

Files: the official release, a folder for each subtask with images and a .txt of the same name
beside each (or in `images` and `questions_answers_YN`), lines of question, tab, answer; or a table
with question_id, question, answer, category and image. (memory: the names of those two folders)

Rules: calculation.py. A subtask is worth 100 x (accuracy + share of images with both right), at
most 200; perception is the sum of ten subtasks, cognition that of four.
"""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unimodal.data.image_members import names_image

from ..intervals import Estimate, weighted_sum
from ..score import Prediction
from .clusters import scaled, share_of_clusters
from .item import Item
from .source import Row, Source, lines_of
from .task import AnswerTask, Chance, Verdict, mean
from .yes_no import NO, YES, mme_answer

PERCEPTION = (
    "existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark",
    "artwork", "OCR",
)  # fmt: skip
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
MOST = 200  # of a subtask
RIGHT, QUESTIONS, BOTH, IMAGES = range(4)


class Mme(AnswerTask):
    """Scores by accuracy and by images with both questions right."""

    name = "mme"
    rules = "MME calculation.py"
    template = "{question}"  # each ends in "Please answer yes or no."

    def items(self, source: Source) -> list[Item]:
        """Return all questions; ValueError where an image has another number than two."""
        found = [self._item(row) for row in source.rows()] if source.is_table else _read(source)
        counts = Counter(item.group for item in found)
        if wrong := [group for group, count in counts.items() if count != 2]:
            raise ValueError(f"{wrong[0]} has {counts[wrong[0]]} questions: each image has two")
        return found

    def judge(self, expected: dict[str, Any], answer: str, chance: Chance) -> Verdict:
        """Return whether yes or no was read as it should be."""
        found = mme_answer(answer)
        return Verdict(float(found == expected["answer"]), found)

    def constant(self, expected: dict[str, Any]) -> str:
        """Return the answer."""
        return expected["answer"]

    def scores(self, predictions: Sequence[Prediction]) -> dict[str, Any]:
        """Return accuracy as `overall`; the sums of perception and cognition; each subtask's."""
        kinds = [one for one in (*PERCEPTION, *COGNITION) if _of(predictions, one)]
        subtasks = {kind: subtask_score(_of(predictions, kind)) for kind in kinds}
        sums = {}
        for name, members in (("perception", PERCEPTION), ("cognition", COGNITION)):
            if parts := [subtasks[kind] for kind in members if kind in subtasks]:
                sums[name if len(parts) == len(members) else f"{name}_of_{len(parts)}"] = _sum(
                    parts
                )
        return {"overall": mean(predictions), **sums, **subtasks}

    def _item(self, row: Row) -> Item:
        kind = row.text("category")
        return _item(row, kind, f"{kind}/{row.text('question_id')}", row.get("image"))


def subtask_score(predictions: Sequence[Prediction]) -> Estimate:
    """Return 100 x (acc + acc+), clustered by image."""
    images: dict[str, list[float]] = {}
    for one in predictions:
        images.setdefault(one["group"], []).append(one["value"])

    def statistic(sums: np.ndarray) -> float:
        return float((sums[RIGHT] / sums[QUESTIONS] + sums[BOTH] / sums[IMAGES]) / 2)

    addends = [
        (image, (sum(values), len(values), float(sum(values) == 2), 1.0))
        for image, values in images.items()
    ]
    if len(addends) == 1:
        _, sums = addends[0]
        return Estimate(MOST * statistic(np.array(sums)), None, None, len(predictions))
    found = scaled(share_of_clusters(addends, statistic), MOST)
    return Estimate(found.value, found.low, found.high, len(predictions))


def _sum(subtasks: Sequence[Estimate]) -> Estimate:
    """Return the sum of subtasks, which share no images; without an interval where one has none."""
    n, values = sum(one.n for one in subtasks), [one.value for one in subtasks]
    if any(one.low is None for one in subtasks):
        return Estimate(sum(value for value in values if value is not None), None, None, n)
    return weighted_sum(subtasks, [1.0] * len(subtasks))


def _of(predictions: Sequence[Prediction], kind: str) -> list[Prediction]:
    return [one for one in predictions if one["kind"] == kind]


def _item(row: Row, kind: str, group: str, image: Any) -> Item:
    if kind not in (*PERCEPTION, *COGNITION):
        raise ValueError(f"{row.place}: {kind} is no subtask of MME")
    answer, question = row.one_of((YES, NO), "answer"), row.text("question")
    return Item(f"{group}: {question}", question, (image,), {"answer": answer}, kind, group)


def _read(source: Source) -> list[Item]:
    """Return the items of the official release."""
    folders = [source.path / kind for kind in (*PERCEPTION, *COGNITION)]
    there = [folder for folder in folders if folder.is_dir()]
    if not there:
        raise ValueError(f"{source.path} holds none of MME's folders, such as {PERCEPTION[0]}")
    if not source.path.resolve().is_relative_to(source.images.resolve()):
        raise ValueError(
            f"--images {source.images}: MME's images lie beside their questions, in {source.path}; "
            "leave it out"
        )
    return [item for folder in there for item in _of_folder(folder, source)]


def _of_folder(folder: Path, source: Source) -> list[Item]:
    texts, images = folder / "questions_answers_YN", folder / "images"
    texts, images = (texts, images) if texts.is_dir() else (folder, folder)
    files = {file.stem: file for file in sorted(images.iterdir()) if names_image(file.name)}
    found = []
    for text in sorted(texts.glob("*.txt")):
        if text.stem not in files:
            raise ValueError(f"{text} has no image of its name in {images}")
        name = os.path.relpath(files[text.stem], source.images)
        for number, line in enumerate(_lines(text), 1):
            question, _, answer = line.rpartition("\t")
            row = Row({"question": question, "answer": answer}, f"{text}, line {number}")
            found.append(_item(row, folder.name, f"{folder.name}/{text.stem}", name))
    return found


def _lines(text: Path) -> list[str]:
    try:
        lines = lines_of(text.read_text(encoding="utf-8-sig"))
        return [line for line in lines if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{text} is no UTF-8: {error}") from error
