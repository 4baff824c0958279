"""GenEval's verdict on an image, from what a detector found in it; in plain numpy.

In: a `Prompt`, `Found` boxes and the `Rules`' thresholds. Out: whether the image is right, why not,
and which boxes were kept. The same decisions, in the same order and words, as `evaluate_images.py`
of djghosh13/geneval at af4902f (Ghosh et al. 2023, arXiv 2310.11513), which golden vectors show:

1. Of each class the boxes with a score above a threshold are kept, the surest first, at most 16.
2. An object that is wanted is looked for in the surest boxes alone, as many as are wanted.
3. Their colours must be the one that is asked for, and every one of them must stand in the
   relation that is asked for to every box of its target, which must itself be right.
4. As many boxes as are excluded, or more, are wrong.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from unimodal.data.scenes.requests import POSITION_THRESHOLD, RELATIONS, box_relations

from .prompts import COLOURS, Prompt, Wanted

NO_COLOUR = "none"  # of an object that was looked at and has none of COLOURS
SCORER = "geneval af4902f"  # whose rules these are; it stands in every result


@dataclass(frozen=True)
class Rules:
    """The thresholds of a verdict; the official ones by default."""

    confidence: float = 0.3
    """A box counts if its score is above this,"""
    counting_confidence: float = 0.9
    """or above this where objects are counted."""
    most_objects: int = 16
    """Boxes kept of a class."""
    most_overlap: float = 1.0
    """Boxes that overlap a surer one by this (intersection over union) are dropped; 1: none is."""

    def problems(self) -> list[str]:
        """Return what is wrong with the values."""
        shares = ("confidence", "counting_confidence", "most_overlap")
        wrong = [name for name in shares if not 0 <= getattr(self, name) <= 1]
        found = [f"{name} {getattr(self, name)}: give 0 to 1" for name in wrong]
        if self.most_objects < 1:
            found.append(f"most_objects {self.most_objects}: give at least 1")
        return found

    def least(self, tag: str) -> float:
        """Return the score that a box must exceed for a prompt of this tag."""
        return self.counting_confidence if tag == "counting" else self.confidence

    def json(self) -> dict[str, float]:
        """Return the thresholds as a result holds them, the position rule's among them."""
        return {
            "confidence": self.confidence,
            "counting_confidence": self.counting_confidence,
            "most_objects": self.most_objects,
            "most_overlap": self.most_overlap,
            "position_threshold": POSITION_THRESHOLD,
        }


@dataclass(frozen=True, eq=False)
class Found:
    """What a detector found: boxes of each class, float64 (N, 5), as (x1, y1, x2, y2, score).

    `colours` names a box's colour at its place, None where it was not looked at.
    """

    boxes: Mapping[str, np.ndarray]
    colours: Mapping[str, list[str | None]] = field(default_factory=dict)
    note: str = ""
    """What the detector says of the image: why a scene cannot be read."""

    def json(self) -> dict[str, Any]:
        """Return boxes, colours and note as JSON."""
        boxes = {name: boxes_N5.tolist() for name, boxes_N5 in self.boxes.items()}
        return {"boxes": boxes, "colours": dict(self.colours), "note": self.note}

    @classmethod
    def of(cls, value: Mapping[str, Any], place: str) -> Self:
        """Return what a line of recorded detections holds; `place` names it in errors.

        ValueError for boxes that are no boxes, scores that are no probabilities (NaN, above 1) and
        unknown colours.
        """
        boxes = {name: _boxes(rows, f"{place}: {name}") for name, rows in value["boxes"].items()}
        colours, note = value.get("colours", {}), value.get("note", "")
        if not isinstance(colours, dict) or not isinstance(note, str):
            raise ValueError(f"{place}: colours are lists by class, and a note is text")
        for name, named in colours.items():
            if not isinstance(named, list):
                raise ValueError(f"{place}: the colours of {name} are a list, not {named!r:.80}")
            if len(named) != len(boxes.get(name, ())):
                raise ValueError(
                    f"{place}: {len(named)} colours of {name}, one for each box is due"
                )
            unknown = [colour for colour in named if colour not in (None, NO_COLOUR, *COLOURS)]
            if unknown:
                raise ValueError(f"{place}: no colour {unknown[0]!r}; {', '.join(COLOURS)} are")
        return cls(boxes, colours, note)


@dataclass(frozen=True)
class Verdict:
    """Whether an image is right, why not (lines of the official words), and the boxes kept."""

    right: bool
    reason: str
    kept: dict[str, list[list[float]]]


def judge(prompt: Prompt, found: Found, rules: Rules) -> Verdict:
    """Return the verdict on an image of the prompt.

    ValueError where a colour is needed that was not recorded.
    """
    kept = {
        name: kept_places(boxes_N5, rules.least(prompt.tag), rules)
        for name, boxes_N5 in found.boxes.items()
    }
    reasons: list[str] = []
    groups: list[np.ndarray | None] = []
    for wanted in prompt.include:
        places = kept.get(wanted.name, [])[: wanted.count]
        why = _why_not(wanted, places, found, groups)
        reasons += [why] if why else []
        groups.append(None if why else found.boxes[wanted.name][places])
    for name, count in prompt.exclude:
        number = len(kept.get(name, []))
        if number >= count:
            reasons.append(f"expected {name}<{count}, found {number}")
    told = {name: found.boxes[name][places].tolist() for name, places in kept.items() if places}
    return Verdict(not reasons, "\n".join(reasons), told)


