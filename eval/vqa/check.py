"""Whether our VQA rule is the official one: outputs of the official program.

In: a file such as

    {"normalise": [{"in": "t-shirt", "out": "t shirt"}],
     "score": [{"gt": ["2", "2", "2", ...], "pred": "two", "acc": 90.0}]}

Out: a line for each vector with which we disagree; none is right.
"""

from pathlib import Path

from .answers import vqa_accuracy, vqa_official
from .source import Row, objects, read_json

DIGITS = 2  # of an accuracy in per cent, as vqaEval.py rounds it


def check(path: Path) -> list[str]:
    """Return every disagreement with the vectors in a file, in words; ValueError where the file is
    none of vectors, or has none.
    """
    golden = read_json(path)
    if not isinstance(golden, dict) or not {"normalise", "score"} <= set(golden):
        raise ValueError(f"{path} has no vectors of vqa: the lists `normalise` and `score`")
    forms = objects(golden["normalise"], f"{path}, normalise")
    scores = objects(golden["score"], f"{path}, score")
    if not forms or not scores:
        raise ValueError(f"{path} has no vectors of vqa: it checks nothing")
    return [words for words in [*map(_form, forms), *map(_score, scores)] if words]


def _form(vector: Row) -> str:
    given, wanted = vector.any_text("in"), vector.get("out")
    ours = vqa_official(given)
    return "" if ours == wanted else f"{given!r} becomes {ours!r}, and officially {wanted!r}"


def _score(vector: Row) -> str:
    people, answer, wanted = vector.texts("gt"), vector.any_text("pred"), vector.get("acc")
    ours = round(100 * vqa_accuracy(answer, people), DIGITS)
    return "" if ours == wanted else f"{answer!r} to {people} is worth {ours}, officially {wanted}"
