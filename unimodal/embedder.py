"""How a clean image enters the transformer: the vectors that stand at its positions."""

from typing import Protocol

from torch import Tensor

from .transformer import Transformer


class Reader(Protocol):
    """Gives the vectors of a batch; those of text are always the embeddings of its ids."""

    def __call__(self, transformer: Transformer, ids_BT: Tensor) -> Tensor:
        """ids_BT int64 -> x_BTD."""
        ...


class CodeReader:
    """A image enters as the embeddings of its codes, rows of the same table as text."""

    def __call__(self, transformer: Transformer, ids_BT: Tensor) -> Tensor:
        """ids_BT int64 -> x_BTD."""
        return transformer.embed(ids_BT)
