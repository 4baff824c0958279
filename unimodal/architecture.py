"""An architecture is a model's transformer, its vocabulary, and how images enter and leave it."""

from dataclasses import dataclass, field

from .heads.mask_schedule import MaskSchedule
from .rectified_flow import FlowConfig
from .tower import Tower
from .transformer import TransformerConfig
from .vocabulary import MAX_SIDE, Vocabulary


@dataclass(frozen=True)
class ImageConfig:
    """ImageConfig chooses how images enter the transformer and how they are predicted."""

    head: str = "next_code"
    """The image head: the name of a file in unimodal/heads, or `module:Class` of a user's own."""
    levels: tuple[int, ...] = ()
    """The levels of the image tokenizer's quantizer, where codes enter and leave by them; () where
    they do not. With `code_rows` codes are factorised: the embedding of a code, and its row of the
    output table, is its own row plus the sum of its levels' embeddings."""
    addresses: bool = False
    """Whether learned embeddings of the row and the column are added at tokens of an image."""
    code_rows: bool = True
    """Whether each code has a row of its own in the embedding and in the output table; False: the
    tables end with text and special tokens, and the image embedder and the image head have
    parameters for codes, such as for their levels."""
    code_width: int = 0
    """Numbers of a code's vector in the table of the head's own embedder (Janus); 0: codes have
    none."""
    latent_width: int = 0
    """The numbers of a latent of the image tokenizer; 0 where images are codes."""
    masked: MaskSchedule | None = None
    """The settings of the head `masked`; None: of another head."""
    flow: FlowConfig | None = None
    """The settings of the head `flow`: how latents become tokens, and at which times they are
    learned; None: of another head."""
    boxes: bool = False
    """Whether requests may say what is to stand where (document.Box): the model was trained so."""
    two_way: bool = False
    """Whether the tokens of a user's turn see each other both ways."""
    tower: Tower | None = None
    """The vision tower by which images that are given enter; None: they enter as drawn ones do."""


@dataclass(frozen=True)
class Architecture:
    """An Architecture determines the names and shapes of all parameters of a model."""

    transformer: TransformerConfig
    vocabulary: Vocabulary
    image: ImageConfig = field(default_factory=ImageConfig)

    @property
    def num_rows(self) -> int:
        """Return how many rows the embedding and the output table have."""
        return self.vocabulary.size if self.image.code_rows else self.vocabulary.num_words

    @property
    def is_factorised(self) -> bool:
        """Return whether the levels of a code add to its own row."""
        return bool(self.image.levels) and self.image.code_rows

    @property
    def max_side(self) -> int | None:
        """Return how many rows and columns of codes have an embedding; None: addresses are off."""
        return MAX_SIDE if self.image.addresses else None
