"""A folder of edited images, as the benchmarks' own scripts and GenEditEvalKit read it.

    1082.png                                    imgedit: a result by its key
    fullset/subject-add/en/KEY.png              gedit: by type, language and key
    fullset/subject-add/en/KEY_SRCIMG.png       gedit: the image before
    edited.jsonl                                ours: how they were edited, and the seed of each

In: a folder and the edits that were asked for. Out: `Edited`, complete, or one error that counts
and names what is missing, broken or of no edit: the official scripts pass over such images, and
score the others. (GenEditEvalKit reads `output/MODEL/imgedit/images` and `.../gedit/images`.)
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unimodal.tokenizer.pixels import ImageError, open_image

from ..predictions import read_predictions
from ..report import progress
from ..score import digest
from .edits import SOURCE, Edit, edits_hash

EDITED = "edited.jsonl"
MOST_TOLD = 5  # names of each problem in a message


@dataclass(frozen=True)
class Edited:
    """Edits with their results, and how these were made where that is known."""

    root: Path
    edits: tuple[Edit, ...]
    recipe: dict[str, Any]
    """Of `edited.jsonl`; empty for images that somebody else edited."""
    hash: str
    """SHA-256 of all results, in order."""

    def images(self) -> Iterator[tuple[Edit, np.ndarray]]:
        """Yield each edit with its result, uint8 (H, W, 3)."""
        for edit in self.edits:
            yield edit, np.asarray(open_image(result_file(self.root, edit)).image)


def result_file(root: Path, edit: Edit) -> Path:
    """Return where the result of an edit lies."""
    return root / f"{edit.place}.png"


def source_file(root: Path, edit: Edit) -> Path:
    """Return where GEdit's copy of the image before lies."""
    return root / f"{edit.place}{SOURCE}.png"


def read_folder(root: Path, edits: Sequence[Edit], needs_sources: bool = False) -> Edited:
    """Return what lies in a folder of the edits' results, every image opened; ValueError that says
    all that is missing, broken, or the result of no edit.

    needs_sources: whether the images before must lie there too, as GEdit's script wants it.
    """
    wanted = [result_file(root, edit) for edit in edits]
    if needs_sources:
        wanted += [source_file(root, edit) for edit in edits]
    hashes, missing, broken = [], [], []
    for file in progress(wanted, "images"):
        if not file.is_file():
            missing.append(str(file.relative_to(root)))
            continue
        content = file.read_bytes()
        hashes.append(hashlib.sha256(content).hexdigest())
        try:
            open_image(content)
        except ImageError as error:
            broken.append(f"{file.relative_to(root)} ({error})")
    known = {*wanted, *(source_file(root, edit) for edit in edits)}
    others = [str(f.relative_to(root)) for f in sorted(root.rglob("*.png")) if f not in known]
    problems = [
        f"{len(names)}{of} {what}: {', '.join(names[:MOST_TOLD])}"
        for names, of, what in (
            (missing, f" of {len(wanted)}", "images are missing"),
            (broken, f" of {len(wanted)}", "images are broken"),
            (others, "", "images are of no edit that was asked for"),
        )
        if names
    ]
    if problems:
        raise ValueError(f"{root} is not complete, so nothing is scored; {'; '.join(problems)}")
    return Edited(root, tuple(edits), _recipe(root, edits), digest(hashes[: len(edits)]))


def _recipe(root: Path, edits: Sequence[Edit]) -> dict[str, Any]:
    """Return how the folder was edited; ValueError where that was by other instructions."""
    if not (root / EDITED).exists():
        return {}
    recipe = read_predictions(root / EDITED)[0]
    if recipe.get("edits") != edits_hash(edits):
        raise ValueError(
            f"{root / EDITED} is of other edits: give the file that they were drawn by"
        )
    return recipe
