"""The one module that is trained, sharded, averaged, saved and loaded: a transformer with an image
embedder and an image head.

Parameters of the transformer keep the names that Hugging Face gives them; those of the others begin
with `embedder.`, `head.` and `code_factors.`.

Letters: B rows, T tokens, N tokens of all rows, D width, V ids.
"""

import torch
from torch import Tensor

from .attention import Attend
from .embedder import FactorisedCodes, Tokens, embedded_rows
from .heads import head_class
from .shape import ModelShape
from .transformer import Transformer, TransformerConfig, initial

TRANSFORMER = ("model.", "lm_head.")  # how the names of its parameters begin
ZEROS = ("embedder.rows.", "embedder.columns.", "code_factors.", "head_factors.")


class UnifiedModel(Transformer):
    """A transformer that reads and draws images too."""

    def __init__(
        self, shape: ModelShape, seed: int = 0, recompute: bool = False, trusted: bool = False
    ) -> None:
        """Weights are a pure function of (shape, seed), or absent on the meta device; arguments as
        Transformer's. `trusted`: whether the head's name comes from the user (see head_class).
        """
        super().__init__(shape.transformer, seed, recompute)
        self.shape = shape
        kind = head_class(shape.image.head, trusted)
        self.embedder = kind.embedder(shape)
        self.head = kind(shape)
        if shape.image.levels:
            width, tied = shape.transformer.width, shape.transformer.tied_head
            self.code_factors = FactorisedCodes(shape.image.levels, shape.vocabulary, width)
            if not tied:
                self.head_factors = FactorisedCodes(shape.image.levels, shape.vocabulary, width)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if not parameter.is_meta and not name.startswith(TRANSFORMER):
                    start = initial_weight(name, parameter.shape, shape.transformer, seed)
                    parameter.copy_(start)

    def read(self, tokens: Tokens, positions_BT: Tensor, attend: Attend) -> Tensor:
        """Return hidden_BTD of a batch, or of what requests read."""
        x_BTD = self.embed(tokens.ids)
        if self.shape.image.levels:
            x_BTD = embedded_rows(x_BTD, tokens.ids, self.code_factors())
        return self(self.embedder(x_BTD, tokens), positions_BT, attend)

    def output_table(self) -> Tensor:
        """Return the rows (V, D) by which hidden vectors score ids."""
        if not self.shape.image.levels:
            return self.head_weight
        tied = self.shape.transformer.tied_head
        return self.head_weight + (self.code_factors if tied else self.head_factors)()


def initial_weight(
    name: str, size: tuple[int, ...], config: TransformerConfig, seed: int
) -> Tensor:
    """Return the float32 tensor that a parameter starts from: a pure function of its arguments.

    What is added to embeddings begins at zero: a model that gets it stays, at first, what it was.
    """
    if name.startswith(ZEROS):
        return torch.zeros(size)
    return initial(name, tuple(size), config.num_layers, seed)


def parameter_shapes(shape: ModelShape) -> dict[str, tuple[int, ...]]:
    """Return {name: shape} of every parameter, in the order of the model."""
    with torch.device("meta"):
        parameters = UnifiedModel(shape).named_parameters()
        return {name: tuple(parameter.shape) for name, parameter in parameters}
