"""A trained model, ready for use: its module, vocabulary, both tokenizers and provenance."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from unimodal.tokenizer.autoencoder import ImageTokenizer
from unimodal.tokenizer.grid import Grid

from .codec import ImageCodec
from .sampling import Sampling
from .sequencer import Sequencer
from .text import TextTokenizer
from .unified import UnifiedModel
from .vocabulary import Vocabulary


@dataclass(frozen=True, eq=False)
class Model:
    """Everything a conversation, an evaluation or an export needs of a trained model."""

    transformer: UnifiedModel  # float32, in evaluation mode
    text_tokenizer: TextTokenizer
    image_tokenizer: ImageTokenizer
    sampling: Sampling  # defaults that its makers chose
    context: int  # tokens a sequence may take
    grid: Grid  # of the images it draws
    card: dict[str, Any]  # provenance and scores
    hash: str  # hex sha256 of all files but card and README

    @property
    def vocabulary(self) -> Vocabulary:
        """Return the table of its ids."""
        return self.transformer.architecture.vocabulary

    @cached_property
    def sequencer(self) -> Sequencer:
        """Return what turns documents into its tokens."""
        inputs = self.transformer.head.inputs
        return Sequencer(self.vocabulary, self.text_tokenizer, self.image_tokenizer.hash, inputs)

    @cached_property
    def codec(self) -> ImageCodec:
        """Return what turns its images' pixels into codes and back."""
        return ImageCodec(self.image_tokenizer, self.transformer.lm_head_weight.device)

    @property
    def canvas(self) -> tuple[int, int]:
        """Return (width, height) in pixels of the images it draws and is given."""
        height, width = self.image_tokenizer.geometry.size_of(self.grid)
        return width, height
