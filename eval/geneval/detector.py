"""The middle layer: what a detector finds in each image of a folder, kept as JSON lines.

In: `Drawn` images and a `Detector`. Out: a file of detections that is scored without the images and
without the detector, today or later, here or elsewhere:

    {"recipe": {"detector": "scenes", "classes": [...], "num_prompts": 2, ...}}
    {"id": "00000/0000", "metadata": {...}, "boxes": {"cat": [[x1, y1, x2, y2, score]]},
     "colours": {"cat": ["red"]}}

1. A detector must first judge images right whose verdicts are known (`refuse_unproven`): detectors
   that were built or loaded wrongly have scored zero for everybody, without a word.
2. `detect` looks at the images that have no line yet. One that cannot be read is an error.
3. `read_detections` reads such a file, ours or anybody's, and takes nothing on trust.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..predictions import PredictionsFile, read_predictions
from ..report import progress
from .folder import Drawn, id_of, read_image
from .prompts import Prompt, prompt_of, prompts_hash
from .rules import Found, Rules, judge


@dataclass(frozen=True, eq=False)
class Known:
    """An image, uint8 (H, W, 3), with a prompt and the verdict that everybody would give."""

    name: str
    image_HW3: np.ndarray
    prompt: Prompt
    right: bool


class Detector(ABC):
    """Finds objects of its classes in images; numbers carry its name."""

    name: str
    classes: tuple[str, ...]

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return what the detections depend on: hashes, versions; JSON."""

    @abstractmethod
    def known(self) -> Sequence[Known]:
        """Return images that the detector must judge right before it may judge others."""

    @abstractmethod
    def find(self, image_HW3: np.ndarray, prompt: Prompt) -> Found:
        """Return what is in an image, uint8; with the colours that the prompt's verdict needs."""


@dataclass(frozen=True, eq=False)
class Detections:
    """What a file of detections holds: of each image its prompt and what was found."""

    recipe: dict[str, Any]
    images: dict[str, tuple[Prompt, Found]]
    """By id, in order."""
    hashes: dict[str, Any]
    """SHA-256 (hex) of each image's file by id; None where nobody recorded it."""


def refuse_unproven(detector: Detector) -> None:
    """Raise ValueError when the detector judges a known image wrongly, and say which and why."""
    wrong = []
    known = detector.known()
    for one in known:
        verdict = judge(one.prompt, detector.find(one.image_HW3, one.prompt), Rules())
        if verdict.right != one.right:
            why = verdict.reason.replace("\n", "; ") or "judged right"
            wrong.append(f"{one.name}, {one.prompt.text!r}: {why}")
    assert known, f"{detector.name} has no known images"
    if wrong:
        raise ValueError(
            f"the detector {detector.name} is wrong on {len(wrong)} of {len(known)} known images "
            f"({' | '.join(wrong)}): its scores would mean nothing; check its weights"
        )


def check_asked(detector: Detector, prompts: Sequence[Prompt]) -> None:
    """Raise ValueError for a class that the detector does not know, and a detector that is
    unproven.
    """
    _check_classes(prompts, detector.classes, detector.name)
    refuse_unproven(detector)


def detect(drawn: Drawn, detector: Detector, file: Path, settings: Mapping[str, Any]) -> None:
    """Find the objects of all images, those that the file lacks, after the known ones.

    settings: more of the recipe, such as the rewriter of images that somebody else drew. ValueError
    for a class that the detector does not know, a detector that is unproven, an image that is
    broken or was changed since it was looked at, and a file of other detections.
    """
    check_asked(detector, drawn.prompts)
    recipe = _recipe(drawn, detector) | dict(settings)
    with PredictionsFile(file, recipe) as kept:
        for id, _, path in drawn.images():
            if id in kept and kept[id].get("image") not in (None, _hash(path)):
                raise ValueError(
                    f"{path} is not the image that {file} has detections of: it was changed; "
                    f"remove {file} to detect again"
                )
        images = [one for one in drawn.images() if one[0] not in kept]
        for id, prompt, path in progress(images, f"detecting ({detector.name})"):
            found = detector.find(read_image(path), prompt)
            kept[id] = {"metadata": prompt.json(), "image": _hash(path), **found.json()}


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _recipe(drawn: Drawn, detector: Detector) -> dict[str, Any]:
    """Return what the detections depend on: how the images were drawn, and who looked at them."""
    return {
        **drawn.recipe,
        "prompts": prompts_hash(drawn.prompts),
        "num_prompts": len(drawn.prompts),
        "samples_per_prompt": drawn.samples,
        "detector": detector.name,
        "classes": list(detector.classes),
        **detector.settings(),
    }


