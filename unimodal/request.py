"""A request is a document that is being answered: its reply so far, and its branches.

It takes a sampled id, or the result of the image head, adds all that must follow, and stops where
an id must be sampled (`state.next` is a Choice) or the head must be called (`asked` is an Ask).
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from unimodal.tokenizer.grid import Grid

from .branch import Branch
from .document import Document, Image, Part, Text
from .events import Event, ImageDone, ImageProgress, ReplyDone, TextDelta
from .grammar import Choice, Grammar, Modality, ReplyState
from .heads.head import UNCONDITIONAL, Ask, Draw, Drawing, ImageTokens, branches_of
from .lookup import continuation
from .room import NoRoom, refusal
from .sampling import Sampling, noise, noises, normal_noise
from .sequence import Sequence
from .text import IncrementalDecoder

LIKELY_TEXT_IDS = 32  # that most replies end within

if TYPE_CHECKING:
    from .model import Model

Settings = tuple[float, int | None, float | None]  # temperature, top k, top p


class Request:
    """A Request is in work or waits for it.

    Raises ValueError where the document leaves no room in the context for its reply, and for
    settings that the model's image head does not have.
    """

    def __init__(
        self,
        model: "Model",
        grammar: Grammar,
        number: int,
        document: Document,
        sampling: Sampling,
        modality: Modality | None,
        room_in_pass: Callable[[bool], int],
    ):
        """Lay the prompt out and check its length; arguments are those of Generation.submit.

        room_in_pass: the `room` of its drawings (True), and of words.
        """
        sampling.check(model.transformer.head.follows, model.transformer.architecture.image.head)
        if not any(isinstance(part, Image) for part in document.parts):
            sampling = replace(sampling, image_guidance=None)  # the third branch equals the second
        self.number, self.sampling = number, sampling
        self.likeliest: int | None = None  # how many ids are told beside each of words
        self._model, self._document, self._grammar = model, document, grammar
        self._room_in_pass = room_in_pass
        prompt = model.sequencer.prompt(document)
        self._prompt_ids = prompt.ids
        self.num_prompt_tokens = num_tokens = len(prompt)
        draws = modality == "image" or (modality is None and sampling.max_images > 0)
        if sampling.guided and draws:
            num_tokens = max(num_tokens, len(self._unconditional))
        room = model.usable_context - num_tokens
        budget = sampling.max_text_tokens, sampling.max_images
        self.state = ReplyState(grammar, room, *budget, modality, sampling.max_plan_tokens)
        least = (grammar.longest_image if self.state.max_images else 1) + 1
        if room < least:
            said = refusal(model.sequencer, document, model.usable_context, least)
            raise NoRoom(said or self._too_long(least))
        self.branches: dict[str | None, Branch] = {None: Branch(prompt, owner=number)}
        # An upper bound for all branches: one token may replace a dropped text that has none.
        beside = num_tokens + len(document.parts) + model.transformer.head.extra_tokens(model.grid)
        self.max_tokens = beside + self.state.max_ids
        # Of most replies: few words, or a plan and one image.
        plan, image = sampling.max_plan_tokens, grammar.longest_image
        likely = LIKELY_TEXT_IDS + (plan + image if self.state.max_images else 0)
        self.likely_tokens = beside + min(likely, self.state.max_ids)
        self.parts: list[Part] = []
        self.asked: Ask | None = None  # the step of the drawing that waits for the head
        self._draw: Draw | None = None
        self._image: Image | None = None  # a drawn image whose closing is still to come
        # Of the reply, what a new branch must read.
        self._reply_tokens: list[list[int] | ImageTokens] = []
        self._begun = 0  # the index in it where the latest image begins
        self._decoder = IncrementalDecoder(model.text_tokenizer)
        self._text = ""
        self._drafts: list[int] = []  # of words: guessed, read, and not yet checked
        self.is_ahead = False
        """Whether the latest id was a draft: what samples the next one is known already."""

    @cached_property
    def _unconditional(self) -> Sequence:
        """Return the prompt that guidance leads away from."""
        sequencer, words = self._model.sequencer, self.sampling.negative
        if words is not None:
            return sequencer.negative(self._document, words)
        return sequencer.prompt(self._document, drop=UNCONDITIONAL)

    def _too_long(self, least: int) -> str:
        """Say that there is no room behind the prompt that guidance leads away from."""
        return (
            f"what guidance leads away from would take {len(self._unconditional):,} of the model's"
            f" {self._model.usable_context:,} tokens, and a reply needs up to {least}: shorten the"
            " negative words"
        )

    @property
    def num_branches(self) -> int:
        """Return how many branches it has at most: drawings with guidance need more than one."""
        return len(branches_of(self.sampling)) if self.state.max_images > 0 else 1

    @property
    def num_looked_at(self) -> int:
        """Return how many of the last hidden vectors of a branch the next id or Ask looks at."""
        return 1 + self.num_drafts if self.asked is None else self.asked.num_hidden

    @property
    def num_drafts(self) -> int:
        """Return how many drafts of words stand behind the token that samples the next id."""
        return len(self._drafts)

    def settings(self, choice: Choice) -> Settings:
        """Return the temperature, top k and top p that a choice is sampled with."""
        sampling = self.sampling
        if not choice.drawing:
            return sampling.text_temperature, None, None
        return sampling.image_temperature, sampling.image_top_k, sampling.image_top_p

    def noise(self, at: int) -> float:
        """Return the uniform number in [0, 1) that samples a token of the reply."""
        return noise(self.sampling.seed, at)

    def begin(self) -> Iterator[Event]:
        """Start the reply: add what must follow, up to the first Choice or Ask."""
        yield from self._follow()

    def go_on(self, found: Any) -> Iterator[Event]:
        """Take a sampled id, or the head's result, and all that must follow; yield the events.

        Where `is_ahead` is true then, the next id can be sampled at once.
        """
        if self.asked is not None:
            yield from self._go_on_drawing(found)
        else:
            yield from self._take(found)
        yield from self._follow()

    def _follow(self) -> Iterator[Event]:
        """Add what must follow, up to the next Choice or Ask; yield the events."""
        while self.asked is None:
            following = self.state.next
            if isinstance(following, Grid):
                yield from self._begin_drawing(following)
            elif isinstance(following, int):
                yield from self._take(following)
            else:
                self._guess(following)
                return

    def _guess(self, following: Choice | None) -> None:
        """Queue drafts of the words that may follow, where nothing read is left to check."""
        is_plain = following is not None and not following.drawing and following.withheld is None
        if self.is_ahead or not is_plain or self.likeliest is not None:
            return
        most = min(self._room_in_pass(False) - 1, self.state.max_ids - len(self.state.ids) - 1)
        if most < 1:
            return
        said = np.array(self.state.ids, self._prompt_ids.dtype)
        drafts_M = continuation(np.concatenate([self._prompt_ids, said]))[:most]
        self._drafts = drafts_M[: self._grammar.num_words(drafts_M)].tolist()
        self.branches[None].add(self._drafts)

    def _take(self, token: int) -> Iterator[Event]:
        """Add one id to the reply, queue it in the branches, and yield the events."""
        state, was_drawing, begun = self.state, self.state.drawing, len(self._reply_tokens)
        state.take(token)
        self.is_ahead = self._drafts[:1] == [token]
        if self.is_ahead:
            self._reply_tokens.append([self._drafts.pop(0)])
        else:
            self.branches[None].forget(len(self._drafts))
            self._drafts.clear()
            # The id before an image's content is the head's to read.
            if not isinstance(state.next, Grid):
                self._give([token])
        if state.drawing and not was_drawing:
            self._begun = begun
            yield from self._end_text()
        elif was_drawing and not state.drawing:
            yield self._end_image()
        elif not state.drawing and not state.over:
            yield from self._add_text(self._decoder.push(token))
        if state.over:
            yield from self._end()

    def _give(self, ids: list[int]) -> None:
        """Queue ids in all branches."""
        self._reply_tokens.append(ids)
        for branch in self.branches.values():
            branch.add(ids)

    def _begin_drawing(self, grid: Grid) -> Iterator[Event]:
        first, sequencer = len(self.state.ids), self._model.sequencer
        drawing = Drawing(
            sequencer.layout, grid, self.sampling, self.state.ids[-1],
            lambda count, part: noises(self.sampling.seed, first, count, part),
            partial(normal_noise, self.sampling.seed, first), sequencer.codec_hash,
            partial(self._room_in_pass, True), self._image_before(grid),
        )  # fmt: skip
        self._draw = self._model.transformer.head.draw(drawing)
        yield from self._go_on_drawing(None)

    def _image_before(self, grid: Grid) -> Image | None:
        """Return the latest image, given or drawn, that has codes of a grid."""
        images = (
            one for one in reversed((*self._document.parts, *self.parts)) if isinstance(one, Image)
        )
        return next((one for one in images if one.codes is not None and one.grid == grid), None)

    def _go_on_drawing(self, found: Any) -> Iterator[Event]:
        """Send the head's generator the result of its Ask; run it to its next Ask or its end."""
        assert self._draw is not None and isinstance(self.state.next, Grid), "no image is drawn"
        total, was_asked, self.asked = self.state.next.size, self.asked is not None, None
        try:
            while self.asked is None:
                ask, found = self._draw.send(found), None
                for name, read in ask.reads.items():
                    self._branch(name).add_read(read)
                if was_asked:
                    yield ImageProgress(self.number, ask.done, total, ask.partial, ask.known)
                was_asked = False
                self.asked = ask if ask.look is not None else None
        except StopIteration as end:
            yield from self._take_image(end.value)

    def _branch(self, name: str | None) -> Branch:
        """Return a branch by name; where it is new, queue its prompt and the reply so far."""
        if name not in self.branches:
            if name == UNCONDITIONAL:
                prompt = self._unconditional
            else:
                prompt = self._model.sequencer.prompt(self._document, drop=name)
            self.branches[name] = Branch(prompt, self._reply_tokens, self.number)
        return self.branches[name]

    def _take_image(self, image: Image) -> Iterator[Event]:
        """Add a drawn image to the reply; its tokens are queued in the branches already."""
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
        """Add the closed image to the reply's parts, and as a whole to what new branches read."""
        assert self._image is not None, "an image that ends was drawn"
        image, self._image, self._draw = self._image, None, None
        self._reply_tokens[self._begun :] = [self._model.sequencer.image(image)]
        self.parts.append(image)
        return ImageDone(self.number, image)

    def unwanted(self) -> list[Branch]:
        """Remove the branches that are no longer needed, and return them.

        At the end these are all branches; outside of an image, all but the request's own; within
        one, those that its head does not read now.
        """
        if self.state.over:
            gone = [*self.branches]
        elif self.state.drawing:
            kept = self.branches if self.asked is None else self.asked.reads
            gone = [name for name in self.branches if name and name not in kept]
        else:
            gone = [name for name in self.branches if name]
        return [self.branches.pop(name) for name in gone]

    def _add_text(self, text: str) -> Iterator[Event]:
        self._text += text
        if text:
            yield TextDelta(self.number, text)

    def _end_text(self) -> Iterator[Event]:
        yield from self._add_text(self._decoder.flush())
        if self._text:
            self.parts.append(Text(self._text, role="assistant"))
            self._text = ""

    def _end(self) -> Iterator[Event]:
        yield from self._end_text()
        state = self.state
        assert state.end is not None, "a reply that is over has a reason"
        yield ReplyDone(self.number, tuple(self.parts), tuple(state.ids), state.end)
