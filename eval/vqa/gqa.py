"""GQA: one right answer to each question about a scene.

Files: `testdev_balanced_questions.json` (or another of the official ones with answers), an object
of questions by their ids, with images IMAGE_ID.jpg; or a table with id, question, image, answer.

Rules: equality with the answer after LLaVA's step (`answers.llava_gqa`); `exact` is GQA's own
equality of what the model wrote. Open questions are those of the structural type 'query', as in
GQA's eval.py. Its consistency, validity, plausibility, grounding and distribution are not computed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ..score import Prediction
from .answers import llava_gqa
from .item import Item
from .source import Row, Source, read_json
from .task import AnswerTask, Chance, Verdict, by, mean


class Gqa(AnswerTask):
    """Scores by equality."""

    name = "gqa"
    rules = "GQA equality after LLaVA's step"

    def items(self, source: Source) -> list[Item]:
        """Return all questions."""
        if source.is_table:
            return [self._item(row, row.text("id", "question_id")) for row in source.rows()]
        file = source.find("*questions.json")
        questions = read_json(file)
        if not isinstance(questions, dict) or not all(
            isinstance(q, dict) for q in questions.values()
        ):
            raise ValueError(f"{file} is no object of questions by their ids")
        return [self._item(Row(q, f"{file}, question {id}"), id) for id, q in questions.items()]

    def judge(self, expected: dict[str, Any], answer: str, chance: Chance) -> Verdict:
        """Return whether the answer is the expected one."""
        found = llava_gqa(answer)
        exact = float(answer == expected["answer"])
        return Verdict(float(found == expected["answer"]), found or None, also={"exact": exact})

    def constant(self, expected: dict[str, Any]) -> str:
        """Return the answer."""
        return expected["answer"]

    def scores(self, predictions: Sequence[Prediction]) -> dict[str, Any]:
        """Return the accuracy of all, of binary and open questions, and of each type."""
        typed = [{**one, "type": one["expected"]["type"]} for one in predictions]
        return {
            "overall": mean(predictions),
            **by(predictions, "kind"),
            "exact": mean(predictions, "exact"),
            "structural_types": by(typed, "type"),
        }

    def _item(self, row: Row, id: str) -> Item:
        types = row.fields.get("types") or {}
        if not isinstance(types, Mapping):
            raise ValueError(f"{row.place}: types is an object, not {types!r:.80}")
        structural = str(types.get("structural") or "untyped")
        kind = {"query": "open", "untyped": "untyped"}.get(structural, "binary")
        name = row.fields.get("imageId") or row.fields.get("image_id")
        image = row.fields.get("image") or (f"{name}.jpg" if name else None)
        if image is None:
            raise ValueError(f"{row.place} has no image, imageId or image_id")
        expected = {"answer": row.text("answer"), "type": structural}
        return Item(id, row.text("question"), (image,), expected, kind, str(name or id))
