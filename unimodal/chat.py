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
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image as PILImage

from unimodal.tokenizer.pixels import Source

from .config import replaced
from .document import Document, Image, Part, Text
from .events import Event, ImageDone, ImageProgress, ReplyDone, TextDelta
from .generation import Generation
from .grammar import End, Modality
from .model import Model
from .room import exchanges, refusal
from .sampling import Sampling

TEXT_ROOM = 32  # tokens kept free for the text of a reply, beside those of one image
NUM_SEEDS = 2**64
# Of a conversation: with and without the user's words, once settled and once of the reply in work.
NUM_PREFIXES = 6


@dataclass(frozen=True)
class Note:
    """A Note tells what was done to a given image before the model saw it."""

    text: str


@dataclass(frozen=True, eq=False)
class Drawn:
    """A Drawn event gives a finished image of the reply, mode RGB."""

    image: PILImage.Image


@dataclass(frozen=True, eq=False)
class Reply:
    """A Reply is a whole reply, and the last event of its stream."""

    text: str  # all its texts, joined by spaces
    images: list[PILImage.Image]  # all its images, mode RGB
    notes: tuple[str, ...]  # on the given images
    seed: int  # the seed that it was sampled with
    parts: tuple[Part, ...]  # its texts and images in order, as the conversation keeps them
    end: End  # why it ended: stop, or what was used up


ChatEvent = Note | TextDelta | ImageProgress | Drawn | Reply


class Chat:
    """A Chat is one conversation with a model, whose weights stay as they are. `sampling` may be
    replaced between replies.
    """

    def __init__(
        self,
        model: Model,
        sampling: Sampling | None = None,
        size: tuple[int, int] | None = None,
        **changes: Any,
    ) -> None:
        """Start an empty conversation.

        sampling: the settings of replies; None: the model's defaults. size: (width, height) in
        pixels of its drawings; None: the model's own. changes: values that replace fields of the
        settings, such as seed=1. Raise ValueError for a size that the model does not draw, and for
        settings that there are not.
        """
        self.model = _sized(model, size)
        self.sampling = replaced(sampling or model.sampling, changes)
        self._parts: tuple[Part, ...] = ()
        self._modality: Modality | None = None  # of the latest reply
        self._generation: Generation | None = None  # None: not begun, or a reply is using it

    @property
    def document(self) -> Document:
        """Return the conversation so far; its images hold both pixels and codes."""
        return Document(self._parts)

    def __call__(
        self, text: str, images: Sequence[Source] = (), modality: Modality | None = None
    ) -> Reply:
        """Take the user's turn, text with or without images, and return the whole reply.

        modality: 'text' for a reply without images, 'image' for one image and nothing else, None
        for what the model chooses. Raise ValueError for an empty prompt, for an image that cannot
        be used (ImageError), and where the conversation no longer fits the model's context.
        """
        *_, reply = self.stream(text, images, modality)
        assert isinstance(reply, Reply), f"the last event is a Reply, not {type(reply).__name__}"
        return reply

    def stream(
        self, text: str, images: Sequence[Source] = (), modality: Modality | None = None
    ) -> Iterator[ChatEvent]:
        """Take the user's turn and return an iterator of events, the last of which is the Reply.

        Errors are those of a call, and are raised here, before the first event. An iterator that is
        dropped before its end leaves the conversation unchanged.
        """
        _check_images(images)
        _check_text(text, images)
        modality = self.model.constraint(modality)
        notes, seen = [], []
        for source in images:
            part, said = self._see(source)
            seen.append(part)
            notes += said
        words = (Text(text, role="user"),) if text.strip() else ()
        document = Document((*self._parts, *seen, *words))
        model, asked = self.model.asked(document, modality)
        notes += self.model.overlooked(document, modality)
        self._check_room(model, asked)
        return self._reply(document, tuple(notes), modality)

    @property
    def asked(self) -> str:
        """Return the words of the latest turn; raise ValueError where there is none."""
        texts = [part for part in self._latest() if isinstance(part, Text) and part.role == "user"]
        return " ".join(part.text for part in texts)

    def again(self) -> Iterator[ChatEvent]:
        """Answer the latest turn anew, with the next seed, as `stream` does; the new reply takes
        the old one's place once it is finished.
        """
        asked = [part for part in self._latest() if part.role != "assistant"]
        earlier = self._parts[: len(self._parts) - len(self._latest())]
        return self._reply(Document((*earlier, *asked)), (), self._modality)

    def undo(self) -> None:
        """Forget the latest turn and its reply; raise ValueError where there is none."""
        self._keep(self._parts[: len(self._parts) - len(self._latest())])

    def forget(self, num_turns: int) -> None:
        """Forget the oldest turns with their replies; raise ValueError where there are fewer."""
        found = exchanges(self.document)
        if not 1 <= num_turns <= len(found):
            raise ValueError(f"{num_turns} of {len(found)} turns cannot be forgotten")
        self._keep(tuple(part for one in found[num_turns:] for part in one))

    def reset(self) -> None:
        """Forget the conversation; the sampling stays."""
        self._keep(())

    def resume(self, document: Document) -> None:
        """Go on with another conversation, in place of this one.

        Raise ValueError where it does not end with a reply, or where its images are of another
        codec and have no pixels.
        """
        if not document.parts or document.parts[-1].role != "assistant":
            raise ValueError("the conversation does not end with a reply: nothing can follow it")
        codec = self.model.codec
        self._keep(codec.decode_document(codec.encode_document(document)).parts)

    def _keep(self, parts: tuple[Part, ...]) -> None:
        self._parts, self._modality = parts, None

    def _latest(self) -> tuple[Part, ...]:
        """Return the parts of the latest turn and its reply."""
        found = exchanges(self.document)
        if not found:
            raise ValueError("nothing has been said yet")
        return found[-1]

    def _reply(
        self, document: Document, notes: tuple[str, ...], modality: Modality | None
    ) -> Iterator[ChatEvent]:
        """Yield the events of the reply to a document; at its end both join the conversation."""
        yield from map(Note, notes)
        drawn: list[Image] = []
        sampling = self.sampling
        for event in self._events(document, sampling, modality):
            if isinstance(event, ImageDone):
                drawn += self.model.codec.decode([event.image])
                yield Drawn(_image(drawn[-1]))
            elif isinstance(event, ReplyDone):
                reply = _whole(event, drawn, notes, sampling.seed)
                self._parts, self._modality = (*document.parts, *reply.parts), modality
                self.sampling = replace(self.sampling, seed=(sampling.seed + 1) % NUM_SEEDS)
                yield reply
            else:
                yield event

    def _events(
        self, document: Document, sampling: Sampling, modality: Modality | None
    ) -> Iterator[Event]:
        """Yield the events of the reply to a document.

        What was read of the conversation stays for the next reply, unless this one ends within a
        step: then it is unknown what the cache holds.
        """
        generation = self._generation or Generation(self.model, 1, NUM_PREFIXES)
        number = generation.submit(document, sampling, modality)
        self._generation = None
        try:
            yield from generation.run()
        except GeneratorExit:  # dropped between two steps
            generation.cancel(number)
            self._generation = generation
            raise
        self._generation = generation

    def _see(self, source: Source) -> tuple[Image, list[str]]:
        """Open and encode an image; return it and notes on what was done to it."""
        pixels, notes = self.model.fitted(source)
        (image,) = self.model.codec.encode([Image(pixels, role="user")])
        name = source if isinstance(source, str) else getattr(source, "name", "the image")
        return image, [f"{name}: {note}" for note in notes]

    def _check_room(self, model: Model, document: Document) -> None:
        needed = model.sequencer.layout.length(model.grid) + TEXT_ROOM
        if problem := refusal(model.sequencer, document, model.context, needed):
            raise ValueError(problem)


