"""The unified model is a transformer with an image embedder and an image head, in one module.

This module is what is trained, sharded, averaged, saved and loaded.

Parameters of the transformer keep the names that Hugging Face gives them; those of the others begin
with `embedder.`, `tower.`, `head.` and `code_factors.`.

Letters: B rows, T tokens, N tokens of all rows, D width, V ids.
"""

import torch
from torch import Tensor

from .architecture import Architecture
from .attention import Attend
from .code_levels import codes_of
from .embedder import FactorisedCodes, ModelInput, add_code_embeddings
from .heads import head_class
from .tower_embedder import TowerEmbedder
from .transformer import Transformer, TransformerConfig, initial_transformer_weight

TRANSFORMER = ("model.", "lm_head.")  # prefixes of the names of the transformer's parameters
ZEROS = ("embedder.rows.", "embedder.columns.", "code_factors.", "head_factors.")


class UnifiedModel(Transformer):
    """A UnifiedModel is a transformer that reads and writes both text and images."""

    def __init__(
        self,
        architecture: Architecture,
        seed: int = 0,
        recompute: bool | int = False,
        trusted: bool = False,
    ) -> None:
        """Initialise the weights from (architecture, seed) alone; none on the meta device.

        recompute: as for Transformer. trusted: whether the head's name comes from the user (see
        head_class).
        """
        super().__init__(architecture.transformer, seed, recompute)
        self.architecture = architecture
        # Of which weight, by its state, and which addend, a sum is kept; and the sum.
        self._table: tuple[tuple, Tensor, Tensor] | None = None
        kind = head_class(architecture.image.head, trusted)
        if kind.code_rows != architecture.image.code_rows:
            raise ValueError(
                f"image head {architecture.image.head!r} with image.code_rows "
                f"{architecture.image.code_rows}: its codes have "
                f"{'' if kind.code_rows else 'no '}rows of their own"
            )
        self.embedder = kind.embedder(architecture)
        if architecture.image.tower is not None:
            self.tower = TowerEmbedder(architecture)
        self.head = kind(architecture)
        if architecture.is_factorised:
            width, tied = architecture.transformer.width, architecture.transformer.tied_head
            self.code_factors = FactorisedCodes(
                architecture.image.levels, architecture.vocabulary, width
            )
            if not tied:
                self.head_factors = FactorisedCodes(
                    architecture.image.levels, architecture.vocabulary, width
                )
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if not parameter.is_meta and not name.startswith(TRANSFORMER):
                    start = initial_weight(name, parameter.shape, architecture.transformer, seed)
                    parameter.copy_(start)

    def embed(self, ids_BT: Tensor) -> Tensor:
        """Return the embeddings x_BTD of ids_BT, int in 0 .. vocabulary.size - 1.

        Codes without rows get any vector here: the image embedder replaces it.
        """
        if not self.architecture.image.code_rows:
            codes_BT = codes_of(ids_BT, self.architecture.vocabulary.code_runs)
            ids_BT = ids_BT.masked_fill(codes_BT >= 0, 0)
        return super().embed(ids_BT)

    def hidden_states(
        self,
        tokens: ModelInput,
        positions_BT: Tensor,
        attend: Attend,
        seen_BN: Tensor | None = None,
    ) -> Tensor:
        """Return the hidden vectors, hidden_BTD, of a batch or of what branches read.

        seen_BN: as for `forward`.
        """
        x_BTD, ids_BT = self.input_vectors(tokens), self.value_ids(tokens)
        return self(x_BTD, positions_BT, attend, seen_BN, ids_BT)

    def value_ids(self, tokens: ModelInput) -> Tensor | None:
        """Return the ids whose value embeddings are read, (B, T); None where there are none."""
        return tokens.ids if self.config.value_embeddings else None

    def input_vectors(self, tokens: ModelInput) -> Tensor:
        """Return the vectors with which texts and images enter, x_BTD."""
        added_VD = self.code_factors() if self.architecture.is_factorised else None
        more_M = self.embedder.more_ids(tokens)
        x_BTD = self._embedded(tokens.ids, added_VD)
        codes = () if more_M is None else (self._embedded(more_M, added_VD),)
        x_BTD = self.embedder(x_BTD, tokens, *codes)
        if self.architecture.image.tower is not None:
            x_BTD = self.tower(x_BTD, tokens)
        return x_BTD

    def _embedded(self, ids: Tensor, added_VD: Tensor | None) -> Tensor:
        """Return the embeddings of ids, with those of factorised codes, if they are, added."""
        x_D = self.embed(ids)
        return x_D if added_VD is None else add_code_embeddings(x_D, ids, added_VD)

    @property
    def output_factors(self) -> FactorisedCodes:
        """Return what is added to the output table where codes are factorised."""
        tied = self.architecture.transformer.tied_head
        return self.code_factors if tied else self.head_factors

    def output_table(self) -> Tensor:
        """Return the output table (V, D): logits are products of hidden vectors with its rows."""
        if not self.architecture.is_factorised:
            return self.lm_head_weight
        weight, added_VD = self.lm_head_weight, self.output_factors()
        # While sampling neither changes: the sum is made once and kept.
        if self.training or torch.is_grad_enabled():
            return weight + added_VD
        state = weight.data_ptr(), weight._version, weight.dtype, weight.device
        if self._table is None or self._table[0] != state or self._table[1] is not added_VD:
            self._table = state, added_VD, weight + added_VD
        return self._table[2]


def initial_weight(
    name: str, size: tuple[int, ...], config: TransformerConfig, seed: int
) -> Tensor:
    """Return a parameter's initial value, float32: a pure function of the arguments.

    Tables that are added to embeddings start at zero, so a trained model that gets them is
    unchanged at first.
    """
    if name.startswith(ZEROS):
        return torch.zeros(size)
    return initial_transformer_weight(name, tuple(size), config, seed)


def parameter_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Return {name: shape} of every parameter, in the order of the model."""
    with torch.device("meta"):
        parameters = UnifiedModel(architecture).named_parameters()
        return {name: tuple(parameter.shape) for name, parameter in parameters}
