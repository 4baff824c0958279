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
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unimodal.tokenizer.grid import Grid

from .branches import Branch, Branches
from .document import Document, Image, Part, Text
from .grammar import Choice, Grammar, Modality, ReplyState
from .heads.head import Ask, Draw, Drawing, ImageTokens
from .sampling import Sampling, noise, pick
from .text import Characters

if TYPE_CHECKING:
    from .model import Model

Settings = tuple[float, int | None, float | None]  # temperature, top k, top p
SPARE_TOKENS = 4  # of a branch: one with less to read than its neighbours is padded


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
    """Reply `request` has finished an image: its codes or latents, which a codec decodes."""

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
        self._waiting: deque[_Request] = deque()
        self._active: dict[int, _Request] = {}
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
        request = _Request(self._model, self._grammar, number, document, sampling, modality)
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
        going_on = [one for one in requests if not one.state.over]
        if going_on:
            self._branches.read([branch for one in going_on for branch in one.branches.values()])
            found = self._chosen(going_on) | self._looked(going_on)
            for request in going_on:
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
    def _chosen(self, requests: Sequence["_Request"]) -> dict[int, int]:
        """Return the next id of each request that has a choice; like ones are sampled together."""
        groups: dict[tuple[Choice, Settings], list[_Request]] = {}
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

    def _logits(self, choice: Choice, members: Sequence["_Request"]) -> Tensor:
        """Return logits of the choice's slice, -inf where not allowed: float32 (B, V)."""
        hidden_BD = self._branches.last([member.branches[None] for member in members])[:, 0]
        table_VD = self._model.transformer.output_table()[choice.first : choice.last]
        logits_BV = F.linear(hidden_BD, table_VD).float()
        if not bool(logits_BV.isfinite().all()):
            raise ValueError("the model's logits are not finite: its weights are damaged")
        forbidden_V = torch.from_numpy(~choice.allowed).to(logits_BV.device)
        return logits_BV.masked_fill(forbidden_V, -torch.inf)

    @torch.inference_mode()
    def _looked(self, requests: Sequence["_Request"]) -> dict[int, Any]:
        """Return what the head sees for each request that draws; it looks at like ones at once."""
        groups: dict[Hashable, list[tuple[_Request, Ask]]] = {}
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


