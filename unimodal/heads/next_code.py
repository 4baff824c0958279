"""How a image is predicted: what it takes in a sequence, what is lost on it, how it is sampled.

Letters: N positions that predict a code, D width, V image codes.
"""

from typing import Protocol

from torch import Tensor

from unimodal.tokenizer.grid import Grid

from ..grammar import image_length
from ..sampling import pick
from ..transformer import Transformer
from ..vocabulary import Vocabulary


class Drawer(Protocol):
    """One way to predict images; everything else is shared."""

    vocabulary: Vocabulary
    bidirectional: bool
    """Whether the positions of a image that is being learned see each other both ways."""

    def positions(self, grid: Grid) -> int:
        """Positions that a image takes in a sequence, its markers included."""
        ...

    @property
    def ids(self) -> tuple[int, int]:
        """The first id that a position of a image may hold, and the one after the last: its loss
        normalises over them.
        """
        ...

    def logits(self, transformer: Transformer, hidden_ND: Tensor) -> Tensor:
        """Scores of the codes that may come at N positions, (N, V)."""
        ...

    def sample(
        self,
        logits_NV: Tensor,
        uniform_N: Tensor,
        temperature: float,
        top_k: int | None,
        top_p: float | None,
    ) -> Tensor:
        """Codes, int64 (N,), drawn with the noise uniform_N (float64 in [0, 1))."""
        ...


class NextCode:
    """The `ar` drawer: each code from the ones before it, in reading order.

    A position of a image can hold nothing but a code, so its distribution is over the codes
    alone, in training as in sampling, and only their slice of the head is multiplied.
    """

    bidirectional = False

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary

    def positions(self, grid: Grid) -> int:
        """As the layout has it: each code once, with its markers."""
        return image_length(grid)

    @property
    def ids(self) -> tuple[int, int]:
        """Those of the codes."""
        return self.vocabulary.first_code, self.vocabulary.size

    def logits(self, transformer: Transformer, hidden_ND: Tensor) -> Tensor:
        """(N, V) by the codes' slice of the head."""
        return transformer.logits(hidden_ND, *self.ids)

    def sample(
        self,
        logits_NV: Tensor,
        uniform_N: Tensor,
        temperature: float,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> Tensor:
        """By the inverse of the cumulative distribution."""
        return pick(logits_NV, uniform_N, temperature, top_k, top_p)
