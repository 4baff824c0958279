"""VQAv2: short answers to questions about photographs, compared with those of ten people.

Files: `v2_OpenEnded_mscoco_val2014_questions.json` and `v2_mscoco_val2014_annotations.json` in one
folder, with images COCO_val2014_000000000042.jpg; or a table with question, question_id, image,
answers and perhaps answer_type and question_type. Splits without annotations cannot be scored here.

Rules: vqaEval.py (GT-Vision-Lab/VQA @ a013f00), see answers.py. `always_normalised` is what most
scripts compute: it also normalises where all ten people agree.
"""

from collections.abc import Sequence
from typing import Any

from ..score import Prediction
from .answers import NUM_PEOPLE, always_normalised, vqa_accuracy, vqa_official
from .item import Item
from .source import Row, Source, objects, read_json
from .task import AnswerTask, Chance, Verdict, by, mean, most_common


class VqaV2(AnswerTask):
    """Scores by the accuracy that leaves out one person at a time."""

    name = "vqav2"
    rules = "VQA @ a013f00"

    def items(self, source: Source) -> list[Item]:
        """Return all questions that have answers."""
        if source.is_table:
            return [self._item(row, row, (row.get("image"),)) for row in source.rows()]
        questions, annotations = self._official(source)
        if questions.keys() != annotations.keys():
            alone = sorted(questions.keys() ^ annotations.keys())
            raise ValueError(
                f"{source.path}: {len(alone)} questions are not in both files, such as {alone[0]}"
            )
        subtype = self._subtype(source)
        return [
            self._item(row, annotations[id], (_file(subtype, row),))
            for id, row in questions.items()
        ]

    def judge(self, expected: dict[str, Any], answer: str, chance: Chance) -> Verdict:
        """Return the official accuracy, and the one that always normalises."""
        people = expected["answers"]
        also = {"always_normalised": always_normalised(answer, people)}
        return Verdict(vqa_accuracy(answer, people), vqa_official(answer) or None, also=also)

    def constant(self, expected: dict[str, Any]) -> str:
        """Return the answer that most people gave."""
        return most_common(expected["answers"])

    def scores(self, predictions: Sequence[Prediction]) -> dict[str, Any]:
        """Return the accuracy of all, of each type of answer, and of each type of question."""
        typed = [{**one, "type": one["expected"]["question_type"]} for one in predictions]
        return {
            "overall": mean(predictions),
            **by(predictions, "kind"),
            "always_normalised": mean(predictions, "always_normalised"),
            "question_types": by(typed, "type"),
        }

    def _official(self, source: Source) -> tuple[dict[str, Row], dict[str, Row]]:
        files = [(source.find("*questions.json"), "questions")]
        if source.path.is_file():
            raise ValueError(f"{source.path}: give the folder of questions and annotations")
        files.append((source.find("*annotations.json"), "annotations"))
        found = []
        for file, key in files:
            rows = objects(_value(read_json(file), key, str(file)), f"{file}, {key}")
            by_id = {row.text("question_id"): row for row in rows}
            if len(by_id) < len(rows):
                raise ValueError(f"{file}: {len(rows) - len(by_id)} ids stand for two {key}")
            found.append(by_id)
        return found[0], found[1]

    def _subtype(self, source: Source) -> str:
        value = read_json(source.find("*questions.json"))
        return str(value.get("data_subtype", "val2014"))

    def _item(self, row: Row, annotation: Row, images: tuple[Any, ...]) -> Item:
        people = annotation.texts("answers")
        if len(people) != NUM_PEOPLE:
            raise ValueError(
                f"{annotation.place}: {len(people)} answers, and the rule is of {NUM_PEOPLE}"
            )
        types = {
            name: str(annotation.fields.get(name) or "untyped")
            for name in ("answer_type", "question_type")
        }
        id = row.text("question_id")
        group = str(row.fields.get("image_id") or id)
        expected = {"answers": people, "question_type": types["question_type"]}
        return Item(id, row.text("question"), images, expected, types["answer_type"], group)


def _value(value: Any, key: str, place: str) -> Any:
    if not isinstance(value, dict) or key not in value:
        raise ValueError(f"{place} has no {key}")
    return value[key]


def _file(subtype: str, row: Row) -> str:
    """Return the name of an image of COCO."""
    number = row.get("image_id")
    if not isinstance(number, int):
        raise ValueError(f"{row.place}: image_id is a number, not {number!r:.80}")
    return f"COCO_{subtype}_{number:012d}.jpg"
