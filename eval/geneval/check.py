"""Whether our verdicts are GenEval's own: golden vectors, made by running the official script.

In: a file of them, `{"images": [...], "relative_position": [...]}`. Out: a line for each that we
judge otherwise; none is right.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..json_text import parsed
from .prompts import prompt_of
from .rules import Found, Rules, iou, judge, relative_position

IOU_DECIMALS = 6  # written to so many, or more


def check(path: Path) -> list[str]:
    """Return every disagreement with the golden vectors of a file, in words.

    ValueError where the file is none of golden vectors, or has none. A colour that we would look
    at, and the official script did not, is a disagreement.
    """
    try:
        vectors = parsed(path.read_text(encoding="utf-8"))
        images, boxes = vectors["images"], vectors["relative_position"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} has no GenEval golden vectors: it lacks {error}") from error
    except ValueError as error:
        raise ValueError(f"{path} has no GenEval golden vectors: {error}") from error
    if not images or not boxes:
        raise ValueError(f"{path} has no GenEval golden vectors: it checks nothing")
    try:
        return [*_images(images), *_positions(boxes)]
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} has a golden vector that lacks something: {error!r}") from error


def _images(vectors: list[dict[str, Any]]) -> Iterator[str]:
    for number, vector in enumerate(vectors):
        place = f"images[{number}]"
        prompt = prompt_of(vector["metadata"], f"{place}.metadata")
        found = _found(vector, place)
        try:
            verdict = judge(prompt, found, Rules())
        except ValueError as error:  # a colour is needed that is not recorded
            yield f"{place} ({prompt.text}): {error}"
            continue
        pairs = {
            "correct": (verdict.right, vector["correct"]),
            "reason": (_unordered(verdict.reason), _unordered(vector["reason"])),
            "kept": (verdict.kept, vector["kept"]),
        }
        for name, (ours, theirs) in pairs.items():
            if ours != theirs:
                yield f"{place} ({prompt.text}): {name} is {ours!r}, not {theirs!r}"


def _positions(vectors: list[dict[str, Any]]) -> Iterator[str]:
    for number, vector in enumerate(vectors):
        a_4, b_4 = np.array(vector["a"], np.float64), np.array(vector["b"], np.float64)
        true = sorted(relative_position(a_4, b_4))
        if true != sorted(vector["a_relative_to_b"]):
            yield f"relative_position[{number}]: {true}, not {vector['a_relative_to_b']}"
        overlap = iou(a_4, b_4)
        if round(overlap - vector["iou"], IOU_DECIMALS) != 0:
            yield f"relative_position[{number}]: iou is {overlap}, not {vector['iou']}"


def _found(vector: Mapping[str, Any], place: str) -> Found:
    """Return a vector's detections; it names a box's colour under the box's score."""
    raw, named = vector["raw_detections"], vector["color_by_score"]
    colours = {
        name: [named[name].get(f"{box[4]:.4f}") for box in boxes]
        for name, boxes in raw.items()
        if name in named
    }
    return Found.of({"boxes": raw, "colours": colours}, place)


def _unordered(reason: str) -> list[frozenset[str]]:
    """Return the words of each line: the official script joins relations in a set's order."""
    return [frozenset(line.split()) for line in reason.split("\n")]
