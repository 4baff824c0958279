"""Replies to conversations: one loop for text and images, many requests at once, as they come.

In: documents that the assistant is to answer. Out: events while it does, then each reply's parts.

1. Every request is laid out and checked before any work. A request is a branch of the batch; while
   it draws with guidance it has a second, blind one: its prompt without the user's text.
2. A step lets each branch read the ids that it has not read: a prompt at first, later what was
   sampled and the ids that must follow it, so that a forced id costs no step of its own.
3. Requests in the same state of the grammar are sampled together, from the slice of the head that
   may follow.
4. The noise of a request is a function of (its seed, the position in its reply): a neighbour in
   the batch changes nothing, and one that is done makes room for the next that waits.

Letters: B branches or requests, T read ids, D width, V ids of a choice.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .cache import Cache
from .document import Document, Image, Part, Text
from .grammar import Choice, Grammar, State
from .sampling import Sampling, guide, noise, pick
from .text import Characters

if TYPE_CHECKING:
    from .bundle import Model

MAX_PREFILL_POSITIONS = 8192  # of one forward: many long prompts are read a few at a time
MAX_READ = 3  # ids of a step after the prompt: begin and two sizes, or a code and two ends


@dataclass(frozen=True)
class TextDelta:
    """The text of reply `request` goes on with `text`: whole characters only."""

    request: int
    text: str


@dataclass(frozen=True)
class ImageProgress:
    """`done` of the `total` codes of the image that reply `request` is drawing."""

    request: int
    done: int
    total: int


@dataclass(frozen=True, eq=False)
class ImageDone:
    """Reply `request` has finished a image: its codes, of which the tokenizer makes pixels."""

    request: int
    image: Image


@dataclass(frozen=True, eq=False)
class ReplyDone:
    """Reply `request` is over: its parts, of role 'assistant', and its ids with the turn's end.

    There is no part where all that was said is the beginning of a character.
    """

    request: int
    parts: tuple[Part, ...]
    ids: tuple[int, ...]


Event = TextDelta | ImageProgress | ImageDone | ReplyDone


def generate(
    model: "Model",
    documents: Sequence[Document],
    sampling: Sampling | Sequence[Sampling] | None = None,
    force: str | None | Sequence[str | None] = None,
    on_event: Callable[[Event], None] | None = None,
    batch: int = 32,
) -> list[tuple[Part, ...]]:
    """The reply to each document, in order; arguments and errors as those of `stream`.

    on_event is handed every event of all the replies as it happens.
    """
    replies: dict[int, tuple[Part, ...]] = {}
    for event in stream(model, documents, sampling, force, batch):
        if on_event is not None:
            on_event(event)
        if isinstance(event, ReplyDone):
            replies[event.request] = event.parts
    return [replies[request] for request in range(len(documents))]


def stream(
    model: "Model",
    documents: Sequence[Document],
    sampling: Sampling | Sequence[Sampling] | None = None,
    force: str | None | Sequence[str | None] = None,
    batch: int = 32,
) -> Iterator[Event]:
    """Answer documents, at most `batch` at a time, and yield what happens as it happens.

    documents: conversations for the assistant to answer, their images encoded.
    sampling: one for all, or one for each; None: the model's own.
    force: 'text' for an answer without images, 'image' for one image and nothing else, None
    for what the model chooses; one for all, or one for each.

    A document that leaves no room in the context for its reply is a ValueError, before any work.
    """
    if batch < 1:
        raise ValueError(f"batch {batch}: at least 1 request at a time")
    samplings = _spread(sampling or model.sampling, len(documents), "samplings")
    forces = _spread(force, len(documents), "forces")
    grammar = Grammar(model.vocabulary, [model.grid], model.text.spelled)
    each = enumerate(zip(documents, samplings, forces, strict=True))
    requests = [_Request(model, grammar, k, *request) for k, request in each]
    return _run(model, requests, batch)


def _spread(value: object, num: int, name: str) -> list:
    """One value for all, or as many as there are documents."""
    if not isinstance(value, list | tuple):
        return [value] * num
    if len(value) != num:
        raise ValueError(f"{len(value)} {name} for {num} documents: give one, or one for each")
    return list(value)


def _run(model: "Model", requests: list["_Request"], batch: int) -> Iterator[Event]:
    """The loop. Branches stand in the order of the cache's rows, new ones behind them."""
    if not requests:
        return
    branches: list[_Branch] = []
    cache = _cache(model, requests, batch)
    waiting = deque(requests)
    while waiting or branches:
        while waiting and sum(not branch.blind for branch in branches) < batch:
            request = waiting.popleft()
            yield from request.follow()
            branches += request.open()
        hidden_BD = _feed(model, cache, branches)
        active = {branch.request.number: branch.request for branch in branches}
        tokens = _sample(model, list(active.values()), hidden_BD)
        for request, token in zip(active.values(), tokens, strict=True):
            yield from request.take(token)
        _retire(cache, branches)
        for request in active.values():
            branches += request.open()


