"""An architecture is a model's transformer, its vocabulary, and how images enter and leave it."""

from dataclasses import dataclass, field

from .transformer import TransformerConfig
from .vocabulary import MAX_SIDE, Vocabulary


@dataclass(frozen=True)
class ImageConfig:
    """ImageConfig chooses how images enter the transformer and how they are predicted."""

    head: str = "next_code"
    """The image head: the name of a file in unimodal/heads, or `module:Class` of a user's own."""
    levels: tuple[int, ...] = ()
    """The levels of the image tokenizer's quantizer where codes are factorised: the embedding of a
    code, and its row of the output table, is then its own row plus the sum of its levels'
    embeddings. (): codes are not factorised."""
    addresses: bool = False
    """Whether learned embeddings of the row and the column are added at tokens of an image."""


@dataclass(frozen=True)
class Architecture:
    """An Architecture determines the names and shapes of all parameters of a model."""

    transformer: TransformerConfig
    vocabulary: Vocabulary
    image: ImageConfig = field(default_factory=ImageConfig)

    @property
    def max_side(self) -> int | None:
        """Return how many rows and columns of codes have an embedding; None: addresses are off."""
        return MAX_SIDE if self.image.addresses else None
