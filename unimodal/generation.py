"""Replies to conversations: one loop for text and images, many requests at once, as they come.

In: documents that the assistant is to answer, at any time (`Generation.submit`). Out, step by step:
events, then each reply's parts.

1. Every request is laid out and checked when it comes. A request is a branch of the batch; while it
   draws with guidance it has a second, unconditional one: its prompt without the user's text.
2. A step lets each branch read what it has not read: a prompt at first, later what was sampled and
   the ids that must follow it, so that a forced id costs no step of its own. Equal prompts are
   read once.
3. Requests in the same state of the grammar are sampled together, from the slice of the output
   table that may follow. Inside an image its head draws (heads/head.py): what it asks for is read,
   and it looks at the hidden vectors of all requests that wait with the same question at once.
4. The noise of a request is a function of (its seed, the token of its reply): a neighbour in the
   batch changes nothing, and one that is done makes room for the next that waits.

Letters: B branches or requests, T tokens, D width, V ids of a choice.
"""

from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .branches import Branches
from .document import Document, Part
from .events import Event, ReplyDone
from .grammar import Choice, Grammar, Modality
from .heads.head import Ask
from .request import Request, Settings
from .sampling import Sampling, pick

if TYPE_CHECKING:
    from .model import Model

SPARE_TOKENS = 4  # of a branch: one with less to read than its neighbours is padded


def generate(
    model: "Model",
    documents: Sequence[Document],
    sampling: Sampling | Sequence[Sampling] | None = None,
    modality: Modality | None | Sequence[Modality | None] = None,
    on_event: Callable[[Event], None] | None = None,
    batch: int = 32,
) -> list[tuple[Part, ...]]:
    """Return the reply to each document, in order; arguments and errors as those of `stream`.

    on_event is handed every event of all the replies as it happens.
    """
    replies: dict[int, tuple[Part, ...]] = {}
    for event in stream(model, documents, sampling, modality, batch):
        if on_event is not None:
            on_event(event)
        if isinstance(event, ReplyDone):
            replies[event.request] = event.parts
    return [replies[request] for request in range(len(documents))]


def stream(
    model: "Model",
    documents: Sequence[Document],
    sampling: Sampling | Sequence[Sampling] | None = None,
    modality: Modality | None | Sequence[Modality | None] = None,
    batch: int = 32,
) -> Iterator[Event]:
    """Answer documents, at most `batch` at a time, and yield what happens as it happens.

    documents: conversations for the assistant to answer, their images encoded.
    sampling: one for all, or one for each; None: the model's own.
    modality: 'text' for an answer without images, 'image' for one image and nothing else, None
    for what the model chooses; one for all, or one for each.

    A document that leaves no room in the context for its reply is a ValueError, before any work.
    """
    generation = Generation(model, batch)
    samplings = _spread(sampling, len(documents), "samplings")
    modalities = _spread(modality, len(documents), "modalities")
    for request in zip(documents, samplings, modalities, strict=True):
        generation.submit(*request)
    return generation.run()


def _spread(value: object, num: int, name: str) -> list:
    """Return one value for all, or as many as there are documents."""
    if not isinstance(value, list | tuple):
        return [value] * num
    if len(value) != num:
        raise ValueError(f"{len(value)} {name} for {num} documents: give one, or one for each")
    return list(value)


