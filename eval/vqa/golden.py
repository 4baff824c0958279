"""Compare our VQA rule with outputs of the official program.

In: the content of a file such as

    {"normalise": [{"in": "t-shirt", "out": "t shirt"}],
     "score": [{"gt": ["2", "2", "2", ...], "pred": "two", "acc": 90.0}]}

Out: how many vectors there are, and each one with which we disagree, in words.
"""

from typing import Any

from .answers import vqa_accuracy, vqa_official
from .source import Row, objects

DIGITS = 2  # of an accuracy in per cent, as vqaEval.py rounds it


def compare(golden: Any) -> tuple[int, list[str]]:
    """Return the number of vectors and the disagreements; ValueError where there are none."""
    if not isinstance(golden, dict) or not {"normalise", "score"} <= set(golden):
        raise ValueError("vectors of vqa are an object with the lists `normalise` and `score`")
    forms = objects(golden["normalise"], "normalise")
    scores = objects(golden["score"], "score")
    found = [*map(_form, forms), *map(_score, scores)]
    return len(found), [words for words in found if words]


def _form(vector: Row) -> str:
    given, wanted, ours = vector.get("in"), vector.get("out"), vqa_official(vector.get("in"))
    return "" if ours == wanted else f"{given!r} becomes {ours!r}, and officially {wanted!r}"


def _score(vector: Row) -> str:
    people, answer, wanted = vector.texts("gt"), vector.get("pred"), vector.get("acc")
    ours = round(100 * vqa_accuracy(answer, people), DIGITS)
    return "" if ours == wanted else f"{answer!r} to {people} is worth {ours}, officially {wanted}"
