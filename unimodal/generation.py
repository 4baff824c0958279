"""Generation answers conversations in one loop for text and images, many requests at once.

In: documents that the assistant is to answer (`Generation.submit`). Out, step by step: events, the
last of which holds a reply's parts. Requests come and go at any step (continuous batching: Yu et
al., Orca, OSDI 2022).

1. A request is laid out and checked when it is submitted. It has one branch; while it draws with
   guidance, it also has an unconditional one: its prompt without the user's text.
2. A step runs the transformer over what each branch has not read yet: the prompt at first, later
   the sampled id and the ids that must follow it, which thus cost no step of their own. What
   prompts begin with alike is read once. Where few requests share a step, words are guessed and
   checked (lookup.py).
3. Requests in the same state of the grammar are sampled together, from the slice of the output
   table that holds their choice. Within an image the image head draws (heads/head.py): its Asks say
   what is read, and its function is called once for all requests that wait with equal Asks.
4. Memory is taken once for all that is known. A request that needs more than is allowed is refused;
   one that needs more than others leave waits. With `num_prefixes`, a conversation that goes on
   computes its new tokens only (prefixes.py).
5. The noise of a request is a function of (its seed, the index of the token in its reply), so the
   rest of the batch does not change a reply. A finished request makes room for a waiting one.

Letters: B branches or requests, T tokens, D width, V ids of a choice.
"""

from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .branches import Branches
from .document import Document, Part
from .events import Event, ReplyDone, TokenScored
from .grammar import Choice, Grammar, Modality
from .heads.head import Ask
from .memory import free_for_layers
from .products import linear
from .request import Request, Settings
from .sampling import Sampling, check_finite, pick
from .threads import enough_threads

if TYPE_CHECKING:
    from .model import Model

WORTH_READING, CODES_WORTH_READING, WORTH_READING_ON_GPU = 24, 48, 256
"""How many tokens all branches read in a pass as long as some are guessed: words, and codes, whose
guesses are right more often. On a CPU as measured; on a GPU so many as its products take while they
wait for the weights, which was not measured."""
SPARE_TOKENS = 1  # room in each cache row for the padding behind shorter queues