class Generation:
    """Requests being answered: they come by `submit`, and go when done or by `cancel`."""

    def __init__(self, model: "Model", batch: int = 32) -> None:
        """batch: the most requests that are in work at once; the others wait in order."""
        if batch < 1:
            raise ValueError(f"batch {batch}: at least 1 request at a time")
        self._model, self._batch = model, batch
        self._grammar = Grammar(model.sequencer.layout, [model.grid], model.text.spelled)
        self._waiting: deque[Request] = deque()
        self._active: dict[int, Request] = {}
        self._branches = Branches(model)
        self._count = 0

    def submit(
        self,
        document: Document,
        sampling: Sampling | None = None,
        modality: Modality | None = None,
    ) -> int:
        """Add a conversation to answer and return its number, which its events carry.

        ValueError when it leaves no room in the context for its reply.
        """
        number, self._count = self._count, self._count + 1
        sampling = sampling or self._model.sampling
        request = Request(self._model, self._grammar, number, document, sampling, modality)
        self._waiting.append(request)
        return number

    def cancel(self, number: int) -> None:
        """Forget a request, waiting or in work; nothing more is heard of it, nor of one that is
        done.
        """
        self._waiting = deque(one for one in self._waiting if one.number != number)
        request = self._active.pop(number, None)
        if request is not None:
            self._branches.drop(request.branches.values())

    @property
    def idle(self) -> bool:
        """Whether nothing is left to do."""
        return not self._waiting and not self._active

    def run(self) -> Iterator[Event]:
        """Step until nothing is left to do, and yield all events."""
        while not self.idle:
            yield from self.step()

    def step(self) -> list[Event]:
        """Let every request in work read, choose and go on once; return what happened, request by
        request.
        """
        events = self._admit()
        requests = list(self._active.values())
        if not requests:
            return events
        self._branches.read([branch for one in requests for branch in one.branches.values()])
        found = self._chosen(requests) | self._looked(requests)
        for request in requests:
            events += request.go_on(found[request.number])
        self._branches.drop([branch for one in requests for branch in one.unwanted()])
        for request in requests:
            if request.state.over:
                del self._active[request.number]
        return events

    def _admit(self) -> list[Event]:
        """Take waiting requests into work as far as there is room."""
        if not self._waiting or len(self._active) == self._batch:
            return []
        known = [*self._active.values(), *self._waiting]
        branches = 2 if any(one.guided for one in known) else 1
        rows = min(self._batch, len(known)) * branches
        self._branches.reserve(rows, SPARE_TOKENS + max(one.max_tokens for one in known))
        events: list[Event] = []
        while self._waiting and len(self._active) < self._batch:
            request = self._waiting.popleft()
            self._active[request.number] = request
            events += request.begin()
        return events

    @torch.inference_mode()
    def _chosen(self, requests: Sequence[Request]) -> dict[int, int]:
        """Return the next id of each request that has a choice; those alike are sampled together.
        """
        groups: dict[tuple[Choice, Settings], list[Request]] = {}
        for request in requests:
            if isinstance(choice := request.state.next, Choice):
                groups.setdefault((choice, request.settings(choice)), []).append(request)
        tokens: dict[int, int] = {}
        for (choice, settings), members in groups.items():
            logits_BV = self._logits(choice, members)
            noise_B = [member.noise(len(member.state.ids)) for member in members]
            uniform_B = torch.tensor(noise_B, dtype=torch.float64, device=logits_BV.device)
            picked_B = pick(logits_BV, uniform_B, *settings).tolist()
            tokens |= {m.number: choice.first + k for m, k in zip(members, picked_B, strict=True)}
        return tokens

    def _logits(self, choice: Choice, members: Sequence[Request]) -> Tensor:
        """Return logits of the choice's slice, -inf where not allowed: float32 (B, V)."""
        hidden_BD = self._branches.last([member.branches[None] for member in members])[:, 0]
        table_VD = self._model.transformer.output_table()[choice.first : choice.last]
        logits_BV = F.linear(hidden_BD, table_VD).float()
        if not bool(logits_BV.isfinite().all()):
            raise ValueError("the model's logits are not finite: its weights are damaged")
        forbidden_V = torch.from_numpy(~choice.allowed).to(logits_BV.device)
        return logits_BV.masked_fill(forbidden_V, -torch.inf)

    @torch.inference_mode()
    def _looked(self, requests: Sequence[Request]) -> dict[int, Any]:
        """Return what the head sees for each request that draws; those alike are looked at at once.
        """
        groups: dict[Hashable, list[tuple[Request, Ask]]] = {}
        for request in requests:
            if request.asked is not None:
                groups.setdefault(request.asked.kind, []).append((request, request.asked))
        found: dict[int, Any] = {}
        head, table_VD = self._model.transformer.head, self._model.transformer.output_table()
        for members in groups.values():
            ask = members[0][1]
            hidden = [
                self._branches.last([one.branches[name] for one, _ in members], ask.num_hidden)
                for name in ask.reads
            ]
            assert ask.look is not None, "a drawing that waits has a question"
            seen = ask.look(head, table_VD, hidden, ask.settings, [one.arg for _, one in members])
            found |= {one.number: result for (one, _), result in zip(members, seen, strict=True)}
        return found
