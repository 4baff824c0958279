"""The one loop that puts requests to a model: batched, resumable, and divided among ranks.

In: an `Evaluator`, which says what to ask and how to judge, and a model, ours or an `Answerer` of
other people's. Out: one prediction for each request, kept as soon as it is known.

1. `Evaluator.requests` names what is asked. Those whose predictions are there are passed over.
2. `Evaluator.turns` holds the conversation of a request: it yields a `Turn` to answer and is sent
   the parts of the reply, until it returns. Most requests have one turn.
3. Images that have no codes are encoded, `batch` requests are answered at a time (on a CPU by
   several processes: processes.py), and images that were drawn are decoded. The noise of a turn is
   its sampling's seed alone, so that an answer depends on no batch size, no neighbour and no rank.
4. `Evaluator.score` judges the answer; `Evaluator.summary` makes scores of all predictions.

Conversations that go on are answered together with new ones. A few thousand are open at a time,
so that a large prompt set needs no large memory.
"""

import zlib
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from unimodal.document import Document, Part
from unimodal.events import ReplyDone
from unimodal.generation import Generation
from unimodal.grammar import Modality
from unimodal.model import Model
from unimodal.sampling import Sampling

from .answer import Answer
from .answerers.answerer import Answerer, answers_of
from .processes import answered, num_processes
from .report import bar
from .score import Prediction, by_kind

MAX_OPEN = 2048  # requests whose documents are in memory


@dataclass(frozen=True, eq=False)
class Turn:
    """A conversation to answer and how: `modality` 'text' or 'image' allows nothing else."""

    document: Document  # its images as pixels, as codes, or both
    sampling: Sampling
    modality: Modality | None = None


Turns = Generator[Turn, tuple[Part, ...], None]


class Request(Protocol):
    """Anything that is asked: a value of the evaluator's own, known by its id."""

    @property
    def id(self) -> str:
        """Return the name of this request, the same in every run, unlike any other's."""


R = TypeVar("R", bound=Request)


class Evaluator(ABC, Generic[R]):
    """Says what to ask of a model, judges its answers and sums them up."""

    name: str  # of what is evaluated, as the progress bar shows it

    @abstractmethod
    def requests(self) -> Iterable[R]:
        """Return all requests, whoever asks them; a pure function of the evaluator."""

    @abstractmethod
    def turns(self, request: R) -> Turns:
        """Yield what the model is to answer; each `yield` is worth the parts of the reply.

        Images of the reply have pixels and codes, so that the next turn may contain them.
        """

    def shown(self, request: R) -> np.ndarray | None:
        """Return the image that a request begins with, uint8 (H, W, 3); here there is none."""
        return None

    @abstractmethod
    def score(self, request: R, answer: Answer) -> Prediction:
        """Return the verdict on the answer of the last turn, `answer.earlier` before it."""

    def summary(self, predictions: Sequence[Prediction]) -> dict[str, Any]:
        """Return scores as nested estimates: here the mean of each kind and their mean."""
        return by_kind(predictions)


def run(
    model: Model | Answerer,
    evaluator: Evaluator[R],
    predictions: MutableMapping[str, Prediction] | None = None,
    batch: int = 32,
    rank: int = 0,
    world_size: int = 1,
) -> list[Prediction]:
    """Answer and judge the requests of a rank, and return their predictions in order.

    predictions: those that are there already, by id; every new one is added as soon as it is
    known. A `PredictionsFile` keeps them. None: begin with none. batch: how many requests are
    answered at a time. Ranks divide the requests by id and need not know of each other.

    Raises ValueError when two requests share an id, when there is no such rank, and when a
    conversation leaves no room for its reply.
    """
    if not 0 <= rank < world_size:
        raise ValueError(f"rank {rank} of {world_size}: ranks are 0 to {world_size - 1}")
    kept = {} if predictions is None else predictions
    mine = [one for one in _distinct(evaluator) if rank_of(one.id, world_size) == rank]
    missing = [request for request in mine if request.id not in kept]
    if isinstance(model, Answerer):
        answers = answers_of(model, evaluator, missing, batch)
    else:
        processes = num_processes(model, batch, len(missing))
        each = partial(_answers, model, evaluator, batch=-(-batch // processes))
        answers = answered(each, missing, processes)
    with bar(len(missing), evaluator.name) as advance:
        for request, answer in answers:
            kept[request.id] = evaluator.score(request, answer)
            advance()
    return [kept[request.id] for request in mine]


def rank_of(id: str, world_size: int) -> int:
    """Return the rank that asks the request of this id."""
    return zlib.crc32(id.encode()) % world_size


def _distinct(evaluator: Evaluator[R]) -> Iterable[R]:
    """Return the evaluator's requests; ValueError when an id stands for two of them."""
    found: dict[str, R] = {}
    for request in evaluator.requests():
        if request.id in found:
            raise ValueError(f"{evaluator.name}: two requests have the id {request.id!r}")
        found[request.id] = request
    return found.values()


class _Conversation(Generic[R]):
    """A request being asked: the turn that waits for its reply, and the answer so far."""

    def __init__(self, request: R, turns: Turns) -> None:
        self.request, self._turns = request, turns
        self.turn: Turn | None = next(turns, None)
        assert self.turn is not None, f"request {request.id} asks nothing"
        self.answers: tuple[Answer, ...] = ()

    def go_on(self, parts: tuple[Part, ...]) -> None:
        """Take the reply to the turn; `turn` is the next one, or None when all is said."""
        self.answers += (Answer.of(parts, earlier=self.answers),)
        try:
            self.turn = self._turns.send(parts)
        except StopIteration:
            self.turn = None


def _answers(
    model: Model, evaluator: Evaluator[R], requests: Sequence[R], batch: int
) -> Iterator[tuple[R, Answer]]:
    """Yield each request with its answer, in the order in which they are finished.

    Conversations that go on stand in the queue with new ones, of which a few are ready.
    """
    generation = Generation(model, batch)
    waiting = (_Conversation(request, evaluator.turns(request)) for request in requests)
    asked: dict[int, _Conversation[R]] = {}
    while True:
        while len(asked) < MAX_OPEN and (some := list(islice(waiting, batch))):
            asked |= _ask(model, generation, some)
        if generation.idle:
            return
        done = [event for event in generation.step() if isinstance(event, ReplyDone)]
        finished = [asked.pop(event.request) for event in done]
        replies = model.codec.decode_documents([Document(event.parts) for event in done])
        for conversation, reply in zip(finished, replies, strict=True):
            conversation.go_on(reply.parts)
            if conversation.turn is None:
                yield conversation.request, conversation.answers[-1]
        going_on = [one for one in finished if one.turn is not None]
        asked |= _ask(model, generation, going_on)


def _ask(
    model: Model, generation: Generation, conversations: "Sequence[_Conversation[R]]"
) -> "dict[int, _Conversation[R]]":
    """Put conversations into the queue, their images encoded together; return them by number."""
    turns = [one.turn for one in conversations if one.turn is not None]
    documents = model.codec.encode_documents([turn.document for turn in turns])
    asked = {}
    for conversation, turn, document in zip(conversations, turns, documents, strict=True):
        asked[generation.submit(document, turn.sampling, turn.modality)] = conversation
    return asked
