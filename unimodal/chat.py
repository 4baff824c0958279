"""A conversation: text and pictures in, text and pictures out, all of it staying in context.

    chat = unimodal.load().chat(seed=1)
    reply = chat("draw two red circles")      # reply.text, reply.images
    chat("make it blue")                      # the drawing is still there
    chat("what is this?", images=["a.png"])

1. Pictures are opened, fitted to the model's canvas and encoded; what was done is said in notes.
2. The turn is laid after the conversation; one that leaves no room for a reply is a ValueError.
3. The reply is streamed; drawn codes become pixels.
4. Only a finished reply joins the conversation: a refused, failed or interrupted one leaves no
   trace. Each finished reply moves the seed on by one, so that asking again draws anew.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image

from unimodal.tokenizer.pixels import Source, fit, open_picture, to_images, to_tensor

from .bundle import Model
from .document import Document, Part, Picture, Text
from .generation import PictureDone, PictureProgress, ReplyDone, Sampling, TextDelta, stream

TEXT_ROOM = 32  # positions kept free for the text of a reply, beside those of one picture
NUM_SEEDS = 2**64


@dataclass(frozen=True)
class Note:
    """What was done to a picture before the model saw it, in words."""

    text: str


@dataclass(frozen=True, eq=False)
class Drawn:
    """A finished picture of the reply, mode RGB."""

    image: Image.Image


@dataclass(frozen=True, eq=False)
class Reply:
    """A whole reply."""

    text: str  # all its texts, joined by spaces
    images: list[Image.Image]  # all its pictures, mode RGB
    notes: tuple[str, ...]  # on the pictures that were given
    seed: int  # that it was sampled with
    parts: tuple[Part, ...]  # its texts and pictures in order, as the conversation keeps them


Event = Note | TextDelta | PictureProgress | Drawn | Reply


class Chat:
    """One conversation with a model. `sampling` may be replaced between replies."""

    def __init__(self, model: Model, sampling: Sampling | None = None) -> None:
        """`sampling` None: the model's own defaults."""
        self.model = model
        self.sampling = sampling or model.sampling
        self._parts: tuple[Part, ...] = ()

    @property
    def document(self) -> Document:
        """The conversation so far; its pictures hold both pixels and codes."""
        return Document(self._parts)

    def __call__(self, text: str, images: Sequence[Source] = ()) -> Reply:
        """Say something, with pictures or without, and return the whole reply.

        ValueError for an empty prompt, a picture that cannot be used (PictureError) or a
        conversation that no longer fits the model's context.
        """
        *_, reply = self.stream(text, images)
        assert isinstance(reply, Reply), f"the last event is a Reply, not {type(reply).__name__}"
        return reply

    def stream(self, text: str, images: Sequence[Source] = ()) -> Iterator[Event]:
        """As a call, but yields what happens as it happens; the last event is the Reply.

        Errors come here, before the first event. An iterator that is dropped before its end
        leaves the conversation as it was.
        """
        _check_text(text, images)
        notes, pictures = [], []
        for image in images:
            picture, said = self._see(image)
            pictures.append(picture)
            notes += said
        words = (Text(text, role="user"),) if text.strip() else ()
        document = Document((*self._parts, *pictures, *words))
        self._check_room(document)
        return self._reply(document, tuple(notes))

    def reset(self) -> None:
        """Forget the conversation; the sampling stays."""
        self._parts = ()

    def _reply(self, document: Document, notes: tuple[str, ...]) -> Iterator[Event]:
        yield from map(Note, notes)
        drawn: list[Picture] = []
        sampling = self.sampling
        for event in stream(self.model, [document], sampling):
            if isinstance(event, PictureDone):
                drawn.append(painted(self.model, event.picture))
                yield Drawn(_image(drawn[-1]))
            elif isinstance(event, ReplyDone):
                reply = _whole(event.parts, drawn, notes, sampling.seed)
                self._parts = (*document.parts, *reply.parts)
                self.sampling = replace(self.sampling, seed=(sampling.seed + 1) % NUM_SEEDS)
                yield reply
            else:
                yield event

    def _see(self, source: Source) -> tuple[Picture, list[str]]:
        """A picture as the model reads it, and what was done to it."""
        opened, canvas = open_picture(source), self.model.canvas
        notes, old = list(opened.notes), opened.image.size
        if old != canvas:
            size = f"{old[0]} x {old[1]} to {canvas[0]} x {canvas[1]} pixels"
            cropped = " and cropped" if old[0] * canvas[1] != old[1] * canvas[0] else ""
            notes.append(f"resized{cropped} from {size}")
        fitted = fit(opened.image, canvas)
        tokenizer = self.model.tokenizer
        codes_1n1, grid = tokenizer.encode(to_tensor([fitted]).to(self._device))
        codes = codes_1n1.reshape(-1).cpu().numpy()
        pixels = np.asarray(fitted)
        picture = Picture(pixels, codes, grid, self.model.sequencer.tokenizer_hash, role="user")
        name = source if isinstance(source, str) else getattr(source, "name", "the picture")
        return picture, [f"{name}: {note}" for note in notes]

    @property
    def _device(self) -> torch.device:
        return next(self.model.tokenizer.parameters()).device

    def _check_room(self, document: Document) -> None:
        used, context = len(self.model.sequencer.prompt(document)), self.model.context
        needed = self.model.drawer.positions(self.model.grid) + TEXT_ROOM
        if used + needed <= context:
            return
        way_out = "start a new conversation" if self._parts else "shorten the prompt"
        raise ValueError(
            f"the conversation would take {used:,} of the model's {context:,} positions, and a"
            f" reply needs up to {needed}: {way_out}"
        )


def painted(model: Model, picture: Picture) -> Picture:
    """A picture of codes with its pixels beside them."""
    assert picture.codes is not None and picture.grid is not None, "a drawn picture has codes"
    codes_1n1 = torch.from_numpy(picture.codes.astype(np.int64)).reshape(1, -1, 1)
    device = next(model.tokenizer.parameters()).device
    images = model.tokenizer.decode(codes_1n1.to(device), picture.grid)
    return replace(picture, pixels=np.asarray(to_images(images)[0]))


def _check_text(text: str, images: Sequence[Source]) -> None:
    if not text.strip() and not images:
        raise ValueError("the prompt is empty: write what to draw or ask, or give a picture")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:  # bytes that a terminal passed on as they were
        raise ValueError(f"the prompt is not UTF-8 text: {text!r}") from error


def _image(picture: Picture) -> Image.Image:
    assert picture.pixels is not None, "pictures of a conversation have pixels"
    return Image.fromarray(picture.pixels)


def _whole(
    parts: tuple[Part, ...], drawn: list[Picture], notes: tuple[str, ...], seed: int
) -> Reply:
    """The reply of these parts, its pictures taken from `drawn`, which have pixels too."""
    painted = iter(drawn)
    parts = tuple(next(painted) if isinstance(part, Picture) else part for part in parts)
    texts = [part.text.strip() for part in parts if isinstance(part, Text)]
    return Reply(
        text=" ".join(text for text in texts if text),
        images=[_image(picture) for picture in drawn],
        notes=notes,
        seed=seed,
        parts=parts,
    )
