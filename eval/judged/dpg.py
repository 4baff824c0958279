"""DPG-Bench: long prompts, and questions that depend on each other.

TencentQQGYLab/ELLA at 3c228f1 (arXiv:2403.05135), Apache-2.0. `dpg_bench.csv` has a row for each
question: item_id, text, proposition_id, dependency (ids of parents, 0: none), tuple,
question_natural_language (names of columns: memory). An image is a file `<item_id>.png`, officially
a grid of 2 x 2 images of the prompt.

1. The judge is asked "<question> Answer yes or no."; its answer is a yes where it begins with a yes
   more probably than with a no. Officially mPLUG-large answers in its own words.
2. A yes is worth 1, and 0 where a parent is worth 0; in the order of rows, so that grandchildren
   fall too. The mean over questions, over the images of a file, over prompts is the score.
3. `dpg_first_row_skipped` is the number that the official script computes: it passes over the first
   row, and an item whose questions then lack a parent fails and is left out without a word.
4. Categories (the tuple's words before its bracket, and these up to the dash) are officially shares
   of raw answers, before parents count, about the last image alone: copied.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unimodal.data.image_members import natural

from ..score import Prediction
from ..vqa.clusters import mean_of_clusters
from ..vqa.source import Row
from .benchmark import Benchmark, grouped, mean_of_prompts, texts_of
from .judge import NO, YES
from .question import Question, check_images, images_by_stem

SUFFIX = " Answer yes or no."
COLUMNS = (
    "item_id", "text", "proposition_id", "dependency", "tuple", "question_natural_language",
)  # fmt: skip
SURE = 0.5  # less for yes and no together: the judge said something else


class Dpg(Benchmark):
    """Yes and no by a graph of dependencies."""

    name = "dpg"
    rules = "ELLA 3c228f1, compute_dpg_bench.py"
    cells = (4, 1)

    def prompts(self, data: Path) -> dict[str, str]:
        """Return each item's text, of the file of questions or of the official folder of prompts,
        `<item_id>.txt`.
        """
        if data.is_dir():
            files = sorted(data.glob("*.txt"), key=lambda file: natural(file.name))
            return texts_of(((file.stem, _words(file)) for file in files), data)
        return texts_of(((row.text("item_id"), row.text("text")) for row in _rows(data)), data)

    def questions(self, data: Path, images: Path, cells: int) -> list[Question]:
        """Return the questions of each row about each image of its prompt's file."""
        rows, found = _rows(data), images_by_stem(images)
        items = list(dict.fromkeys(row.text("item_id") for row in rows))
        check_images(items, found, images)
        if any(len(some) > 1 for some in found.values()):
            raise ValueError(f"{images} has several files of one item: keep one")
        made = []
        for at, row in enumerate(rows):
            item, number = row.text("item_id"), _number(row, row.text("proposition_id"))
            parents = [_number(row, one) for one in row.text("dependency").split(",")]
            about = {"row": at, "parents": [one for one in parents if one != 0]}
            text = row.text("question_natural_language").strip() + SUFFIX
            for cell in range(cells):
                made.append(Question(
                    item, cell, number, row.text("text"), text, {"yes": YES, "no": NO}, "yes",
                    row.text("tuple").partition("(")[0].strip(), found[item][0], cells, about,
                ))  # fmt: skip
        _check_parents(made, data)
        return made

    def value(self, prediction: Prediction) -> float:
        """Return 1 for a yes, whatever its parents are."""
        return float(says_yes(prediction))

    def prompt_values(self, predictions: Sequence[Prediction]) -> dict[str, dict[str, float]]:
        """Return what each prompt is worth, and where the first row is skipped."""
        ordered = _ordered(predictions)
        return {"dpg": _of_items(ordered), "dpg_first_row_skipped": _of_items(_whole(ordered))}

    def scores(self, predictions: Sequence[Prediction]) -> dict[str, Any]:
        """Return the score, the official one, categories, and the share of other answers."""
        ordered = _ordered(predictions)
        whole = _whole(ordered)
        last = max(one["cell"] for one in ordered)
        undecided = ((o["item"], float(sum(o["p"].values()) < SURE)) for o in ordered)
        return {
            **{
                name: mean_of_prompts(values.values())
                for name, values in self.prompt_values(predictions).items()
            },
            **_categories([one for one in whole if one["cell"] == last]),
            "neither_yes_nor_no": mean_of_clusters(undecided),
        }


