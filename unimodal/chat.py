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
4. Only a finished reply joins the conversation: a turn that is refused, fails or is interrupted
   leaves it unchanged. Each finished reply increases the seed by one, so that asking again draws
   another image.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image as PILImage

from unimodal.tokenizer.pixels import Source, fit, open_image

from .document import Document, Image, Part, Text
from .events import ImageDone, ImageProgress, ReplyDone, TextDelta
from .generation import stream
from .model import Model
from .sampling import Sampling

TEXT_ROOM = 32  # tokens kept free for the text of a reply, beside those of one image
NUM_SEEDS = 2**64


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


ChatEvent = Note | TextDelta | ImageProgress | Drawn | Reply


class Chat:
    """A Chat is one conversation with a model. `sampling` may be replaced between replies."""

    def __init__(self, model: Model, sampling: Sampling | None = None, **changes: Any) -> None:
        """Start an empty conversation.

        sampling: the settings of replies; None: the model's defaults. changes: values that replace
        fields of these settings, such as seed=1.
        """
        self.model = model
        self.sampling = replace(sampling or model.sampling, **changes)
        self._parts: tuple[Part, ...] = ()

    @property
    def document(self) -> Document:
        """Return the conversation so far; its images hold both pixels and codes."""
        return Document(self._parts)

    def __call__(self, text: str, images: Sequence[Source] = ()) -> Reply:
        """Take the user's turn, text with or without images, and return the whole reply.

        Raise ValueError for an empty prompt, for an image that cannot be used (ImageError), and
        where the conversation no longer fits the model's context.
        """
        *_, reply = self.stream(text, images)
        assert isinstance(reply, Reply), f"the last event is a Reply, not {type(reply).__name__}"
        return reply

    def stream(self, text: str, images: Sequence[Source] = ()) -> Iterator[ChatEvent]:
        """Take the user's turn and return an iterator of events, the last of which is the Reply.

        Errors are those of a call, and are raised here, before the first event. An iterator that is
        dropped before its end leaves the conversation unchanged.
        """
        _check_text(text, images)
        notes, seen = [], []
        for source in images:
            part, said = self._see(source)
            seen.append(part)
            notes += said
        words = (Text(text, role="user"),) if text.strip() else ()
        document = Document((*self._parts, *seen, *words))
        self._check_room(document)
        return self._reply(document, tuple(notes))

    def reset(self) -> None:
        """Forget the conversation; the sampling stays."""
        self._parts = ()

    def _reply(self, document: Document, notes: tuple[str, ...]) -> Iterator[ChatEvent]:
        """Yield the events of the reply to a document; at its end both join the conversation."""
        yield from map(Note, notes)
        drawn: list[Image] = []
        sampling = self.sampling
        for event in stream(self.model, [document], sampling):
            if isinstance(event, ImageDone):
                drawn += self.model.codec.decode([event.image])
                yield Drawn(_image(drawn[-1]))
            elif isinstance(event, ReplyDone):
                reply = _whole(event.parts, drawn, notes, sampling.seed)
                self._parts = (*document.parts, *reply.parts)
                self.sampling = replace(self.sampling, seed=(sampling.seed + 1) % NUM_SEEDS)
                yield reply
            else:
                yield event

    def _see(self, source: Source) -> tuple[Image, list[str]]:
        """Open and encode an image; return it and notes on what was done to it."""
        opened, canvas = open_image(source), self.model.canvas
        notes, old = list(opened.notes), opened.image.size
        if old != canvas:
            size = f"{old[0]} x {old[1]} to {canvas[0]} x {canvas[1]} pixels"
            cropped = " and cropped" if old[0] * canvas[1] != old[1] * canvas[0] else ""
            notes.append(f"resized{cropped} from {size}")
        pixels = np.asarray(fit(opened.image, canvas))
        (image,) = self.model.codec.encode([Image(pixels, role="user")])
        name = source if isinstance(source, str) else getattr(source, "name", "the image")
        return image, [f"{name}: {note}" for note in notes]

    def _check_room(self, document: Document) -> None:
        used, context = len(self.model.sequencer.prompt(document)), self.model.context
        needed = self.model.sequencer.layout.length(self.model.grid) + TEXT_ROOM
        if used + needed <= context:
            return
        way_out = "start a new conversation" if self._parts else "shorten the prompt"
        raise ValueError(
            f"the conversation would take {used:,} of the model's {context:,} tokens, and a"
            f" reply needs up to {needed}: {way_out}"
        )


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


def _whole(parts: tuple[Part, ...], drawn: list[Image], notes: tuple[str, ...], seed: int) -> Reply:
    """Return the reply with these parts; its images are those in `drawn`, which have pixels."""
    with_pixels = iter(drawn)
    parts = tuple(next(with_pixels) if isinstance(part, Image) else part for part in parts)
    texts = [part.text.strip() for part in parts if isinstance(part, Text)]
    return Reply(
        text=" ".join(text for text in texts if text),
        images=[_image(image) for image in drawn],
        notes=notes,
        seed=seed,
        parts=parts,
    )
