"""How much of what was asked for an answer shows: a number from 0 to 1, where a verdict is all or
nothing.

Each object that is asked for counts one, and so do the relation, the background and the number,
where they are asked for. 1 is a right answer (see `verdicts.py`); a share near 1 is a near miss.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from unimodal.data.scenes.edits import SAME_PLACE, Edit, done
from unimodal.data.scenes.layouts import Placed
from unimodal.data.scenes.requests import Request as DrawingRequest
from unimodal.data.scenes.requests import grants
from unimodal.data.scenes.wording import ground_agrees, read_parts
from unimodal.data.scenes.world import Scene, SceneObject

from .verdicts import is_in_place

W = TypeVar("W")
NEARLY = 0.99  # of an answer that has all its parts and yet is wrong


def share_granted(wanted: DrawingRequest, read: Scene) -> float:
    """Return how much of a request to draw a scene shows."""
    if grants(wanted, read):
        return 1.0
    singles = [claim for claim in wanted.claims for _ in range(claim.count)]
    found = matched(singles, read.objects, lambda claim, obj: claim.fits(obj))
    met, total = float(found), len(singles)
    if wanted.task == "counting":  # those too many weigh as those that lack
        claim = wanted.claims[0]
        total = max(total, sum(claim.fits(obj) for obj in read.objects))
    if wanted.relation is not None:
        total += 1  # it does not hold, or the request would be granted
    if wanted.background is not None:
        met += ground_agrees(wanted.background, read.background)
        total += 1
    return min(met / total, NEARLY)


def share_placed(wanted: Sequence[Placed], read: Scene) -> float:
    """Return how many of the things that have boxes stand in them."""
    return sum(is_in_place(thing, read) for thing in wanted) / len(wanted)


def share_done(wanted: Edit, read: Scene) -> float:
    """Return how much of the way from the scene before an edit to its result a scene has come; 1
    where it is done.

    What is no nearer to the result than the scene before, such as its copy, has come none of it: a
    share of the result alone would reward copies, which show most of it.
    """
    if done(wanted, read):
        return 1.0
    start, now = _alike(wanted.before, wanted.after), _alike(read, wanted.after)
    return min(max(now - start, 0.0) / (1 - start), NEARLY)


def _alike(one: Scene, other: Scene) -> float:
    """Return how many of two scenes' objects, and of their backgrounds, are the same: 0 to 1."""
    found = matched(one.objects, other.objects, _is_same)
    total = max(len(one.objects), len(other.objects)) + 1
    return (found + (one.background == other.background)) / total


def share_told(text: str, shown: Scene) -> float | None:
    """Return how many of a scene's objects a caption tells; None for a text that is none."""
    parts = read_parts(text)
    if parts is None:
        return None
    singles = [claim for claim in parts[0] for _ in range(claim.count)]
    found = matched(singles, shown.objects, lambda claim, obj: claim.fits(obj))
    return min(found / max(len(singles), len(shown.objects)), NEARLY)


def _is_same(wanted: SceneObject, found: SceneObject) -> bool:
    near = np.hypot(wanted.x - found.x, wanted.y - found.y) <= SAME_PLACE
    return wanted.attributes == found.attributes and bool(near)


def matched(
    wanted: Sequence[W], found: Sequence[SceneObject], fits: Callable[[W, SceneObject], bool]
) -> int:
    """Return how many of what is wanted can have a fitting object of its own.

    The largest matching of a bipartite graph, by augmenting paths (Kuhn, Naval Research Logistics
    Quarterly 2, 1955).
    """
    taken: dict[int, int] = {}  # which of the wanted has each found object

    def gets_one(at: int, tried: set[int]) -> bool:
        for place, obj in enumerate(found):
            if place in tried or not fits(wanted[at], obj):
                continue
            tried.add(place)
            if place not in taken or gets_one(taken[place], tried):
                taken[place] = at
                return True
        return False

    return sum(gets_one(at, set()) for at in range(len(wanted)))
