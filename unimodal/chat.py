"""A chat is a conversation with a model: text and images in, text and images out.

All of it stays in the model's context.

    chat = unimodal.Chat(unimodal.load(), seed=1)
    reply = chat("draw two red circles")      # reply.text, reply.images
    chat("make it blue")                      # the drawing is still there
    chat("what is this?", images=["a.png"])

1. Images are opened, resized and cropped to the size that the model draws, and encoded; notes tell
   what was done.
2. The turn is added to a copy of the conversation, which must leave room for a reply.
3. The reply is streamed; drawn images are decoded to pixels.
   What the model has computed of the conversation is kept (prefixes.py), so a turn costs its own
   tokens only.
4. Only a finished reply joins the conversation: a turn that is refused, fails or is interrupted
   leaves it unchanged. Each finished reply increases the seed by one, so that asking again draws
   another image.
5. With candidates, a drawing is the best of several (candidates.py), whose seeds follow each other.
   With `cuts`, the model is told only the latest turns of a conversation that its context cannot
   hold.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import dropwhile
from typing import Any

from unimodal.tokenizer.grid import Grid
from unimodal.tokenizer.pixels import Source

from .boxes import boxed
from .candidates import UNCHECKED, Kept, best_of, check_num, samplings_of, seed_of
from .chat_events import ChatEvent, Drawn, Note, Reply, as_picture, whole
from .checks import Check, checks_of
from .config import replaced
from .document import Document, Image, Part, Text
from .events import Event, ImageDone, ReplyDone, TokenScored
from .generation import Generation
from .grammar import Modality
from .model import Model
from .room import asked, exchanges, num_too_many, refusal
from .sampling import Sampling

TEXT_ROOM = 32  # tokens kept free for the text of a reply, beside those of one image
# Of a conversation: with and without the user's words, once settled and once of the reply in work.
NUM_PREFIXES = 6
PREFIXES_OF_CANDIDATE = 4
CUT_TO = 0.75  # of the room: what is left is read anew after each cut, so that cuts are rare


class Chat:
    """A Chat is one conversation with a model, whose weights stay as they are. `sampling` may be
    replaced between replies.
    """

    def __init__(
        self,
        model: Model,
        sampling: Sampling | None = None,
        size: tuple[int, int] | None = None,
        candidates: int = 1,
        cuts: bool = False,
        **changes: Any,
    ) -> None:
        """Start an empty conversation.

        sampling: the settings of replies; None: the model's defaults. size: (width, height) in
        pixels of its drawings; None: the model's own. candidates: of how many drawings the best is
        kept. cuts: whether the oldest turns are left out where the context is full, which is an
        error otherwise. changes: values that replace fields of the settings, such as seed=1. Raise
        ValueError for a size that the model does not draw, and for settings that there are not.
        """
        self.model, self.cuts, self.candidates = _sized(model, size), cuts, candidates
        self.sampling = replaced(sampling or model.sampling, changes)
        self._parts: tuple[Part, ...] = ()
        self._modalities: tuple[Modality | None, ...] = ()  # asked for, of each turn's reply
        self._num_untold = 0  # of the oldest turns, how many the model is not told any more
        # What `redo` brings back, the latest one last: turns with the modality of their replies.
        self._undone: list[tuple[tuple[Part, ...], Modality | None]] = []

    @property
    def candidates(self) -> int:
        """Return of how many drawings the best is kept."""
        return self._candidates

    @candidates.setter
    def candidates(self, num: int) -> None:
        """Set it; raise ValueError for less than one and for too many."""
        check_num(num)
        self._candidates = num
        self._generation: Generation | None = None  # None: not begun, or a reply is using it

    @property
    def document(self) -> Document:
        """Return the conversation so far; its images hold both pixels and codes."""
        return Document(self._parts)

    def __call__(
        self,
        text: str,
        images: Sequence[Source] = (),
        modality: Modality | None = None,
        boxes: Sequence[str] = (),
    ) -> Reply:
        """Take the user's turn, text with or without images, and return the whole reply.

        modality: 'text' for a reply without images, 'image' for one image and nothing else, None
        for what the model chooses. boxes: what is to stand where on the drawing, each as
        'a red circle, 4, 10, 24, 30' (boxes.py). Raise ValueError for an empty prompt, for an image
        that cannot be used (ImageError), for boxes that the model does not take, and where the
        conversation no longer fits the model's context.
        """
        *_, reply = self.stream(text, images, modality, boxes)
        assert isinstance(reply, Reply), f"the last event is a Reply, not {type(reply).__name__}"
        return reply

    def stream(
        self,
        text: str,
        images: Sequence[Source] = (),
        modality: Modality | None = None,
        boxes: Sequence[str] = (),
    ) -> Iterator[ChatEvent]:
        """Take the user's turn and return an iterator of events, the last of which is the Reply.

        Errors are those of a call, and are raised here, before the first event. An iterator that is
        dropped before its end leaves the conversation unchanged.
        """
        _check_images(images)
        _check_text(text, images, boxes)
        texts = self.texts(text, boxes)
        modality = self.model.constraint(modality)
        notes, seen = [], []
        for source in images:
            part, said = self._see(source)
            seen.append(part)
            notes += said
        document = Document((*self._parts, *seen, *texts))
        notes += self.model.overlooked(document, modality)
        return self._reply(document, notes, modality)

    def texts(self, text: str, boxes: Sequence[str] = ()) -> tuple[Text, ...]:
        """Return what a turn of the user says; raise ValueError for boxes that the model does not
        take.
        """
        words = (Text(text, role="user"),) if text.strip() else ()
        return *words, *boxed(self.model, boxes)

    @property
    def asked(self) -> str:
        """Return the words of the latest turn; raise ValueError where there is none."""
        return asked(Document(self._latest()))

    def again(self) -> Iterator[ChatEvent]:
        """Answer the latest turn anew, with the next seed, as `stream` does; the new reply takes
        the old one's place once it is finished.
        """
        turn = [part for part in self._latest() if part.role != "assistant"]
        earlier = self._parts[: len(self._parts) - len(self._latest())]
        return self._reply(Document((*earlier, *turn)), [], self._modalities[-1])

    def undo(self) -> None:
        """Forget the latest turn and its reply; raise ValueError where there is none."""
        latest, undone = self._latest(), self._undone
        *earlier, modality = self._modalities
        self._keep(self._parts[: len(self._parts) - len(latest)], earlier)
        self._undone = [*undone, (latest, modality)]

    def redo(self) -> None:
        """Bring back the turn that was undone last; raise ValueError where none was, or where
        something else was done since.
        """
        if not self._undone:
            raise ValueError("nothing was undone, or something else was done since")
        *undone, (latest, modality) = self._undone
        self._keep((*self._parts, *latest), (*self._modalities, modality))
        self._undone = undone

    def forget(self, num_turns: int) -> None:
        """Forget the oldest turns with their replies; raise ValueError where there are fewer."""
        found = exchanges(self.document)
        if not 1 <= num_turns <= len(found):
            raise ValueError(f"{num_turns} of {len(found)} turns cannot be forgotten")
        kept = tuple(part for one in found[num_turns:] for part in one)
        self._keep(kept, self._modalities[num_turns:])

    def reset(self) -> None:
        """Forget the conversation; the sampling stays."""
        self._keep((), ())

    def resume(self, document: Document) -> None:
        """Go on with another conversation, in place of this one.

        Raise ValueError where it does not end with a reply, or where its images are of another
        codec and have no pixels.
        """
        if not document.parts or document.parts[-1].role != "assistant":
            raise ValueError("the conversation does not end with a reply: nothing can follow it")
        codec = self.model.codec
        parts = codec.decode_document(codec.encode_document(document)).parts
        self._keep(parts, [None] * len(exchanges(document)))

    def _keep(self, parts: tuple[Part, ...], modalities: Sequence[Modality | None]) -> None:
        self._parts, self._modalities = parts, tuple(modalities)
        self._num_untold, self._undone = 0, []

    def _latest(self) -> tuple[Part, ...]:
        """Return the parts of the latest turn and its reply, without a reply that stands before
        the first turn of a conversation that was resumed.
        """
        found = exchanges(self.document)
        latest = tuple(dropwhile(lambda part: part.role != "user", found[-1])) if found else ()
        if not latest:
            raise ValueError("nothing has been said yet")
        return latest

    def _reply(
        self, document: Document, notes: list[str], modality: Modality | None
    ) -> Iterator[ChatEvent]:
        """Return the events of the reply to a document; at its end both join the conversation.
        Raise ValueError, before the first event, where the model's context cannot hold it.
        """
        told, num_untold = self._told(document, modality)
        if num_untold > self._num_untold:
            notes = [*notes, _said_untold(num_untold)]
        return self._answer(document, told, num_untold, tuple(notes), modality)

    def _answer(
        self,
        document: Document,
        told: Document,
        num_untold: int,
        notes: tuple[str, ...],
        modality: Modality | None,
    ) -> Iterator[ChatEvent]:
        """Yield the events of the reply to what the model is told of a document."""
        yield from map(Note, notes)
        drawn: list[Image] = []
        sampling, checks = self.sampling, self._checks(document, modality)
        num = self.candidates if checks else 1
        seed = sampling.seed
        for event in self._best(told, sampling, modality, checks, num):
            if isinstance(event, Kept):
                seed = seed_of(sampling, event.number)
                if event.judgement is not None:
                    notes = (*notes, event.said(sampling, num))
                    yield Note(notes[-1])
            elif isinstance(event, ImageDone):
                drawn += self.model.codec.decode([event.image])
                yield Drawn(as_picture(drawn[-1]), seed)
            elif isinstance(event, ReplyDone):
                if drawn and self.candidates > num:
                    notes = (*notes, UNCHECKED)
                    yield Note(UNCHECKED)
                reply = whole(event, drawn, notes, seed)
                earlier = self._modalities[: len(exchanges(document)) - 1]
                self._keep((*document.parts, *reply.parts), (*earlier, modality))
                self._num_untold = num_untold
                self.sampling = replace(self.sampling, seed=seed_of(sampling, num))
                yield reply
            elif not isinstance(event, TokenScored):  # a chat asks for none
                yield event

    def _checks(self, document: Document, modality: Modality | None) -> tuple[Check, ...]:
        """Return what is asked about candidates: nothing where there is one, or no image."""
        if self.candidates == 1 or modality == "text":
            return ()
        return checks_of(asked(document))

    def _best(
        self,
        document: Document,
        sampling: Sampling,
        modality: Modality | None,
        checks: tuple[Check, ...],
        num: int,
    ) -> Iterator[Event | Kept]:
        """Return the events of the reply to a document, the best of `num`."""
        events = self._events(document, samplings_of(sampling, num), modality)
        return events if num == 1 else best_of(self.model, events, checks, num)

    def _events(
        self, document: Document, samplings: list[Sampling], modality: Modality | None
    ) -> Iterator[Event]:
        """Yield the events of replies to a document, one for each sampling.

        What was read of the conversation stays for the next reply, unless this one ends within a
        step: then it is unknown what the cache holds.
        """
        generation = self._generation or self._new_generation()
        numbers = [generation.submit(document, one, modality) for one in samplings]
        self._generation = None
        try:
            yield from generation.run()
        except GeneratorExit:  # dropped between two steps
            for number in numbers:
                generation.cancel(number)
            self._generation = generation
            raise
        self._generation = generation

    def _new_generation(self) -> Generation:
        num = self.candidates
        more = 0 if num == 1 else PREFIXES_OF_CANDIDATE * num
        return Generation(self.model, num, NUM_PREFIXES + more)

    def _told(self, document: Document, modality: Modality | None) -> tuple[Document, int]:
        """Return what the model is told of a document, and how many of its oldest turns are left
        out; raise ValueError where the context cannot hold it.
        """
        model, read = self.model.asked(document, modality)
        sequencer, context = model.sequencer, model.usable_context
        draws = model.constraint(modality) != "text"
        needed = sequencer.layout.length(model.grid) * draws + TEXT_ROOM
        if read is not document:  # its family reads the latest words alone
            if problem := refusal(sequencer, read, context, needed):
                raise ValueError(problem)
            return document, self._num_untold
        found = exchanges(document)
        num_untold = min(self._num_untold, len(found) - 1)
        told = _without(found, num_untold)
        problem = refusal(sequencer, told, context, needed)
        if problem is None:
            return told, num_untold
        for most in (int(CUT_TO * context) - needed, context - needed) if self.cuts else ():
            num_untold = num_too_many(sequencer, found, most)
            if num_untold < len(found):
                return _without(found, num_untold), num_untold
        raise ValueError(problem)

    def _see(self, source: Source) -> tuple[Image, list[str]]:
        """Open and encode an image; return it and notes on what was done to it."""
        pixels, notes = self.model.fitted(source)
        (image,) = self.model.codec.encode([Image(pixels, role="user")])
        name = source if isinstance(source, str) else getattr(source, "name", "the image")
        return image, [f"{name}: {note}" for note in notes]


def _without(found: list[tuple[Part, ...]], num: int) -> Document:
    """Return a conversation without the oldest of its turns."""
    return Document(tuple(part for one in found[num:] for part in one))


def _said_untold(num: int) -> str:
    oldest = "oldest message and its reply" if num == 1 else f"{num} oldest messages and replies"
    return f"the model's context is full: it is not told your {oldest} any more"


def _sized(model: Model, size: tuple[int, int] | None) -> Model:
    """Return the model that draws images of this size; raise ValueError where it does not."""
    if size is None or tuple(size if isinstance(size, list | tuple) else ()) in model.sizes:
        return model
    is_pair = isinstance(size, list | tuple) and len(size) == 2
    layouts = model.sequencer.layout.layout, model.drawer.sequencer.layout
    if is_pair and (layouts[0].asks_for_sizes or layouts[1].says_any_size):
        geometry = model.image_tokenizer.geometry
        grid = geometry.grid_of(size[1], size[0])
        try:
            layouts[1].opening(grid)
        except ValueError as error:  # it cannot name the sides
            each = " x ".join(map(str, geometry.size_of(Grid(1, 1))))
            said = f"size {size[0]}x{size[1]}: {error}; a code has {each} pixels"
            raise ValueError(said) from error
        return replace(model, grid=grid)
    known = " or ".join(f"{width}x{height}" for width, height in model.sizes)
    said = f"{size[0]}x{size[1]}" if is_pair else f"{size!r} is no (width, height)"
    raise ValueError(f"size {said}: this model draws {known} pixels")


def _check_images(images: Sequence[Source]) -> None:
    if not isinstance(images, list | tuple):
        raise ValueError(f"images {images!r}: give a list, such as images=['photo.png']")


def _check_text(text: str, images: Sequence[Source], boxes: Sequence[str]) -> None:
    if not text.strip() and not images and not boxes:
        raise ValueError("the prompt is empty: write what to draw or ask, or give an image")
    try:
        "".join([text, *boxes]).encode("utf-8")
    except UnicodeEncodeError as error:  # bytes that a terminal passed on as they were
        raise ValueError(f"the prompt is not UTF-8 text: {text!r}") from error
