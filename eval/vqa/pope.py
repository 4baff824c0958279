"""POPE: whether a thing is in a photograph; in three subsets absent things are ever more likely.

Files: `coco_pope_random.json`, `coco_pope_popular.json` and `coco_pope_adversarial.json`, an object
a line, or a folder with all or some of them, with images COCO_val2014_*.jpg; or a table with
question_id, question, answer, category and image.

Rules: evaluate.py (AoiDragon/POPE @ 08d957b), which takes every answer without 'no' or 'not' for
'yes', an empty one too; `unparsed` is the share that says neither.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..intervals import Estimate
from ..score import Prediction
from .clusters import share_of_clusters
from .item import Item
from .source import Row, Source, read_lines
from .task import AnswerTask, Chance, Verdict
from .yes_no import NO, YES, pope_answer, says_either

SUBSETS = ("random", "popular", "adversarial")
TP, FP, FN, TN = range(4)


def accuracy(counts: np.ndarray) -> float | None:
    """Return (TP + TN) / all."""
    return float((counts[TP] + counts[TN]) / counts.sum()) if counts.sum() else None


def precision(counts: np.ndarray) -> float | None:
    """Return TP / (TP + FP); None where nothing was answered by yes."""
    return float(counts[TP] / (counts[TP] + counts[FP])) if counts[TP] + counts[FP] else None


def recall(counts: np.ndarray) -> float | None:
    """Return TP / (TP + FN); None where nothing is there."""
    return float(counts[TP] / (counts[TP] + counts[FN])) if counts[TP] + counts[FN] else None


def f1(counts: np.ndarray) -> float | None:
    """Return 2 TP / (2 TP + FP + FN), the harmonic mean of precision and recall."""
    total = 2 * counts[TP] + counts[FP] + counts[FN]
    return float(2 * counts[TP] / total) if total else None


def yes_ratio(counts: np.ndarray) -> float | None:
    """Return the share that was answered by yes."""
    return float((counts[TP] + counts[FP]) / counts.sum()) if counts.sum() else None


MEASURES = {"f1": f1, "precision": precision, "recall": recall, "yes_ratio": yes_ratio}


class Pope(AnswerTask):
    """Scores by accuracy and F1, yes being what is looked for."""

    name = "pope"
    rules = "POPE evaluate.py @ 08d957b"

    def items(self, source: Source) -> list[Item]:
        """Return the questions of all subsets that are there."""
        if source.is_table:
            return [
                self._item(row, row.one_of(SUBSETS, "category"), row.get("image"))
                for row in source.rows()
            ]
        files = sorted(source.path.glob("*pope_*.json")) if source.path.is_dir() else [source.path]
        if not files:
            raise ValueError(f"{source.path} holds no *pope_SUBSET.json")
        return [
            self._item(row, _subset(file.stem), row.text("image"))
            for file in files
            for row in read_lines(file)
        ]

    def judge(self, expected: dict[str, Any], answer: str, chance: Chance) -> Verdict:
        """Return whether yes or no was read as it should be."""
        found = pope_answer(answer)
        return Verdict(float(found == expected["answer"]), found if says_either(answer) else None)

    def constant(self, expected: dict[str, Any]) -> str:
        """Return the answer."""
        return expected["answer"]

    def scores(self, predictions: Sequence[Prediction]) -> dict[str, Any]:
        """Return the mean accuracy of the subsets, their mean F1, and each subset's measures."""
        subsets = [one for one in SUBSETS if any(p["kind"] == one for p in predictions)]
        found: dict[str, Any] = {
            "overall": _estimate(predictions, subsets, accuracy),
            "mean_f1": _estimate(predictions, subsets, f1),
        }
        for subset in subsets:
            own = [p for p in predictions if p["kind"] == subset]
            found[subset] = _estimate(own, [subset], accuracy)
            for name, measure in MEASURES.items():
                found[f"{subset}_{name}"] = _estimate(own, [subset], measure)
        return found

    def _item(self, row: Row, subset: str, image: Any) -> Item:
        answer = row.one_of((YES, NO), "label", "answer")
        id = f"{subset}/{row.text('question_id')}"
        group = image if isinstance(image, str) else row.text("image_source", "question_id")
        return Item(id, row.text("text", "question"), (image,), {"answer": answer}, subset, group)


def _subset(stem: str) -> str:
    found = stem.rsplit("_", 1)[-1]
    if found not in SUBSETS:
        raise ValueError(f"{stem}.json: the name ends in {', '.join(SUBSETS)}")
    return found


def _estimate(
    predictions: Sequence[Prediction],
    subsets: Sequence[str],
    measure: Callable[[np.ndarray], float | None],
) -> Estimate:
    """Return the mean of a measure over subsets, clustered by image."""

    def statistic(sums: np.ndarray) -> float | None:
        found = [measure(counts) for counts in sums.reshape(len(subsets), 4)]
        known = [one for one in found if one is not None]
        return sum(known) / len(known) if len(known) == len(found) else None

    addends = []
    for one in predictions:
        said_yes = (one["value"] == 1) == (one["expected"]["answer"] == YES)
        is_there = one["expected"]["answer"] == YES
        place = {(True, True): TP, (True, False): FP, (False, True): FN, (False, False): TN}
        counts = np.zeros((len(subsets), 4))
        counts[subsets.index(one["kind"]), place[said_yes, is_there]] = 1
        addends.append((one["group"], counts.ravel().tolist()))
    return share_of_clusters(addends, statistic)