def kept_places(boxes_N5: np.ndarray, least: float, rules: Rules) -> list[int]:
    """Return the places of the boxes that are kept, the surest first."""
    scores_N = boxes_N5[:, 4].astype(np.float32)  # the official detector's, and so its threshold's
    order = np.argsort(scores_N, kind="stable")[::-1]
    left = order[scores_N[order] > np.float32(least)][: rules.most_objects].tolist()
    kept: list[int] = []
    while left:
        first = left.pop(0)
        kept.append(first)
        if rules.most_overlap != 1:
            left = [k for k in left if iou(boxes_N5[first], boxes_N5[k]) < rules.most_overlap]
    return kept


def to_colour(
    prompt: Prompt, boxes: Mapping[str, np.ndarray], rules: Rules
) -> dict[str, list[int]]:
    """Return the places of the boxes whose colours the verdict needs, by class."""
    needed: dict[str, list[int]] = {}
    for wanted in prompt.include:
        if wanted.colour is not None and wanted.name in boxes:
            places = kept_places(boxes[wanted.name], rules.least(prompt.tag), rules)
            before = needed.get(wanted.name, [])
            needed[wanted.name] = places[: max(wanted.count, len(before))]
    return needed


def iou(a_5: np.ndarray, b_5: np.ndarray) -> float:
    """Return intersection over union of two boxes, whose last pixels count as inside."""
    low_2, high_2 = np.maximum(a_5[:2], b_5[:2]), np.minimum(a_5[2:4], b_5[2:4])
    inter = _area(low_2, high_2)
    union = _area(a_5[:2], a_5[2:4]) + _area(b_5[:2], b_5[2:4]) - inter
    return inter / union if union else 0.0


def relative_position(a_5: np.ndarray, b_5: np.ndarray) -> frozenset[str]:
    """Return which RELATIONS box a has to box b."""
    dx, dy = ((a_5[:2] + a_5[2:4]) / 2 - (b_5[:2] + b_5[2:4]) / 2).tolist()
    widths, heights = (np.abs(a_5[2:4] - a_5[:2]) + np.abs(b_5[2:4] - b_5[:2])).tolist()
    return box_relations(dx, dy, widths, heights)


def _why_not(
    wanted: Wanted, places: list[int], found: Found, groups: list[np.ndarray | None]
) -> str:
    """Return why the boxes at these places are not what is wanted; '' when they are."""
    if len(places) < wanted.count:
        return f"expected {wanted.name}>={wanted.count}, found {len(places)}"
    if wanted.colour is not None:
        why = _why_not_coloured(wanted, [_colour(wanted.name, place, found) for place in places])
        if why:
            return why
    if wanted.position is None:
        return ""
    relation, target = wanted.position
    target_N5 = groups[target]
    if target_N5 is None:
        return f"no target for {wanted.name} to be {relation}"
    return _why_not_placed(wanted.name, relation, found.boxes[wanted.name][places], target_N5)


def _why_not_coloured(wanted: Wanted, colours: list[str]) -> str:
    right = colours.count(str(wanted.colour))
    if right >= wanted.count:
        return ""
    told = ", ".join(f"{colours.count(c)} {c}" for c in COLOURS if c in colours)
    return (
        f"expected {wanted.colour} {wanted.name}>={wanted.count}, "
        f"found {right} {wanted.colour}; and {told}"
    )


def _why_not_placed(name: str, relation: str, boxes_N5: np.ndarray, target_N5: np.ndarray) -> str:
    for box_5 in boxes_N5:
        for target_5 in target_N5:
            true = relative_position(box_5, target_5)
            if relation not in true:
                told = " and ".join(one for one in RELATIONS if one in true)
                return f"expected {name} {relation} target, found {told} target"
    return ""


def _colour(name: str, place: int, found: Found) -> str:
    colours = found.colours.get(name, [])
    colour = colours[place] if place < len(colours) else None
    if colour is None:
        raise ValueError(
            f"the colour of {name} at {found.boxes[name][place][:4].tolist()} was not recorded"
        )
    return colour


def _area(low_2: np.ndarray, high_2: np.ndarray) -> float:
    width, height = np.maximum(high_2 - low_2 + 1, 0)
    return float(width * height)


def _boxes(rows: Any, place: str) -> np.ndarray:
    """Return boxes (N, 5) of JSON; ValueError for anything else, and for what no detector finds."""
    try:
        if not all(type(one) in (int, float) for row in rows for one in row):
            raise TypeError("a box is of numbers")
        boxes_N5 = np.array(rows, dtype=np.float64).reshape(len(rows), 5)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{place}: {rows!r}; a box is [x1, y1, x2, y2, score]") from error
    for box_5 in boxes_N5:
        if not np.isfinite(box_5).all() or not 0 <= box_5[4] <= 1:
            raise ValueError(f"{place}: box {box_5.tolist()}; its score must be 0 to 1, and no NaN")
        if (box_5[2:4] < box_5[:2]).any():
            raise ValueError(f"{place}: box {box_5.tolist()} ends before it begins")
    return boxes_N5
