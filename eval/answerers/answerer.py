"""Whoever answers questions about images in words, other than a model of ours.

In: `Question`s, documents of texts and images in the order in which they are shown. Out: words, one
for each. `answers_of` does for an `Answerer` what `run.py` does for a `Model`; all else (requests,
predictions, ranks, scores) is the same.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from unimodal.document import Document

from ..answer import Answer

if TYPE_CHECKING:
    from ..run import Evaluator, Request, Turn

    R = TypeVar("R", bound=Request)

UNKNOWN = "unknown"  # a revision or hash that cannot be known


@dataclass(frozen=True, eq=False)
class Question:
    """One question: the texts and images (with pixels) of the user's turn, and its request's id."""

    id: str
    document: Document


class Answerer(ABC):
    """Answers questions; how many at a time changes no answer."""

    kind: ClassVar[str]
    """What sort of answerer it is, as a result names it."""
    is_recorded: ClassVar[bool] = False
    """Whether its answers are there already, so that it can be asked nothing else."""

    @abstractmethod
    def identity(self) -> dict[str, str]:
        """Return `model` (its name), `revision` and `hash`, UNKNOWN where nobody can know."""

    @abstractmethod
    def answers(self, questions: Sequence[Question], max_tokens: int) -> list[str]:
        """Return the answers in order, of so many tokens at most, the likeliest token always.

        Raise ValueError where a question cannot be answered, and say which.
        """

    def check(self, ids: Sequence[str]) -> None:
        """Raise ValueError where it is known before that some of all questions have no answer."""
        return None

    def settings(self) -> dict[str, Any]:
        """Return what its answers depend on, as JSON."""
        return {"answerer": self.kind, **self.identity()}


def answers_of(
    answerer: Answerer, evaluator: "Evaluator[R]", requests: Sequence["R"], batch: int
) -> "Iterator[tuple[R, Answer]]":
    """Yield each request with its answer in words, `batch` of them asked at a time."""
    waiting = iter(requests)
    while some := list(islice(waiting, batch)):
        turns = [_only_turn(evaluator, request) for request in some]
        most = {turn.sampling.max_text_tokens for turn in turns}
        assert len(most) == 1, f"answers of {most} tokens in one evaluation"
        asked = [Question(one.id, turn.document) for one, turn in zip(some, turns, strict=True)]
        said = answerer.answers(asked, most.pop())
        for request, text in zip(some, said, strict=True):
            yield request, Answer(text.strip())


def _only_turn(evaluator: "Evaluator[R]", request: "R") -> "Turn":
    """Return the one turn of a request, which wants words."""
    turns = evaluator.turns(request)
    turn = next(turns)
    assert turn.modality == "text", f"{request.id}: other people's models answer in words alone"
    assert next(turns, None) is None, f"{request.id} has several turns"
    return turn