@dataclass(eq=False)
class _Branch:
    """A row of the batch: a request as it is, or (`blind`) without the user's text."""

    request: "_Request"
    blind: bool
    unread: list[int]
    row: int = -1

    @property
    def done(self) -> bool:
        """Whether nothing more will be asked of it."""
        state = self.request.state
        return state.over or (self.blind and not state.drawing)


class _Request:
    """One document being answered: its reply so far and the branches that read it."""

    def __init__(
        self,
        model: "Model",
        grammar: Grammar,
        number: int,
        document: Document,
        sampling: Sampling,
        force: str | None,
    ):
        self.number, self.sampling = number, sampling
        self._model, self._document = model, document
        self._prompt = model.sequencer.prompt(document).ids.tolist()
        room = model.context - len(self._prompt)
        budget = sampling.max_text_tokens, sampling.max_images
        self.state = State(grammar, room, *budget, force)
        least = (grammar.longest_image if self.state.max_images else 1) + 1
        if room < least:
            raise ValueError(
                f"the conversation takes {len(self._prompt)} of {model.context} positions, and its"
                f" reply needs {least}: start a new one, or leave some of its text and images out"
            )
        self.parts: list[Part] = []
        self.branch: _Branch | None = None
        self.blind: _Branch | None = None
        self._characters = Characters(model.text)
        self._text = ""

    @property
    def max_positions(self) -> int:
        """The most positions that a branch can take: null may stand for a text that is empty."""
        return len(self._prompt) + len(self._document.parts) + self.state.max_ids

    def open(self) -> list[_Branch]:
        """The branches that it needs from now on and does not have."""
        new = []
        if self.branch is None:
            self.branch = _Branch(self, blind=False, unread=self._prompt + self.state.ids)
            new.append(self.branch)
        if self.blind is None and self.state.drawing and self.sampling.guided:
            prompt = self._model.sequencer.prompt(self._document, drop="text").ids.tolist()
            self.blind = _Branch(self, blind=True, unread=prompt + self.state.ids)
            new.append(self.blind)
        return new

    def take(self, token: int) -> Iterator[Event]:
        """Go on with a sampled id and the ids that it forces."""
        yield from self._read(token)
        yield from self.follow()

    def follow(self) -> Iterator[Event]:
        """Go on with the ids that must follow, up to where one may be chosen."""
        while isinstance(token := self.state.next, int):
            yield from self._read(token)

    def _read(self, token: int) -> Iterator[Event]:
        state, was_drawing = self.state, self.state.drawing
        state.take(token)
        for branch in (self.branch, self.blind):
            if branch is not None:
                branch.unread.append(token)
        if state.drawing:
            yield from self._drawn(token) if was_drawing else self._end_text()
        elif was_drawing:
            yield self._end_image()
        elif not state.over:
            yield from self._add_text(self._characters.push(token))
        else:
            yield from self._end_text()
            yield ReplyDone(self.number, tuple(self.parts), tuple(state.ids))

    def _drawn(self, token: int) -> Iterator[Event]:
        if token >= self._model.vocabulary.first_code:
            assert self.state.grid is not None, "a code was drawn before the size of its image"
            yield ImageProgress(self.number, self.state.num_codes, self.state.grid.size)

    def _add_text(self, text: str) -> Iterator[Event]:
        self._text += text
        if text:
            yield TextDelta(self.number, text)

    def _end_text(self) -> Iterator[Event]:
        yield from self._add_text(self._characters.flush())
        if self._text:
            self.parts.append(Text(self._text, role="assistant"))
            self._text = ""

    def _end_image(self) -> Event:
        assert self.state.grid is not None, "a image ended before its size was known"
        ids = self.state.ids[-self._model.drawer.positions(self.state.grid) :]
        (image,) = self._model.sequencer.parts(ids, role="assistant")
        assert isinstance(image, Image), "a reply's image was read back as text"
        self.parts.append(image)
        return ImageDone(self.number, image)


def _cache(model: "Model", requests: list[_Request], batch: int) -> Cache:
    weight = model.transformer.head_weight
    branches = 2 if any(request.sampling.guided for request in requests) else 1
    # A row with less to read than its neighbours is padded, perhaps past its last position.
    capacity = max(request.max_positions for request in requests) + MAX_READ
    rows = min(batch, len(requests)) * branches
    return Cache(model.transformer.config, rows, capacity, weight.dtype, weight.device)


