"""A Model is a trained model that is ready for use, with its tokenizers, settings and card."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from unimodal.tokenizer.grid import Grid
from unimodal.tokenizer.pixels import Opened, Source
from unimodal.tokenizer.saved import SavedTokenizer

from .card import usable_context
from .codec import ImageCodec, fitted
from .document import Document, Text
from .families.fits import Fit
from .grammar import MODALITY_CONSTRAINTS, Modality
from .layout import Layout
from .sampling import Sampling
from .sequencer import Sequencer
from .text import TextTokenizer
from .unified import UnifiedModel
from .vocabulary import Vocabulary

Weights = Literal["fp32", "int8", "int4"]


@dataclass(frozen=True, eq=False)
class Model:
    """A Model holds all that a conversation, an evaluation or an export needs."""

    transformer: UnifiedModel  # float32 but for `weights`, in evaluation mode
    text_tokenizer: TextTokenizer
    image_tokenizer: SavedTokenizer
    sampling: Sampling  # default settings, stored in the bundle
    context: int  # the most tokens of a sequence
    grid: Grid  # the grid of the images that it draws
    card: dict[str, Any]  # provenance and scores
    hash: str  # hex sha256 of all files but card and README
    weights: Weights = "fp32"  # of the matrices of the layers
    layout: Layout | None = None  # of documents; None: the image head's own
    fit: Fit | None = None  # how given images are resized; None: to the canvas, cropped

    @property
    def vocabulary(self) -> Vocabulary:
        """Return the model's table of ids."""
        return self.transformer.architecture.vocabulary

    @property
    def usable_context(self) -> int:
        """Return the most tokens of a conversation: of those that the model has positions for, as
        many as its card says its replies hold for.
        """
        return usable_context(self.card, self.context)

    @cached_property
    def sequencer(self) -> Sequencer:
        """Return the sequencer that converts documents to the model's tokens."""
        inputs, architecture = self.transformer.head.inputs, self.transformer.architecture
        return Sequencer(
            self.vocabulary, self.text_tokenizer, self.image_tokenizer.hash, inputs,
            architecture.max_side, architecture.image.tower, self.layout, architecture.image.boxes,
            architecture.image.two_way,
        )  # fmt: skip

    @cached_property
    def drawer(self) -> "Model":
        """Return the model as it reads a request for an image alone: itself, unless its family lays
        these out in a way of their own.
        """
        drawing = self.sequencer.layout.layout.drawing
        return self if drawing is None else replace(self, layout=drawing.sized(self.grid))

    @property
    def replies(self) -> tuple[Modality | None, ...]:
        """Return the modality constraints that a reply can have, the default one first."""
        layout = self.sequencer.layout.layout
        return layout.replies if self.image_tokenizer.decodes else ("text",)

    @property
    def takes_boxes(self) -> bool:
        """Return whether a request may say what is to stand where (boxes.py)."""
        return "image" in self.replies and self.drawer.sequencer.takes_boxes

    def constraint(self, asked: Modality | None) -> Modality | None:
        """Return the modality constraint of a reply: the asked one; None: the model's default.

        Raise ValueError where it cannot reply so.
        """
        if asked is None:
            return self.replies[0]
        if asked == "image" and not self.image_tokenizer.decodes:
            raise ValueError(
                "this model draws nothing: its image tokenizer has no decoder; ask it in words"
            )
        if asked in MODALITY_CONSTRAINTS and asked not in self.replies:
            does, lacks = ("answers in words alone", "image") if asked == "image" else (
                "draws and does not answer in words", "text")  # fmt: skip
            raise ValueError(f"this model {does}: there is no {lacks} to ask it for")
        return asked

    def asked(self, document: Document, modality: Modality | None) -> tuple["Model", Document]:
        """Return the model that reads a request, and what it reads of it.

        A family that lays requests to draw out in a way of its own reads the latest words alone.
        Raise ValueError where these come with images.
        """
        if modality != "image" or self.drawer is self:
            return self, document
        latest = [part for role, parts in document.turns()[-1:] for part in parts]
        if not latest or any(not isinstance(part, Text) for part in latest):
            raise ValueError(
                "this model draws from words alone: leave the image out, or ask about it in words"
            )
        return self.drawer, Document(tuple(latest))

    def overlooked(self, document: Document, modality: Modality | None) -> list[str]:
        """Return a note where a reply is drawn from the latest of several turns (see `asked`)."""
        _, asked = self.asked(document, self.constraint(modality))
        if asked is document or len(document.turns()) == 1:
            return []
        return ["this model draws from the latest message alone"]

    def fitted(self, source: Source | Opened) -> tuple[np.ndarray, list[str]]:
        """Return the pixels of an image as the model is given them, and notes; see codec.fitted."""
        return fitted(source, self.canvas, self.fit)

    @cached_property
    def codec(self) -> ImageCodec:
        """Return the codec that converts pixels to the model's codes and back."""
        return ImageCodec(self.image_tokenizer, self.transformer.lm_head_weight.device)

    @property
    def canvas(self) -> tuple[int, int]:
        """Return (width, height) in pixels of the images that the model draws and is given."""
        height, width = self.image_tokenizer.geometry.size_of(self.grid)
        return width, height

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Return (width, height) in pixels of every image that the model can draw."""
        return [self.canvas]
