"""What drawing gains where the best of several drawings is kept, as the model itself judges them.

In: the evaluator of a part, its predictions, and how many candidates a request has. Out: scores of
the kept drawings beside those of the first ones, and predictions that tell all candidates.

1. The candidates of a request have the seeds s, s + 1, ..., as in a `Chat` with candidates. The
   first is the drawing that is scored without them: same words, same noise.
2. The model judges each by its own answers to questions made from the request's words
   (`unimodal/checking.py`), and the likeliest is kept. The readers of this evaluation have no part
   in that; a request about which nothing can be asked keeps its first drawing.
3. The reader judges what is kept, as all drawings; `any` says what a judge without error would
   have got out of the same candidates.
"""

from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from unimodal.checking import Judgement, best, judged
from unimodal.checks import checks_of
from unimodal.model import Model

from .answer import Answer, kept_image
from .intervals import share
from .run import Evaluator, Turns, run
from .scene_request import SceneRequest
from .score import Prediction, by_kind


@dataclass(frozen=True, eq=False)
class Candidate:
    """A further drawing of a request; the first one has number 0 and is the request's own."""

    request: SceneRequest
    number: int

    @property
    def id(self) -> str:
        """Return the request's id and the number."""
        return f"{self.request.id}/candidate-{self.number}"


class CandidateEvaluator(Evaluator[Candidate]):
    """Asks again for the drawings of a part that can be judged, with other noise."""

    def __init__(self, drawn: Evaluator[SceneRequest], num: int) -> None:
        self.name = f"{drawn.name}, candidates"
        self._drawn = drawn
        self._numbers = range(1, num)

    def requests(self) -> Sequence[Candidate]:
        """Return the further candidates of each request in turn."""
        asked = [one for one in self._drawn.requests() if is_checked(one)]
        return [Candidate(one, number) for one in asked for number in self._numbers]

    def turns(self, request: Candidate) -> Turns:
        """Say what the request says; the seed is its seed and the number."""
        turns = self._drawn.turns(request.request)
        turn = next(turns)
        seed = (turn.sampling.seed + request.number) % 2**64
        yield replace(turn, sampling=replace(turn.sampling, seed=seed))

    def score(self, request: Candidate, answer: Answer) -> Prediction:
        """Return the verdict of the request."""
        return self._drawn.score(request.request, answer)


def is_checked(request: SceneRequest) -> bool:
    """Return whether a request is for an image about which its words let something be asked."""
    return request.ideal is not None and bool(checks_of(request.prompt))


@dataclass(frozen=True, eq=False)
class Chosen:
    """A Chosen is one request with all its candidates' predictions and the one that was kept."""

    candidates: tuple[Prediction, ...]
    judgements: tuple[Judgement | None, ...]
    """None where a candidate has no image to be judged."""
    kept: int

    def prediction(self) -> Prediction:
        """Return the prediction of the first candidate, which tells the others too."""
        told = [
            {
                **{name: one[name] for name in ("answer", "right", "reason")},
                **{name: one[name] for name in ("codes", "latents") if name in one},
                "score": None if judgement is None else judgement.score,
                "unsatisfied": [] if judgement is None else [*judgement.unsatisfied],
            }
            for one, judgement in zip(self.candidates, self.judgements, strict=True)
        ]
        return {**self.candidates[0], "candidates": told, "kept": self.kept}


def chosen(
    model: Model,
    evaluator: Evaluator[SceneRequest],
    first: Sequence[Prediction],
    num: int,
    kept: MutableMapping[str, Prediction],
    batch: int,
) -> list[Chosen]:
    """Draw the further candidates of a part and let the model choose; `first` are the predictions
    of its requests, in order. Those in `kept` are not drawn again.
    """
    further = CandidateEvaluator(evaluator, num)
    drawn: dict[str, list[Prediction]] = {}
    for candidate, found in zip(further.requests(), run(model, further, kept, batch), strict=True):
        drawn.setdefault(candidate.request.id, []).append(found)
    return [
        _choose(model, request, (one, *drawn.get(request.id, ())))
        for request, one in zip(evaluator.requests(), first, strict=True)
    ]


def _choose(model: Model, request: SceneRequest, found: tuple[Prediction, ...]) -> Chosen:
    checks = checks_of(request.prompt) if is_checked(request) else ()
    judgements: dict[int, Judgement] = {}
    for number, one in enumerate(found):
        contents = one.get("latents") or one["codes"]
        if checks and contents:
            judgements[number] = judged(model, kept_image(model, contents[0]), checks)
    numbers = [*judgements]
    kept = numbers[best([*judgements.values()])] if numbers else 0
    return Chosen(found, tuple(map(judgements.get, range(len(found)))), kept)


def candidate_scores(found: Sequence[Chosen], num: int) -> dict[str, Any]:
    """Return the scores of the kept drawings, what they gain, what any of the candidates would
    score, and the share of requests that could be judged.
    """
    kept = [one.candidates[one.kept] for one in found]
    some = [{**one.candidates[0], "right": any(_right(one))} for one in found]
    gains = [
        {**one.candidates[0], "value": float(_right(one)[one.kept]) - float(_right(one)[0])}
        for one in found
    ]
    return {
        f"best_of_{num}": by_kind(kept),
        f"gain_of_best_of_{num}": by_kind(gains),
        f"any_of_{num}": by_kind(some),
        f"judged_of_{num}": share([any(one.judgements) for one in found]),
    }


def _right(one: Chosen) -> list[bool]:
    return [candidate["right"] for candidate in one.candidates]


def parts_that_draw(
    evaluators: "dict[str, Evaluator[Any]]",
) -> Iterator[tuple[str, Evaluator[SceneRequest]]]:
    """Yield the parts of one turn each that have a request which is judged, with their names."""
    for name, evaluator in evaluators.items():
        asked = [one for one in evaluator.requests() if isinstance(one, SceneRequest)]
        if any(map(is_checked, asked)):
            yield name, evaluator
