"""MMBench: multiple choice, right only where it is right with the options in every order.

Files: the official .tsv with index, question, A to D, answer, category, image (base64, or the index
of the row that has it) and perhaps hint, l2-category; or a table with the same columns. Rotations
are rows whose indices are equal but for millions; where a file has none they are made here.

Rules: CircularEval with VLMEvalKit's reading of letters and texts (choices.py). What cannot be read
goes to no judge: a seeded draw takes its place, and is counted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..score import Prediction
from .choices import listed, mmbench_choice
from .item import Item
from .source import Row, Source
from .task import LETTER, AnswerTask, Chance, Verdict, mean

LETTERS = "ABCDEFGH"
ROTATION = 1_000_000  # from one rotation's index to the next
LONGEST_INDEX = 64  # characters: a longer cell is the image itself (memory: VLMEvalKit's rule)
EMPTY = ("", "nan")  # cells of options that a question has not


class MmBench(AnswerTask):
    """Scores by CircularEval."""

    name = "mmbench"
    rules = "CircularEval without a judge"
    template = LETTER
    has_options = True

    def items(self, source: Source) -> list[Item]:
        """Return every rotation of every question."""
        if source.path.is_dir() and not source.is_table:
            source = replace(source, path=source.find("*.tsv"))
        rows = [] if not source.is_table else source.rows()
        if not rows:
            raise ValueError(f"{source.path} holds no table: give MMBench's .tsv or .parquet")
        images = {_index(row): row.get("image") for row in rows}
        found = [self._item(row, images) for row in rows]
        is_rotated = any(_index(row) >= ROTATION for row in rows)
        return found if is_rotated else [one for item in found for one in rotations(item)]

    def judge(self, expected: dict[str, Any], answer: str, chance: Chance) -> Verdict:
        """Return whether the letter of this rotation was named."""
        options = expected["options"]
        return chance.choice(mmbench_choice(answer, options), expected["answer"], list(options))

    def constant(self, expected: dict[str, Any]) -> str:
        """Return the letter."""
        return expected["answer"]

    def told_options(self, expected: dict[str, Any]) -> str:
        """Return the options, a line each."""
        return listed(expected["options"])

    def scores(self, predictions: Sequence[Prediction]) -> dict[str, Any]:
        """Return the share of questions with all rotations right, by category too; `one_order` is
        the share of rotations.
        """
        return {**super().scores(self.whole(predictions)), "one_order": mean(predictions)}

    def whole(self, predictions: Sequence[Prediction]) -> list[Prediction]:
        """Return a prediction a question, worth the least of its rotations."""
        least: dict[str, Prediction] = {}
        for one in predictions:
            there = least.setdefault(one["group"], {**one, "item": one["group"]})
            there["value"] = min(there["value"], one["value"])
        return list(least.values())

    def _item(self, row: Row, images: Mapping[int, Any]) -> Item:
        options = {
            letter: str(row.fields[letter])
            for letter in LETTERS
            if row.fields.get(letter) is not None and str(row.fields[letter]) not in EMPTY
        }
        answer = row.text("answer")
        if answer not in options or len(options) < 2:
            raise ValueError(f"{row.place}: the answer {answer!r} is none of {', '.join(options)}")
        hint = row.fields.get("hint")
        question = row.text("question")
        if hint is not None and str(hint) not in EMPTY:
            question = f"{hint}\n{question}"
        index = _index(row)
        kind = str(row.fields.get("l2-category") or row.fields.get("L2-category") or "")
        return Item(
            str(index), question, (_image(row, images),), {"answer": answer, "options": options},
            kind or row.text("category"), str(index % ROTATION),
        )  # fmt: skip


def rotations(item: Item) -> list[Item]:
    """Return an item with its options in each of their rotations."""
    options, answer = item.expected["options"], item.expected["answer"]
    letters, texts = list(options), list(options.values())
    found = []
    for shift in range(len(letters)):
        shifted = texts[shift:] + texts[:shift]
        right = letters[(letters.index(answer) - shift) % len(letters)]
        expected = {"answer": right, "options": dict(zip(letters, shifted, strict=True))}
        id = str(int(item.id) + shift * ROTATION)
        found.append(Item(id, item.question, item.images, expected, item.kind, item.group))
    return found


def _index(row: Row) -> int:
    text = row.text("index")
    if not text.isdecimal():
        raise ValueError(f"{row.place}: index is a whole number, not {text!r}")
    return int(text)


def _image(row: Row, images: Mapping[int, Any]) -> Any:
    """Return the image of a row, or of the row whose index stands in its place."""
    image = row.get("image")
    if not isinstance(image, str | int) or len(str(image)) > LONGEST_INDEX:
        return image
    if not str(image).isdecimal():
        return image
    if int(image) not in images:
        raise ValueError(f"{row.place}: its image is that of row {image}, which is not there")
    return images[int(image)]
