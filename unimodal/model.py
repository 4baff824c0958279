"""A Model is a trained model that is ready for use, with its tokenizers, settings and card."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from unimodal.tokenizer.grid import Grid
from unimodal.tokenizer.saved import SavedTokenizer

from .codec import ImageCodec
from .sampling import Sampling
from .sequencer import Sequencer
from .text import TextTokenizer
from .unified import UnifiedModel
from .vocabulary import Vocabulary

Weights = Literal["fp32", "int8"]


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

    @property
    def vocabulary(self) -> Vocabulary:
        """Return the model's table of ids."""
        return self.transformer.architecture.vocabulary

    @cached_property
    def sequencer(self) -> Sequencer:
        """Return the sequencer that converts documents to the model's tokens."""
        inputs, architecture = self.transformer.head.inputs, self.transformer.architecture
        return Sequencer(
            self.vocabulary, self.text_tokenizer, self.image_tokenizer.hash, inputs,
            architecture.max_side, architecture.image.tower,
        )  # fmt: skip

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
