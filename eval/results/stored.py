"""The results that evaluators wrote, read again and checked.

In: files that `--json` wrote, or files of `--predictions`. Out: `Result`s.

1. A result file holds scores, recipe and predictions. A number that is not finite, an interval that
   does not hold its value, a key that is missing, and another hash than the file's own are errors
   that name the file.
2. A file of predictions is gone on with until its run is finished: what `eval vqa` kept is judged
   again, what `eval scenes` and `eval things` kept has its verdicts. It has no scores.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..intervals import Estimate
from ..predictions import read_predictions
from ..score import SEAL, Prediction, digest

FIELDS = ("value", "low", "high", "n")  # of an estimate
NEEDED = ("scores", "recipe", "predictions")
ROUNDING = 1e-9  # of the sums in an interval
WITH_VERDICTS = ("scenes", "things")  # evaluations whose kept predictions are judged


@dataclass(frozen=True)
class Result:
    """What one evaluation found: nested scores, the recipe, and every prediction."""

    path: Path
    scores: dict[str, Any]
    """Nested by name; each leaf is an Estimate. Empty for a file of predictions."""
    recipe: dict[str, Any]
    predictions: list[Prediction]
    more: dict[str, Any] = field(default_factory=dict)
    """What else a file holds: usage of codes, words of a comparison; speed is among the scores."""

    @property
    def evaluation(self) -> str:
        """Return what was evaluated, and the task of it where there are several."""
        task = self.recipe.get("task")
        return f"{self.recipe['evaluation']}: {task}" if task else str(self.recipe["evaluation"])


def read_results(paths: Sequence[Path]) -> list[Result]:
    """Return the results of files, and of folders all that lie in them; each file once.

    ValueError for a file that is none, and for a folder without any.
    """
    files = [file for path in paths for file in _files(path)]
    return [read_result(file) for file in dict.fromkeys(file.resolve() for file in files)]


def read_result(path: Path) -> Result:
    """Return the result of a file that `--json` wrote; ValueError where it is none."""
    if path.suffix == ".jsonl":
        raise ValueError(
            f"{path} holds predictions and no scores: run the same command with --json FILE, or "
            "`unimodal eval score vqa` on what `eval vqa` kept, and give that file"
        )
    stored = _json(path)
    if not _is_result(stored):
        missing = [name for name in NEEDED if not isinstance(stored, dict) or name not in stored]
        raise ValueError(f"{path} is no result of `unimodal eval`: it has no {', '.join(missing)}")
    if stored.pop(SEAL, None) not in (None, digest([stored])):
        raise ValueError(
            f"{path} was cut or altered since it was written: its {SEAL} is that of other scores, "
            "recipe or predictions; run the evaluation again"
        )
    recipe, predictions = stored["recipe"], stored["predictions"]
    if not isinstance(recipe, dict) or not isinstance(recipe.get("evaluation"), str):
        raise ValueError(f"{path}: its recipe does not say what was evaluated")
    if not isinstance(predictions, list) or not all(isinstance(p, dict) for p in predictions):
        raise ValueError(f"{path}: its predictions are no list of objects")
    scores = _scores(stored["scores"], f"{path}: scores")
    more = {name: value for name, value in stored.items() if name not in NEEDED}
    if "speed" in more:
        scores["speed"] = _scores(more.pop("speed"), f"{path}: speed")
    if not scores:
        raise ValueError(f"{path} holds no scores: the evaluation measured nothing")
    return Result(path, scores, recipe, predictions, more)


def read_judged(path: Path) -> Result:
    """Return what `--json` or `--predictions` wrote, with a verdict in each prediction.

    ValueError for files of another kind, and for predictions of a run that is not finished.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give the file that --json or --predictions wrote")
    if path.suffix != ".jsonl":
        return read_result(path)
    recipe, kept = read_predictions(path)
    evaluation = recipe.get("evaluation")
    if evaluation == "vqa":
        from ..vqa.evaluation import scored_again

        report = scored_again([path])
        return Result(path, report["scores"], report["recipe"], report["predictions"])
    if evaluation not in WITH_VERDICTS:
        raise ValueError(
            f"{path} holds no verdicts: score it first (`unimodal eval geneval score FILE --json "
            "RESULT`) and give the result"
        )
    return Result(path, {}, recipe, [{"id": id, **one} for id, one in kept.items()])


def names_of(paths: Sequence[Path]) -> list[str]:
    """Return a short name for each path, unlike the others: its last parts, as few as will do."""
    depth = 1
    whole = [Path(os.path.abspath(path)) for path in paths]  # "." has no name; links keep theirs
    while True:
        names = ["/".join(path.with_suffix("").parts[-depth:]) for path in whole]
        if len(set(names)) == len(names):
            return names
        if depth > max(len(path.parts) for path in whole):  # files that differ in suffix alone
            return [str(path) for path in paths]
        depth += 1


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = [file for file in sorted(path.glob("*.json")) if is_result_file(file)]
    if not found:
        raise ValueError(f"{path} has no results: give files that `unimodal eval` wrote by --json")
    return found


def is_result_file(path: Path) -> bool:
    """Tell whether a JSON file holds scores, recipe and predictions."""
    return _is_result(_json(path))


def _is_result(stored: Any) -> bool:
    return isinstance(stored, dict) and set(NEEDED) <= set(stored)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, or too deep
        raise ValueError(f"{path} cannot be read: {error}; run the evaluation again") from error


def _refuse(name: str) -> float:
    raise ValueError(f"it holds {name}, which is no score")


def _scores(stored: Any, place: str) -> dict[str, Any]:
    """Return nested scores with their leaves as estimates."""
    if not isinstance(stored, dict):
        raise ValueError(f"{place} is {stored!r:.60}, and no scores by name")
    return {
        name: _estimate(value, f"{place} / {name}")
        if isinstance(value, dict) and set(value) == set(FIELDS)
        else _scores(value, f"{place} / {name}")
        for name, value in stored.items()
    }


def _estimate(stored: Mapping[str, Any], place: str) -> Estimate:
    """Return an estimate whose interval holds its value."""
    found = Estimate(*(stored[name] for name in FIELDS))
    ends = [one for one in (found.low, found.value, found.high) if one is not None]
    is_number = all(type(one) in (int, float) and math.isfinite(one) for one in ends)
    if not is_number or type(found.n) is not int or found.n < 0:
        raise ValueError(f"{place}: {dict(stored)} is no value with its interval and number")
    if any(right < left - ROUNDING for left, right in pairwise(ends)):
        raise ValueError(f"{place}: the value {found.value} is outside {found.low} to {found.high}")
    return found
