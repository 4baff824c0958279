"""The kinds of requests in the world of scenes, by name: `drawing/position`, `questions/count`."""

from collections.abc import Mapping

import numpy as np

from unimodal.data.scenes.edits import KINDS as EDITS
from unimodal.data.scenes.questions import KINDS as QUESTIONS
from unimodal.data.scenes.requests import TASKS
from unimodal.eval.scene_requests import LAYOUT

PARTS: dict[str, tuple[str, ...]] = {
    "drawing": tuple(f"drawing/{task}".replace(" ", "_") for task in TASKS),
    "questions": tuple(f"questions/{kind}" for kind in QUESTIONS),
    "captions": ("captions",),
    "edits": tuple(f"edits/{kind}" for kind in EDITS),
    LAYOUT: (LAYOUT,),
}
KINDS = tuple(kind for kinds in PARTS.values() for kind in kinds)


def kinds_of(name: str) -> tuple[str, ...]:
    """Return the kinds that a name in a mix stands for; ValueError where there are none."""
    found = PARTS.get(name) or ((name,) if name in KINDS else ())
    if not found:
        raise ValueError(f"{name}: no kind of request; one of {', '.join([*PARTS, *KINDS])}")
    return found


def shares(mix: Mapping[str, float]) -> dict[str, float]:
    """Return the share of each kind in a mix; they sum to 1."""
    weights: dict[str, float] = {}
    for name, weight in mix.items():
        kinds = kinds_of(name)
        for kind in kinds:
            weights[kind] = weights.get(kind, 0.0) + weight / len(kinds)
    total = sum(weights.values())
    return {kind: weight / total for kind, weight in weights.items()}


def draw(of_kinds: Mapping[str, float], rng: np.random.Generator) -> str:
    """Return a kind, drawn by these shares."""
    edges = np.cumsum(list(of_kinds.values()))
    at = int(np.searchsorted(edges, rng.random() * edges[-1], side="right"))
    return list(of_kinds)[at]
