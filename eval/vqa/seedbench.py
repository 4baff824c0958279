"""SEED-Bench: multiple choice about images; its questions about videos are left out and counted.

Files: `SEED-Bench.json`, with images named by data_id; or a table with question_id, question,
choice_a to choice_d, answer, image, and perhaps data_type and question_type_id.

Rules: the letter that the model writes (its first, as lmms-eval reads it). The official score ranks
the options by likelihood instead (memory), so this is another number.
"""

from typing import Any

from .choices import first_letter, listed
from .item import Item
from .source import Row, Source, objects, read_json
from .task import LETTER, AnswerTask, Chance, Verdict

IMAGE = "image"
LETTERS = "ABCD"


class SeedBench(AnswerTask):
    """Scores by the letter written first."""

    name = "seedbench"
    rules = "letters written, not options ranked"
    template = LETTER
    has_options = True

    def items(self, source: Source) -> list[Item]:
        """Return the questions about single images."""
        types: dict[str, str] = {}
        if source.is_table:
            rows = source.rows()
        else:
            file = source.find("SEED*.json")
            value = read_json(file)
            if not isinstance(value, dict) or "questions" not in value:
                raise ValueError(f"{file} has no questions: it is none of SEED-Bench's files")
            rows = objects(value["questions"], f"{file}, questions")
            named = value.get("question_type") or {}
            if not isinstance(named, dict):
                raise ValueError(f"{file}: question_type is {named!r:.80}, not names with numbers")
            types = {str(at): name for name, at in named.items()}
        of_images = [row for row in rows if row.fields.get("data_type", IMAGE) == IMAGE]
        self.left_out = len(rows) - len(of_images)
        return [self._item(row, types) for row in of_images]

    def judge(self, expected: dict[str, Any], answer: str, chance: Chance) -> Verdict:
        """Return whether the right letter was written."""
        options = expected["options"]
        return chance.choice(first_letter(answer, options), expected["answer"], list(options))

    def constant(self, expected: dict[str, Any]) -> str:
        """Return the letter."""
        return expected["answer"]

    def told_options(self, expected: dict[str, Any]) -> str:
        """Return the options, a line each."""
        return listed(expected["options"])

    def _item(self, row: Row, types: dict[str, str]) -> Item:
        options = {one: row.text(f"choice_{one.lower()}") for one in LETTERS}
        answer = row.text("answer").upper()
        if answer not in options:
            raise ValueError(f"{row.place}: the answer {answer!r} is none of A, B, C, D")
        number = str(row.fields.get("question_type_id", "untyped"))
        image = row.get("image", "data_id")
        if isinstance(image, list):  # as the tables of the hub have it
            if len(image) != 1:
                raise ValueError(f"{row.place}: {len(image)} images, and one is wanted")
            image = image[0]
        group = str(row.fields.get("data_id") or row.text("question_id"))
        expected = {"answer": answer, "options": options}
        kind = types.get(number, number)
        return Item(row.text("question_id"), row.text("question"), (image,), expected, kind, group)
