"""Edits of scenes in a benchmark's form, whose results are judged exactly.

In: a seed and how many edits of each kind. Out: `edits.json` in ImgEdit's form, the images before,
and `scenes.json`, of which the same edits are made again: what is right is never read from a file.
A result is right when the edit is done and nothing else touched, by what `read_scene` reads in it.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image as PILImage

from unimodal.atomic import write_bytes
from unimodal.data.scenes.world import CANVASES, Scene, render, world_of
from unimodal.transcript import png_bytes

from ..answer import Answer
from ..scene_request import SceneRequest
from ..scene_requests import make_requests
from ..score import Prediction, by_kind, recipe
from ..vqa.source import Source, read_json
from .edits import Edit, edits_hash, read_edits
from .folder import Edited

EDITS, MADE, SOURCES = "edits.json", "scenes.json", "images"
UNKNOWN = "unknown"  # how results were made that somebody else made


@dataclass(frozen=True)
class SceneEdits:
    """What edits of scenes are made of."""

    seed: int
    samples: int
    """Of each kind of edit."""
    canvas: int
    """Pixels a side."""

    def problems(self) -> list[str]:
        """List what is wrong with the values, one sentence each."""
        least, most = CANVASES
        found = [] if self.samples >= 1 else [f"samples {self.samples}: at least 1"]
        found += [] if self.seed >= 0 else [f"seed {self.seed}: at least 0"]
        if not least <= self.canvas <= most:
            found.append(f"canvas {self.canvas}: {least} to {most} pixels a side")
        return found

    def requests(self) -> list[SceneRequest]:
        """Return the edits; ValueError for values that make none."""
        if self.problems():
            raise ValueError("; ".join(self.problems()))
        return make_requests("edits", self.samples, self.seed, world_of(self.canvas))


def write_scene_edits(folder: Path, made: SceneEdits) -> int:
    """Write the edits into a folder, and return how many there are."""
    requests = made.requests()
    (folder / SOURCES).mkdir(parents=True, exist_ok=True)
    for request in requests:
        assert isinstance(request.shown, Scene), "edits are of scenes"
        image = PILImage.fromarray(render(request.shown, made.canvas))
        write_bytes(folder / SOURCES / f"{_key(request)}.png", png_bytes(image))
    items = {_key(one): _item(one) for one in requests}
    write_bytes(folder / EDITS, f"{json.dumps(items, indent=1)}\n".encode())
    write_bytes(folder / MADE, f"{json.dumps(asdict(made))}\n".encode())
    return len(requests)


def read_scene_edits(folder: Path) -> tuple[list[Edit], list[SceneRequest]]:
    """Return the edits of a folder that `write_scene_edits` wrote, and what judges each.

    ValueError where the files are no such edits, or this version of the world makes others.
    """
    value = read_json(folder / MADE)
    if not isinstance(value, dict) or set(value) != set(SceneEdits.__dataclass_fields__):
        raise ValueError(f"{folder / MADE} is not of `unimodal eval editing scenes`")
    if not all(isinstance(one, int) and not isinstance(one, bool) for one in value.values()):
        raise ValueError(f"{folder / MADE}: {value} are not whole numbers")
    edits = read_edits(Source(folder / EDITS, folder), "imgedit")
    requests = SceneEdits(**value).requests()
    here = [(one.key, one.kind, one.instruction) for one in edits]
    if here != [(_key(one), one.kind, one.prompt) for one in requests]:
        raise ValueError(f"{folder / EDITS} was changed, or made by another version of the world")
    return edits, requests


def report_of(
    edited: Edited, requests: Sequence[SceneRequest], edited_by: str | None = None
) -> dict[str, Any]:
    """Return scores, recipe and predictions: the share of each kind that is done, and their mean.

    edited_by: the name of a model that is not ours.
    """
    judged = [
        _prediction(edit, request, Answer("", (image,)))
        for (edit, image), request in zip(edited.images(), requests, strict=True)
    ]
    settings = {
        "evaluation": "editing",
        **({"model": edited_by or UNKNOWN} | edited.recipe),
        "edits": edits_hash(edited.edits),
        "num_edits": len(judged),
        "results": edited.hash,
        "scorer": "read_scene: done, nothing else touched",
    }
    scores = {"editing_by_scenes": by_kind(judged)}
    return {"scores": scores, "recipe": recipe(**settings), "predictions": judged}


def _prediction(edit: Edit, request: SceneRequest, answer: Answer) -> Prediction:
    verdict = request.judge(answer)
    return {
        "id": edit.id, "kind": edit.kind, "prompt": edit.instruction,
        "expected": request.expected, "answer": verdict.answer, "right": not verdict.reason,
        "reason": verdict.reason, "held_out_words": request.held_out_words,
        "held_out_pair": request.held_out_pair,
    }  # fmt: skip


def _key(request: SceneRequest) -> str:
    return f"{request.number:06d}"


def _item(request: SceneRequest) -> dict[str, Any]:
    """Return an edit in ImgEdit's form."""
    image = f"{SOURCES}/{_key(request)}.png"
    return {"id": image, "prompt": request.prompt, "edit_type": request.kind}