class _Request:
    """One document being answered: its reply so far and the branches that read it."""

    def __init__(
        self,
        model: "Model",
        grammar: Grammar,
        number: int,
        document: Document,
        sampling: Sampling,
        modality: Modality | None,
    ):
        self.number, self.sampling = number, sampling
        self._model, self._document = model, document
        prompt = model.sequencer.prompt(document)
        room = model.context - len(prompt)
        budget = sampling.max_text_tokens, sampling.max_images
        self.state = ReplyState(grammar, room, *budget, modality)
        least = (grammar.longest_image if self.state.max_images else 1) + 1
        if room < least:
            raise ValueError(
                f"the conversation takes {len(prompt)} of {model.context} tokens, and its"
                f" reply needs {least}: start a new one, or leave some of its text and images out"
            )
        self.branches: dict[str | None, Branch] = {None: Branch(prompt)}
        # Null may stand for a text that is empty.
        self.max_tokens = len(prompt) + len(document.parts) + self.state.max_ids
        self.parts: list[Part] = []
        self.asked: Ask | None = None  # what the drawing waits for
        self._draw: Draw | None = None
        self._image: Image | None = None  # that was drawn, and is not yet closed
        self._said: list[list[int] | ImageTokens] = []  # of the reply, what a new branch must read
        self._begun = 0  # where the latest image begins in it
        self._characters = Characters(model.text)
        self._text = ""

    @property
    def guided(self) -> bool:
        """Whether its drawings have an unconditional branch."""
        return self.sampling.guided and self.state.max_images > 0

    def settings(self, choice: Choice) -> "Settings":
        """Return temperature, top k and top p of a choice: text, or the size of an image."""
        sampling = self.sampling
        if not choice.drawing:
            return sampling.text_temperature, None, None
        return sampling.image_temperature, sampling.image_top_k, sampling.image_top_p

    def noise(self, at: int) -> float:
        """Return the number in [0, 1) that picks token `at` of the reply."""
        return noise(self.sampling.seed, at)

    def begin(self) -> Iterator[Event]:
        """Go on up to where something is to be chosen or looked at."""
        yield from self._follow()

    def go_on(self, found: Any) -> Iterator[Event]:
        """Go on with a sampled id, or with what the head has seen, and all that must follow."""
        if self.asked is not None:
            yield from self._go_on_drawing(found)
        else:
            yield from self._take(found)
        yield from self._follow()

    def _follow(self) -> Iterator[Event]:
        """Go on with what must follow, up to where something is to be chosen or looked at."""
        while self.asked is None:
            following = self.state.next
            if isinstance(following, Grid):
                yield from self._begin_drawing(following)
            elif isinstance(following, int):
                yield from self._take(following)
            else:
                return

    def _take(self, token: int) -> Iterator[Event]:
        state, was_drawing, said = self.state, self.state.drawing, len(self._said)
        state.take(token)
        if not isinstance(
            state.next, Grid
        ):  # the id before an image's content is the head's to read
            self._give([token])
        if state.drawing and not was_drawing:
            self._begun = said
            yield from self._end_text()
        elif was_drawing and not state.drawing:
            yield self._end_image()
        elif not state.drawing and not state.over:
            yield from self._add_text(self._characters.push(token))
        if state.over:
            yield from self._end()

    def _give(self, ids: list[int]) -> None:
        """Let all branches read ids."""
        self._said.append(ids)
        for branch in self.branches.values():
            branch.add(ids)

    def _begin_drawing(self, grid: Grid) -> Iterator[Event]:
        first, sequencer = len(self.state.ids), self._model.sequencer
        drawing = Drawing(
            sequencer.layout, grid, self.sampling, self.state.ids[-1],
            lambda at: self.noise(first + at), sequencer.codec_hash,
        )  # fmt: skip
        self._draw = self._model.transformer.head.draw(drawing)
        yield from self._go_on_drawing(None)

    def _go_on_drawing(self, found: Any) -> Iterator[Event]:
        """Let the head go on to its next question, or to the image's end."""
        assert self._draw is not None and isinstance(self.state.next, Grid), "nothing is drawn"
        total, was_asked, self.asked = self.state.next.size, self.asked is not None, None
        try:
            while self.asked is None:
                ask, found = self._draw.send(found), None
                for name, read in ask.reads.items():
                    self._branch(name).add_read(read)
                if was_asked:
                    yield ImageProgress(self.number, ask.done, total)
                was_asked = False
                self.asked = ask if ask.look is not None else None
        except StopIteration as end:
            yield from self._take_image(end.value)

    def _branch(self, name: str | None) -> Branch:
        """Return a branch, which begins now where it is new."""
        if name not in self.branches:
            prompt = self._model.sequencer.prompt(self._document, drop=name)
            self.branches[name] = Branch(prompt, self._said)
        return self.branches[name]

    def _take_image(self, image: Image) -> Iterator[Event]:
        """Go on with a drawn image, which the branches have been given."""
        layout = self._model.sequencer.layout
        self._image = replace(image, role="assistant")
        tokens = self._model.sequencer.image(image)
        assert image.grid is not None, "a drawn image has a grid"
        opening = len(layout.opening(image.grid))
        self.state.take_image(tokens.ids[opening : len(tokens.ids) - len(layout.closing)].tolist())
        if not self.state.drawing:
            yield self._end_image()
        if self.state.over:
            yield from self._end()

    def _end_image(self) -> Event:
        """Add the whole image to the reply, and to what a new branch would have to read."""
        assert self._image is not None, "an image that ends was drawn"
        image, self._image, self._draw = self._image, None, None
        self._said[self._begun :] = [self._model.sequencer.image(image)]
        self.parts.append(image)
        return ImageDone(self.number, image)

    def unwanted(self) -> list[Branch]:
        """Take out the branches that are no longer needed, and return them."""
        if self.state.over:
            gone = [*self.branches]
        else:
            gone = [] if self.state.drawing else [name for name in self.branches if name]
        return [self.branches.pop(name) for name in gone]

    def _add_text(self, text: str) -> Iterator[Event]:
        self._text += text
        if text:
            yield TextDelta(self.number, text)

    def _end_text(self) -> Iterator[Event]:
        yield from self._add_text(self._characters.flush())
        if self._text:
            self.parts.append(Text(self._text, role="assistant"))
            self._text = ""

    def _end(self) -> Iterator[Event]:
        yield from self._end_text()
        yield ReplyDone(self.number, tuple(self.parts), tuple(self.state.ids))