def generate(
    model: "Model",
    documents: Sequence[Document],
    sampling: Sampling | Sequence[Sampling] | None = None,
    modality: Modality | None | Sequence[Modality | None] = None,
    on_event: Callable[[Event], None] | None = None,
    batch: int = 32,
) -> list[tuple[Part, ...]]:
    """Return the parts of the reply to each document, in order.

    on_event is called with every event as it happens. Other arguments and errors are those of
    `stream`.
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
    """Answer documents, at most `batch` at a time, and return an iterator of their events.

    documents: conversations for the assistant to answer, with their images encoded. Event numbers
    are indices of documents.
    sampling: one for all, or one for each document; None: the model's own.
    modality: the modality constraint, one for all or one for each document: 'text' for a reply
    without images, 'image' for one image and nothing else, None for what the model chooses.

    Raise ValueError, before any work, where a document leaves no room in the context for its reply.
    """
    generation = Generation(model, batch)
    samplings = _spread(sampling, len(documents), "samplings")
    modalities = _spread(modality, len(documents), "modalities")
    for request in zip(documents, samplings, modalities, strict=True):
        generation.submit(*request)
    return generation.run()


def _room(requests: Sequence[Request]) -> tuple[int, int]:
    """Return how many rows of how many tokens the cache needs for requests."""
    rows = sum(one.num_branches for one in requests)
    return rows, SPARE_TOKENS + max(one.max_tokens for one in requests)


def _spread(value: object, num: int, name: str) -> list:
    """Return `num` values: a single value repeated, or the given ones.

    Raise ValueError where their number is another.
    """
    if not isinstance(value, list | tuple):
        return [value] * num
    if len(value) != num:
        raise ValueError(f"{len(value)} {name} for {num} documents: give one, or one for each")
    return list(value)


def _only(logits_BV: Tensor, allowed: np.ndarray) -> Tensor:
    """Return logits with -inf where an id is not allowed."""
    return logits_BV.masked_fill(torch.from_numpy(~allowed).to(logits_BV.device), -torch.inf)


def _scored(
    choice: Choice, members: Sequence[Request], logits_BV: Tensor, picked_B: Sequence[int]
) -> Iterator[Event]:
    """Yield the TokenScored of those requests that want one."""
    for member, logits_V, picked in zip(members, logits_BV, picked_B, strict=True):
        if member.likeliest is not None:
            share_V = logits_V.log_softmax(dim=-1)
            most = min(member.likeliest, int(choice.allowed.sum()))
            best = share_V.topk(most)
            told = zip((best.indices + choice.first).tolist(), best.values.tolist(), strict=True)
            token, logprob = choice.first + picked, float(share_V[picked])
            yield TokenScored(member.number, token, logprob, tuple(told))


class Generation:
    """A Generation answers requests together: `submit` adds one, `step` advances all."""

    def __init__(
        self,
        model: "Model",
        batch: int = 32,
        num_prefixes: int = 0,
        max_bytes: int | None = None,
    ) -> None:
        """Start without requests.

        batch: how many requests are in work at once; others wait in order. num_prefixes: how many
        token sequences that were read are kept for requests that begin with them; the weights must
        not change. max_bytes: of the keys and values of all requests and prefixes; None: what is
        free on the device when a request comes. Raise ValueError where batch is below 1.
        """
        if batch < 1:
            raise ValueError(f"batch {batch}: at least 1 request at a time")
        self._model, self._batch = model, batch
        layout = model.drawer.sequencer.layout  # of the images in replies
        self._grammar = Grammar(layout, [model.grid], model.text_tokenizer.spelled)
        self._waiting: deque[Request] = deque()
        self._active: dict[int, Request] = {}
        self._num_branches = 1  # that were read last
        self._branches = Branches(model, num_prefixes)
        self._max_bytes = max_bytes
        self._on_cpu = model.transformer.lm_head_weight.device.type == "cpu"
        self._count = 0

    def submit(
        self,
        document: Document,
        sampling: Sampling | None = None,
        modality: Modality | None = None,
        likeliest: int | None = None,
    ) -> int:
        """Add a conversation to answer and return its number, which its events carry.

        likeliest: how many ids each TokenScored holds; None: there are no such events. Other
        arguments are those of `stream`. Raise ValueError where the document leaves no room in the
        context for its reply, the model cannot reply so, or its reply needs more memory than is
        allowed.
        """
        request = self._request(self._count, document, sampling, modality)
        request.likeliest = likeliest
        self._count += 1
        self._waiting.append(request)
        return request.number

    def check(
        self,
        document: Document,
        sampling: Sampling | None = None,
        modality: Modality | None = None,
    ) -> int:
        """Return how many tokens the prompt takes, and add nothing; raise ValueError where `submit`
        would.
        """
        return self._request(self._count, document, sampling, modality).num_prompt_tokens

    def _request(
        self, number: int, document: Document, sampling: Sampling | None, modality: Modality | None
    ) -> Request:
        """Return a request that can be answered; raise ValueError where it cannot."""
        modality = self._model.constraint(modality)
        model, document = self._model.asked(document, modality)
        sampling = sampling or self._model.sampling
        request = Request(
            model, self._grammar, number, document, sampling, modality, self._room_in_pass
        )
        self._check_bytes(request)
        return request

    def _room_in_pass(self, drawing: bool) -> int:
        """Return how many tokens each branch may read in a pass before guessed ones, words or
        codes, cost more than they save.
        """
        worth = CODES_WORTH_READING if drawing else WORTH_READING
        return (worth if self._on_cpu else WORTH_READING_ON_GPU) // self._num_branches

    def _check_bytes(self, request: Request) -> None:
        """Raise ValueError where a request alone needs more memory than is allowed."""
        rows, tokens = _room([request])
        wanted, allowed = self._branches.least_bytes(rows, tokens), self._allowed()
        if wanted > allowed:
            raise ValueError(
                f"a reply of up to {tokens:,} tokens in {rows} branch(es) wants {wanted:,} bytes of"
                f" keys and values, and {allowed:,} are allowed: shorten the conversation, ask for"
                " fewer images or less text (max_images, max_text_tokens), or draw without guidance"
            )

    def _allowed(self) -> int:
        """Return how many bytes keys and values may take, those that are taken included."""
        if self._max_bytes is not None:
            return self._max_bytes
        free = free_for_layers(self._model.transformer.layer_devices)
        return free + self._branches.resident_bytes

    def make_way(self, num_bytes: int) -> bool:
        """Return whether so many bytes of other keys and values are allowed beside those of all
        requests; prefixes make way.
        """
        return self._branches.make_way(num_bytes, self._allowed())

    @property
    def num_read(self) -> int:
        """Return how many tokens the transformer was run over so far, padding not counted."""
        return self._branches.num_read

    @torch.inference_mode()
    def cancel(self, number: int) -> None:
        """Drop a request, waiting or in work, without an event; ignore one that is done."""
        self._waiting = deque(one for one in self._waiting if one.number != number)
        request = self._active.pop(number, None)
        if request is not None:
            self._branches.drop(request.branches.values())
            self._branches.prefixes.forget(number)

    @property
    def idle(self) -> bool:
        """Return whether nothing is left to do."""
        return not self._waiting and not self._active

    def run(self) -> Iterator[Event]:
        """Call `step` until nothing is left to do, and yield all events."""
        while not self.idle:
            yield from self.step()

    @torch.inference_mode()
    def step(self) -> list[Event]:
        """Advance every request in work by a token, or all that its drafts had right, or one Ask;
        return the events, those of each request in order.
        """
        events = self._admit()
        requests = list(self._active.values())
        going_on = [one for one in requests if not one.state.over]
        if going_on:
            branches = [branch for one in going_on for branch in one.branches.values()]
            self._num_branches = len(branches)
            has_prompt = any(branch.row is None for branch in branches)
            with enough_threads(self._branches.flops(branches), once=has_prompt):
                self._branches.read(branches, max(one.num_looked_at for one in going_on))
                events += self._advance(going_on)
        gone = [branch for one in requests for branch in one.unwanted()]
        if gone and self._branches.prefixes.are_kept:
            self._branches.keep(gone, self._allowed())
        self._branches.drop(gone)
        for request in requests:
            if request.state.over:
                del self._active[request.number]
                self._branches.prefixes.settle(request.number)
        return events

    def _advance(self, requests: Sequence[Request]) -> list[Event]:
        """Give each request what comes next, and what comes behind drafts that were right."""
        events: list[Event] = []
        while requests:
            found = self._sample(requests, events) | self._run_heads(requests)
            for request in requests:
                events += request.go_on(found[request.number])
            requests = [one for one in requests if one.is_ahead and not one.state.over]
        return events

    def _admit(self) -> list[Event]:
        """Take waiting requests into work as far as batch and memory have room; return events."""
        if not self._waiting or len(self._active) == self._batch:
            return []
        taken, allowed = list(self._active.values()), self._allowed()
        while self._waiting and len(taken) < self._batch:
            rows, tokens = _room([*taken, self._waiting[0]])
            if taken and self._branches.num_bytes(rows, tokens) > allowed:
                break
            taken.append(self._waiting.popleft())
        self._branches.reserve(*self._ahead(taken, allowed), allowed)
        events: list[Event] = []
        begun = taken[len(self._active) :]
        self._active |= {request.number: request for request in begun}
        for request in begun:
            events += request.begin()
        return events

    def _ahead(self, taken: Sequence[Request], allowed: int) -> tuple[int, int]:
        """Return the rows and tokens to make room for: of all that wait, where that is allowed.

        Where twice as much is allowed as replies can take, there is room for likely replies alone:
        memory is zeroed as it is taken, and it grows beneath longer ones.
        """
        known = [*taken, *self._waiting]
        branches = max(one.num_branches for one in known)
        rows = min(self._batch, len(known)) * branches
        tokens = max(_room([one])[1] for one in known)
        num_bytes = self._branches.num_bytes(rows, tokens)
        if num_bytes > allowed:
            return _room(taken)
        if 2 * num_bytes <= allowed:
            tokens = SPARE_TOKENS + max(one.likely_tokens for one in known)
        return rows, tokens

    def _sample(self, requests: Sequence[Request], events: list[Event]) -> dict[int, int]:
        """Sample the next id of each request that has a choice; return it by request number, and
        add the events of those that are to be scored.
        """
        groups: dict[tuple[Choice, Settings], list[Request]] = {}
        for request in requests:
            if isinstance(choice := request.state.next, Choice):
                groups.setdefault((choice, request.settings(choice)), []).append(request)
        tokens: dict[int, int] = {}
        for (choice, settings), members in groups.items():
            every_BV = self._logits(choice, members)
            logits_BV = _only(every_BV, choice.allowed)
            uniform_B = self._noise(settings, members)
            picked_B = pick(logits_BV, uniform_B, *settings).tolist()
            if not choice.drawing:
                events += _scored(choice, members, logits_BV, picked_B)
            tokens |= {m.number: choice.first + k for m, k in zip(members, picked_B, strict=True)}
            if choice.withheld is not None:
                wished_BV = _only(every_BV, choice.withheld | choice.allowed)
                wished_B = pick(wished_BV, uniform_B, *settings).tolist()
                for member, k in zip(members, wished_B, strict=True):
                    member.state.miss(choice.first + k)
        return tokens

    def _noise(self, settings: Settings, members: Sequence[Request]) -> Tensor:
        """Return the uniform numbers that sample the next ids, float64 (B,); zeros where the
        likeliest id is taken whatever they are.
        """
        temperature, device = settings[0], self._model.transformer.lm_head_weight.device
        if temperature == 0:
            return torch.zeros(len(members), dtype=torch.float64, device=device)
        noise_B = [member.noise(len(member.state.ids)) for member in members]
        return torch.tensor(noise_B, dtype=torch.float64, device=device)

    def _logits(self, choice: Choice, members: Sequence[Request]) -> Tensor:
        """Return the logits of a choice's slice, float32 (B, V), whether allowed or not.

        Raise ValueError where logits are not finite.
        """
        hidden_BD = self._branches.before(
            [member.branches[None] for member in members], [one.num_drafts for one in members]
        )
        table_VD = self._model.transformer.output_table()[choice.first : choice.last]
        logits_BV = linear(hidden_BD, table_VD).float()
        check_finite(logits_BV)
        return logits_BV

    def _run_heads(self, requests: Sequence[Request]) -> dict[int, Any]:
        """Call the head for each request that draws; return its results by request number."""
        groups: dict[Hashable, list[tuple[Request, Ask]]] = {}
        for request in requests:
            if request.asked is not None:
                groups.setdefault(request.asked.kind, []).append((request, request.asked))
        found: dict[int, Any] = {}
        head, table_VD = self._model.transformer.head, self._model.transformer.output_table()
        for members in groups.values():
            ask = members[0][1]
            branches = [one.branches[name] for name in ask.reads for one, _ in members]
            hidden = self._branches.last(branches, ask.num_hidden).chunk(len(ask.reads))
            assert ask.look is not None, "a drawing that waits has a question"
            seen = ask.look(head, table_VD, hidden, ask.settings, [one.arg for _, one in members])
            found |= {one.number: result for (one, _), result in zip(members, seen, strict=True)}
        return found
