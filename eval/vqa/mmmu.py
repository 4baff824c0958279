"""MMMU: college questions of thirty subjects, with several images within the question.

Files: the official .parquet files (one folder a subject), with id, question, options, answer,
question_type and image_1 to image_7; of several splits --split names one.

Rules: MMMU's eval_utils.py: choices.mmmu_choice and open_answer.is_right; the mean over all
questions. Where MMMU draws a letter unseeded, a seeded draw takes its place, and is counted.
"""

import ast
import re
from typing import Any

from .choices import guess, mmmu_choice
from .item import Item
from .open_answer import is_right
from .source import Row, Source
from .task import AnswerTask, Chance, Verdict

PLACE = re.compile(r"<image (\d+)>")
MOST_IMAGES = 7
CHOICE, OPEN = "multiple-choice", "open"
SUBJECT = re.compile(r"\A[a-z]+_(\w+)_\d+\Z")  # in an id: validation_Art_Theory_3
ASK_LETTER = "\nAnswer with the option's letter from the given choices directly."
ASK_WORDS = "\nAnswer the question using a single word or phrase."


class Mmmu(AnswerTask):
    """Scores letters and open answers."""

    name = "mmmu"
    rules = "MMMU eval_utils.py, seeded letters"
    template = "{question}\n{options}"
    has_options = True
    max_tokens = 128

    def items(self, source: Source) -> list[Item]:
        """Return all questions that have an answer."""
        if not source.is_table:
            raise ValueError(f"{source.path} holds no .parquet: give MMMU's files")
        return [self._item(row) for row in source.rows()]

    def judge(self, expected: dict[str, Any], answer: str, chance: Chance) -> Verdict:
        """Return whether the letter, or an open answer, is right."""
        options = expected["options"]
        if not options:
            value = float(is_right(answer, expected["answers"]))
            return Verdict(value, answer.strip() or None)
        parsed = mmmu_choice(answer, options)
        drawn = guess(list(options), chance.seed, chance.id) if parsed is None else None
        return Verdict(float((parsed or drawn) in expected["answers"]), parsed, drawn)

    def constant(self, expected: dict[str, Any]) -> str:
        """Return the letter, or the first right answer."""
        return expected["answers"][0]

    def told_options(self, expected: dict[str, Any]) -> str:
        """Return the options, a line each, and what form of answer is wanted."""
        options = expected["options"]
        if not options:
            return ASK_WORDS.lstrip()
        return "\n".join(f"({one}) {text}" for one, text in options.items()) + ASK_LETTER

    def _item(self, row: Row) -> Item:
        id, question = row.text("id"), row.text("question")
        options = _options(row)
        answers = _listed(row.text("answer"))
        if options and not set(answers) <= set(options):
            raise ValueError(f"{row.place}: the answer {answers} is none of {', '.join(options)}")
        shown = f"{question}\n" + "\n".join(options.values())
        places = sorted({int(number) for number in PLACE.findall(shown)})
        if not places or places[-1] > MOST_IMAGES:
            raise ValueError(f"{row.place}: places of images {places}, and image_1 to image_7 are")
        images = tuple(row.get(f"image_{number}") for number in range(1, places[-1] + 1))
        subject = SUBJECT.match(id)
        expected = {"answers": answers, "options": options}
        return Item(id, question, images, expected, subject[1] if subject else "untyped", id)


def _options(row: Row) -> dict[str, str]:
    """Return the options by letters; none of an open question."""
    kind = row.one_of((CHOICE, OPEN), "question_type")
    texts = _listed(str(row.fields.get("options") or "[]"))
    if (kind == CHOICE) != bool(texts) or len(texts) == 1:
        raise ValueError(f"{row.place}: a question of {kind} with {len(texts)} options")
    return {chr(ord("A") + at): text for at, text in enumerate(texts)}


def _listed(text: str) -> list[str]:
    """Return the texts that a cell lists as Python does ("['a', 'b']"), or the cell itself: an
    answer may be the interval "[0, 1)".
    """
    try:
        values = ast.literal_eval(text) if text.startswith("[") else None
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return [text]
    if isinstance(values, list) and all(isinstance(one, str) for one in values):
        return values
    return [text]
