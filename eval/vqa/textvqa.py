"""TextVQA: what is written in photographs, compared with the answers of ten people.

Files: `TextVQA_0.5.1_val.json` with images IMAGE_ID.jpg (those of val lie in `train_images`; its
addresses of images are not read); or a table with question_id, question, image, answers.

Rules: mmf's TextVQAAccuracyEvaluator, see answers.py. No OCR tokens are shown to the model.
"""

from typing import Any

from .answers import NUM_PEOPLE, evalai, textvqa_accuracy
from .item import Item
from .source import Row, Source, objects, read_json
from .task import AnswerTask, Chance, Verdict, most_common


class TextVqa(AnswerTask):
    """Scores by the accuracy that leaves out one person at a time, on mmf's normal forms."""

    name = "textvqa"
    rules = "mmf TextVQA, without OCR tokens"

    def items(self, source: Source) -> list[Item]:
        """Return all questions that have answers."""
        if source.is_table:
            return [self._item(row) for row in source.rows()]
        file = source.find("TextVQA*.json")
        value = read_json(file)
        if not isinstance(value, dict) or "data" not in value:
            raise ValueError(f"{file} has no data: it is none of TextVQA's files")
        folders = [one for one in ("train_images", "test_images") if (source.images / one).is_dir()]
        home = f"{folders[0]}/" if len(folders) == 1 else ""
        rows = objects(value["data"], f"{file}, data")
        return [self._item(row, f"{home}{row.text('image_id')}.jpg") for row in rows]

    def judge(self, expected: dict[str, Any], answer: str, chance: Chance) -> Verdict:
        """Return the accuracy."""
        return Verdict(textvqa_accuracy(answer, expected["answers"]), evalai(answer) or None)

    def constant(self, expected: dict[str, Any]) -> str:
        """Return the answer that most people gave."""
        return most_common(expected["answers"])

    def _item(self, row: Row, file: str | None = None) -> Item:
        people = row.texts("answers")
        if len(people) != NUM_PEOPLE:
            raise ValueError(f"{row.place}: {len(people)} answers, and the rule is of {NUM_PEOPLE}")
        id = row.text("question_id")
        image = file or row.get("image")
        group = str(row.fields.get("image_id") or id)
        return Item(id, row.text("question"), (image,), {"answers": people}, "read", group)
