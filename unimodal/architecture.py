"""The shape of a model: transformer, ids, and how images enter and leave."""

from dataclasses import dataclass, field

from .transformer import TransformerConfig
from .vocabulary import Vocabulary


@dataclass(frozen=True)
class ImageConfig:
    """How images enter and leave the transformer."""

    head: str = "next_code"
    """The image head: a file of unimodal/heads, or `module:Class` of one's own."""
    levels: tuple[int, ...] = ()
    """Levels of the codec's quantizer when codes are factorised: a code then enters, and is scored,
    by the sum of its levels' embeddings beside its own row; (): they are not."""
    addresses: bool = False
    """Whether learned embeddings of row and column are added at the tokens of an image."""


@dataclass(frozen=True)
class Architecture:
    """All that the names and shapes of a model's parameters follow from."""

    transformer: TransformerConfig
    vocabulary: Vocabulary
    image: ImageConfig = field(default_factory=ImageConfig)
