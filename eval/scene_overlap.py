"""How much of what an exam of scenes or things asks and shows was in training shards.

In: the evaluators of an exam, by part, and shards. Out: counts and examples, as `overlap.py` has
them. Training draws its requests from the same grammar, so that short ones recur word for word;
what an exam must not share with it are items: a request together with the image that it is about.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from .overlap import Picture, Probe, overlap
from .run import Evaluator
from .scene_request import BLIND


def exam_overlap(
    evaluators: Mapping[str, Evaluator[Any]], training: Sequence[str]
) -> dict[str, Any] | None:
    """Return how much of the requests of all parts is in training shards; None without shards.

    Requests have an id and a prompt. Of a conversation the first turn counts; questions without
    their images are those with them. ValueError (ShardError) where there are no shards.
    """
    if not training:
        return None
    asked = list(_asked(evaluators))
    probes = [
        Probe(request.id, request.prompt, () if one.shown(request) is None else (request.id,))
        for one, request in asked
    ]
    return overlap(probes, _images(asked), training)


def _asked(evaluators: Mapping[str, Evaluator[Any]]) -> Iterator[tuple[Evaluator[Any], Any]]:
    for part, one in evaluators.items():
        if part != BLIND:
            yield from ((one, request) for request in one.requests())


def _images(asked: Iterable[tuple[Evaluator[Any], Any]]) -> Iterator[tuple[str, Picture]]:
    for one, request in asked:
        image = one.shown(request)
        if image is not None:
            yield request.id, image