def says_yes(prediction: Prediction) -> bool:
    """Return whether an answer begins more probably with a yes than with a no."""
    return prediction["p"]["yes"] > prediction["p"]["no"]


def with_parents(answers: Mapping[int, float], parents: Mapping[int, Sequence[int]]) -> list[float]:
    """Return what each question is worth, in order: its answer, or 0 below a parent that is 0."""
    worth = dict(answers)
    for number, above in parents.items():
        if any(worth[one] == 0 for one in above):
            worth[number] = 0.0
    return list(worth.values())


def _ordered(predictions: Sequence[Prediction]) -> list[Prediction]:
    return sorted(predictions, key=lambda one: one["about"]["row"])


def _whole(ordered: Sequence[Prediction]) -> list[Prediction]:
    """Return the predictions without those of the first row, of items that lack no parent then."""
    skipped = [one for one in ordered if one["about"]["row"] != 0]
    return [one for some in grouped(skipped, "item") if _has_parents(some) for one in some]


def _of_items(predictions: Sequence[Prediction]) -> dict[str, float]:
    """Return each prompt's mean over its images of the mean over their questions."""
    found = {}
    for some in grouped(predictions, "item"):
        images = []
        for asked in grouped(some, "cell"):
            answers = {one["number"]: float(says_yes(one)) for one in asked}
            worth = with_parents(answers, {o["number"]: o["about"]["parents"] for o in asked})
            images.append(sum(worth) / len(worth))
        found[some[0]["item"]] = sum(images) / len(images)
    return found


def _categories(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Return the share of raw yes of each broad and each detailed category."""
    kinds: dict[str, list[tuple[str, float]]] = {}
    for one in predictions:
        broad = one["kind"].partition("-")[0].strip()
        for kind in dict.fromkeys((broad, one["kind"])):
            kinds.setdefault(kind, []).append((one["item"], float(says_yes(one))))
    return {kind: mean_of_clusters(kinds[kind]) for kind in sorted(kinds)}


def _has_parents(asked: Sequence[Prediction]) -> bool:
    there = {one["number"] for one in asked}
    return all(set(one["about"]["parents"]) <= there for one in asked)


def _check_parents(questions: Sequence[Question], data: Path) -> None:
    """Raise ValueError where a question is there twice, or depends on none of its prompt's."""
    numbers: dict[str, list[int]] = {}
    for one in questions:
        if one.cell == 0:
            numbers.setdefault(one.item, []).append(one.number)
    for item, there in numbers.items():
        if len(set(there)) < len(there):
            raise ValueError(f"{data}: {item} has two questions of one proposition_id")
    for one in questions:
        unknown = set(one.about["parents"]) - set(numbers[one.item])
        if unknown:
            raise ValueError(
                f"{data}: question {one.number} of {one.item} depends on {sorted(unknown)}, which "
                "is not there"
            )


def _rows(data: Path) -> list[Row]:
    try:
        with data.open(encoding="utf-8-sig", newline="") as file:
            found = list(csv.DictReader(file, strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{data} is no CSV in UTF-8: {error}") from error
    lacking = [name for name in COLUMNS if not found or name not in found[0]]
    if lacking:
        raise ValueError(f"{data} is no dpg_bench.csv: it has no {', '.join(lacking)}")
    return [Row(row, f"{data}, row {number}") for number, row in enumerate(found, 1)]


def _words(file: Path) -> str:
    try:
        words = file.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no UTF-8: {error}") from error
    if not words:
        raise ValueError(f"{file} is empty")
    return words


def _number(row: Row, text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise ValueError(f"{row.place}: {text!r} is no id of a question") from error