def _retire(cache: Cache, branches: list[_Branch]) -> None:
    """Take branches that are done out of the batch."""
    for row in reversed(range(len(branches))):
        branch = branches[row]
        if branch.done:
            cache.drop(row)
            branches[row] = branches[-1]
            branches.pop()
            if branch.blind:
                branch.request.blind = None


@torch.inference_mode()
def _feed(model: "Model", cache: Cache, branches: list[_Branch]) -> Tensor:
    """Let every branch read its unread ids; returns the vectors of the last ones, hidden_BD."""
    old = cache.num_rows
    hidden = [_forward(model, cache, branches[:old], slice(0, old))] if old else []
    while cache.num_rows < len(branches):
        fresh = branches[cache.num_rows :]
        longest = max(len(branch.unread) for branch in fresh)
        fresh = fresh[: max(1, MAX_PREFILL_POSITIONS // longest)]
        hidden.append(_forward(model, cache, fresh, cache.add(len(fresh))))
    return torch.cat(hidden)


def _forward(model: "Model", cache: Cache, branches: list[_Branch], rows: slice) -> Tensor:
    """Read the unread ids of the branches in `rows` of the cache in one forward: hidden_BD."""
    lengths_B = np.array([len(branch.unread) for branch in branches])
    longest = int(lengths_B.max())
    pad = model.vocabulary.control("pad")
    device = model.transformer.head_weight.device
    padded = [branch.unread + [pad] * (longest - len(branch.unread)) for branch in branches]
    ids_BT = torch.tensor(padded, device=device)
    positions_BT = cache.append(longest, rows)
    hidden_BTD = model.transformer(model.reader(model.transformer, ids_BT), positions_BT, cache)
    cache.commit(lengths_B, rows)
    cache.rollback(rows=rows)
    for row, branch in enumerate(branches, start=rows.start):
        branch.unread, branch.row = [], row
    last_B = torch.from_numpy(lengths_B - 1).to(device)
    return hidden_BTD[torch.arange(len(branches), device=device), last_B]


@torch.inference_mode()
def _sample(model: "Model", requests: list[_Request], hidden_BD: Tensor) -> list[int]:
    """The next id of each request."""
    groups: dict[tuple, list[_Request]] = {}
    for request in requests:
        groups.setdefault(_recipe(request), []).append(request)
    tokens: dict[int, int] = {}
    for (choice, guided, *settings), members in groups.items():
        logits_BV = _logits(model, choice, guided, members, hidden_BD)
        sample = pick if choice.allowed is not None else model.drawer.sample
        noise_B = [noise(member.sampling.seed, len(member.state.ids)) for member in members]
        uniform_B = torch.tensor(noise_B, dtype=torch.float64, device=logits_BV.device)
        picked_B = sample(logits_BV, uniform_B, *settings).tolist()
        tokens |= {m.number: choice.first + k for m, k in zip(members, picked_B, strict=True)}
    return [tokens[request.number] for request in requests]


def _recipe(request: _Request) -> tuple:
    """(choice, guided, temperature, top_k, top_p); requests that agree are sampled together."""
    sampling, choice = request.sampling, request.state.next
    assert isinstance(choice, Choice), "a reply without a choice was sampled"
    if not choice.drawing:
        return choice, False, sampling.text_temperature, None, None
    guided = sampling.guided and choice.allowed is None  # sizes are drawn as the request has them
    return choice, guided, sampling.image_temperature, sampling.image_top_k, sampling.image_top_p


def _logits(
    model: "Model", choice: Choice, guided: bool, members: list[_Request], hidden_BD: Tensor
) -> Tensor:
    """Logits of the choice's slice of the head, -inf where not allowed: float32 (B, V)."""
    branches = [member.branch for member in members]
    if guided:
        branches += [member.blind for member in members]
    rows = [branch.row for branch in branches if branch is not None]
    assert len(rows) == len(branches), "a request was sampled without its branches"
    if choice.allowed is None:
        logits_BV = model.drawer.logits(model.transformer, hidden_BD[rows]).float()
    else:
        last = choice.last
        logits_BV = model.transformer.logits(hidden_BD[rows], choice.first, last).float()
    if not bool(logits_BV.isfinite().all()):
        raise ValueError("the model's logits are not finite: its weights are damaged")
    if guided:
        scale_B1 = logits_BV.new_tensor([[member.sampling.guidance] for member in members])
        conditional_BV, unconditional_BV = logits_BV.chunk(2)
        logits_BV = guide(conditional_BV, unconditional_BV, scale_B1)
    if choice.allowed is None:
        return logits_BV
    forbidden_V = torch.from_numpy(~choice.allowed).to(logits_BV.device)
    return logits_BV.masked_fill(forbidden_V, -torch.inf)