def _sized(model: Model, size: tuple[int, int] | None) -> Model:
    """Return the model that draws images of this size; raise ValueError where it does not."""
    if size is None or tuple(size if isinstance(size, list | tuple) else ()) in model.sizes:
        return model
    is_pair = isinstance(size, list | tuple) and len(size) == 2
    if is_pair and model.drawer.sequencer.layout.says_any_size:
        return replace(model, grid=model.image_tokenizer.geometry.grid_of(size[1], size[0]))
    known = " or ".join(f"{width}x{height}" for width, height in model.sizes)
    said = f"{size[0]}x{size[1]}" if is_pair else f"{size!r} is no (width, height)"
    raise ValueError(f"size {said}: this model draws {known} pixels")


def _check_images(images: Sequence[Source]) -> None:
    if not isinstance(images, list | tuple):
        raise ValueError(f"images {images!r}: give a list, such as images=['photo.png']")


def _check_text(text: str, images: Sequence[Source]) -> None:
    if not text.strip() and not images:
        raise ValueError("the prompt is empty: write what to draw or ask, or give an image")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:  # bytes that a terminal passed on as they were
        raise ValueError(f"the prompt is not UTF-8 text: {text!r}") from error


def _image(image: Image) -> PILImage.Image:
    assert image.pixels is not None, "images of a conversation have pixels"
    return PILImage.fromarray(image.pixels)


def _whole(done: ReplyDone, drawn: list[Image], notes: tuple[str, ...], seed: int) -> Reply:
    """Return the reply that is done; its images are those in `drawn`, which have pixels."""
    with_pixels = iter(drawn)
    parts = tuple(next(with_pixels) if isinstance(part, Image) else part for part in done.parts)
    texts = [part.text.strip() for part in parts if isinstance(part, Text)]
    return Reply(
        text=" ".join(text for text in texts if text),
        images=[_image(image) for image in drawn],
        notes=notes,
        seed=seed,
        parts=parts,
        end=done.end,
    )