def read_detections(file: Path, prompts: Sequence[Prompt] | None = None) -> Detections:
    """Return the detections of a file; of `prompts`, where these are given, and of no others.

    The recipe must name the detector and its classes, and how many prompts and samples there are.
    ValueError for what is missing, unknown or no number, with its line's id.
    """
    recipe, lines = read_predictions(file)
    for name, kind in (("detector", str), ("classes", list)):
        if not isinstance(recipe.get(name), kind) or not recipe[name]:
            raise ValueError(f"{file}: its recipe has no {name}; the first line must say it")
    if not all(isinstance(name, str) for name in recipe["classes"]):
        raise ValueError(f"{file}: classes of its recipe are names, not {recipe['classes']!r:.80}")
    counts = {
        "num_prompts": None if prompts is None else len(prompts),
        "samples_per_prompt": None,
    }
    for name, known in counts.items():
        count = recipe.setdefault(name, known)
        if not isinstance(count, int) or count < 1 or known not in (None, count):
            told = f", not the {known} of --prompts" if known is not None else ""
            raise ValueError(f"{file}: {name} of its recipe is {count!r}{told}")
    ids = _ids(file, recipe["num_prompts"], recipe["samples_per_prompt"], lines)
    images = {id: _image(lines[id], f"{file}, {id}") for id in ids}
    found = Detections(recipe, images, {id: lines[id].get("image") for id in ids})
    _check_prompts(file, found, prompts)
    return found


def check_images(found: Detections, drawn: Drawn) -> None:
    """Raise ValueError unless a folder holds the images of the detections: of their prompts and,
    where these were recorded, of their hashes.
    """
    there = {id: (prompt, path) for id, prompt, path in drawn.images()}
    for id, (prompt, _) in found.images.items():
        of, path = there.get(id, (None, drawn.root))
        if of != prompt or found.hashes[id] not in (None, _hash(path)):
            why = f"{path} is another image" if of == prompt else f"it is not in {drawn.root}"
            raise ValueError(
                f"detections are there of the image {id} of {prompt.text!r}, and {why}: give the "
                "folder that was looked at"
            )


def _ids(file: Path, prompts: int, samples: int, lines: Mapping[str, Any]) -> list[str]:
    """Return the ids of all images in order; ValueError unless each has a line, and no other has.

    More ids than there are lines are not listed: a recipe may claim any number.
    """
    total = prompts * samples
    every = (id_of(number, sample) for number in range(prompts) for sample in range(samples))
    found = list(islice(every, len(lines) + 1))
    others = sorted(set(lines) - set(found), key=str)
    if others and len(found) == total:
        raise ValueError(
            f"{file} has an image {others[0]!r}, which its recipe does not know: ids go from "
            f"{found[0]} to {found[-1]}"
        )
    missing = [id for id in found if id not in lines]
    if missing:
        raise ValueError(
            f"{file} lacks {total - len(lines)} of {total} images, {missing[0]} first: it is "
            "half-finished, detect again to go on"
        )
    return found


def _image(line: Mapping[str, Any], place: str) -> tuple[Prompt, Found]:
    if not isinstance(line.get("boxes"), dict) or "metadata" not in line:
        raise ValueError(f"{place} has no boxes or no metadata: {sorted(line)}")
    return prompt_of(line["metadata"], place), Found.of(line, place)


def _check_prompts(file: Path, found: Detections, prompts: Sequence[Prompt] | None) -> None:
    """Raise ValueError where images are of other prompts, or classes are not the detector's."""
    known = set(found.recipe["classes"])
    first = {id.partition("/")[0]: prompt for id, (prompt, _) in reversed(found.images.items())}
    _check_classes(list(first.values()), found.recipe["classes"], found.recipe["detector"])
    for id, (prompt, boxes) in found.images.items():
        folder = id.partition("/")[0]
        wanted = first[folder] if prompts is None else prompts[int(folder)]
        if prompt != wanted:
            raise ValueError(f"{file}, {id} is of {prompt.text!r}, not of {wanted.text!r}")
        unknown = [name for name in boxes.boxes if name not in known]
        if unknown:
            raise ValueError(f"{file}, {id}: {unknown[0]!r} is none of the detector's classes")


def _check_classes(prompts: Sequence[Prompt], classes: Sequence[str], detector: str) -> None:
    known = set(classes)
    for prompt in prompts:
        unknown = [name for name in prompt.names if name not in known]
        if unknown:
            raise ValueError(
                f"{prompt.text!r} asks for {unknown[0]!r}, which the detector {detector} does not "
                f"know: it knows {', '.join(classes[:8])}{', ...' if len(classes) > 8 else ''}"
            )
