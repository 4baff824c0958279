"""How much of what an exam of scenes or things asks and shows was in training shards.

In: the evaluators of an exam, by part, and shards. Out: counts and examples, as `overlap.py` has
them. Training draws its requests from the same grammar, so that short ones recur word for word;
what an exam must not share with it are items: a request together with the image that it is about.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from .overlap import Picture, Probe, overlap
from .scene_request import BLIND


class Asked(Protocol):
    """A request of an exam: its id, and what is said first."""

    @property
    def id(self) -> str: ...
    @property
    def prompt(self) -> str: ...


class Shows(Protocol):
    """An evaluator whose requests may begin with an image."""

    def requests(self) -> Iterable[Any]: ...
    def shown(self, request: Any) -> np.ndarray | None: ...


def exam_overlap(evaluators: Mapping[str, Shows], training: Sequence[str]) -> dict[str, Any] | None:
    """Return how much of the requests of all parts is in training shards; None without shards.

    Of a conversation the first turn counts; questions without their images are those with them.
    ValueError (ShardError) where there are no shards.
    """
    if not training:
        return None
    asked = list(_asked(evaluators))
    probes = [
        Probe(request.id, request.prompt, () if one.shown(request) is None else (request.id,))
        for one, request in asked
    ]
    return overlap(probes, _images(asked), training)


def _asked(evaluators: Mapping[str, Shows]) -> Iterator[tuple[Shows, Asked]]:
    for part, one in evaluators.items():
        if part != BLIND:
            yield from ((one, request) for request in one.requests())


def _images(asked: Iterable[tuple[Shows, Asked]]) -> Iterator[tuple[str, Picture]]:
    for one, request in asked:
        image = one.shown(request)
        if image is not None:
            yield request.id, image
