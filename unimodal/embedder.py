"""Image embedders give the tokens of clean images (not noised or masked) their input vectors.

Letters: B rows, T tokens, M ids beside those of tokens, D width, C image codes, L levels of a
factorised code.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .architecture import Architecture
from .code_levels import CodeLevels
from .sequence import Span
from .vocabulary import MAX_SIDE, Vocabulary


class ModelInput(Protocol):
    """A ModelInput is what a model reads: a Batch, or the next tokens of some branches."""

    @property
    def ids(self) -> Tensor:
        """Return the ids, int64 (B, T)."""
        ...

    @property
    def address(self) -> Tensor:
        """Return rows and columns as in Sequence.address, int (B, T, 2)."""
        ...

    @property
    def spans(self) -> Sequence[Sequence[Span]]:
        """Return for each row the spans of its images."""
        ...


class ImageEmbedder(nn.Module):
    """An ImageEmbedder gives the tokens of images their input vectors; it may hold weights."""

    uses_addresses = False
    """Whether `forward` uses ModelInput.address."""

    def more_ids(self, tokens: ModelInput) -> Tensor | None:
        """Return ids, int64 (M,), whose embeddings (M, D) `forward` is given as a third argument;
        None: those of the tokens suffice.
        """
        return None

    def products(self, tokens: ModelInput) -> int:
        """Return how many multiplications `forward` takes, to count FLOPs: none where it only looks
        up and adds.
        """
        return 0

    def forward(self, x_BTD: Tensor, tokens: ModelInput) -> Tensor:
        """Return x_BTD, the embeddings of all ids, with those of images replaced or changed."""
        raise NotImplementedError


class CodeEmbedder(ImageEmbedder):
    """A CodeEmbedder lets images enter as codes, by the embedding table that text uses too.

    With `addresses`, learned embeddings of a row and a column are added to each token that has an
    address. Both tables start at zero, so a trained model that gets them is unchanged at first.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.uses_addresses = architecture.image.addresses
        if self.uses_addresses:
            width = architecture.transformer.width
            self.rows = nn.Embedding(MAX_SIDE + 1, width, padding_idx=0)
            self.columns = nn.Embedding(MAX_SIDE + 1, width, padding_idx=0)

    def forward(self, x_BTD: Tensor, tokens: ModelInput) -> Tensor:
        """Return x_BTD with the embeddings of row and column added where tokens have an address."""
        if not self.uses_addresses:
            return x_BTD
        address_BT2 = tokens.address.long()
        return x_BTD + self.rows(address_BT2[..., 0]) + self.columns(address_BT2[..., 1])


class LevelEmbedder(CodeEmbedder):
    """A LevelEmbedder lets a code enter as the sum of the embeddings of its quantizer levels.

    Codes have no rows of their own, so the table has as many rows as there are values of levels: 36
    for the 2^18 codes of 18 bits (as MAGVIT-v2 factorises its tokens, arXiv:2310.05737). Addresses
    are added as by CodeEmbedder.
    """

    def __init__(self, architecture: Architecture) -> None:
        """Make the table; raise ValueError where the levels do not make the codes."""
        super().__init__(architecture)
        self.levels = CodeLevels.of(architecture.image.levels, architecture.vocabulary)
        self.table = nn.EmbeddingBag(
            self.levels.num_rows, architecture.transformer.width, mode="sum"
        )

    def forward(self, x_BTD: Tensor, tokens: ModelInput) -> Tensor:
        """Return x_BTD with the vectors of codes in their places."""
        # All tokens are looked up, texts as code 0: which of them are codes is then never asked
        # of a GPU, and every rank has a gradient, if of zeros.
        codes_BT = self.levels.codes(tokens.ids)
        is_code_BT = codes_BT >= 0
        rows_BTL = self.levels.rows(self.levels.values(codes_BT.masked_fill(~is_code_BT, 0)))
        codes_BTD = self.table(rows_BTL.flatten(0, 1)).view(x_BTD.shape).to(x_BTD.dtype)
        return super().forward(torch.where(is_code_BT[..., None], codes_BTD, x_BTD), tokens)


class FactorisedCodes(nn.Module):
    """FactorisedCodes give a code a vector: the sum of the embeddings of its quantizer levels.

    Codes with a common level share what is learned of it. The embeddings start at zero.
    """

    def __init__(self, levels: tuple[int, ...], vocabulary: Vocabulary, width: int) -> None:
        """Make the table; raise ValueError where the levels do not multiply to the vocabulary's
        number of codes.
        """
        super().__init__()
        self._levels, self.vocabulary = CodeLevels.of(levels, vocabulary), vocabulary
        self.table = nn.Embedding(self._levels.num_rows, width)
        self._kept: tuple[tuple, Tensor, Tensor] | None = None  # (state of the table, it, sum)

    def index(self, device: torch.device) -> Tensor:
        """Return the table's row for each level of each code, int64 (C, L)."""
        codes_C = torch.arange(self.vocabulary.num_codes, device=device)
        return self._levels.rows(self._levels.values(codes_C))

    def forward(self) -> Tensor:
        """Return what is added to the embedding of each id, (V, D); 0 where an id is not a code."""
        weight = self.table.weight
        # While sampling, the table does not change: the sum is made once and kept.
        fixed = not self.training and not torch.is_grad_enabled()
        # Of which weights a sum was kept: their memory stays taken, or others could lie there.
        state = weight.data_ptr(), weight._version, weight.dtype, weight.device
        if fixed and self._kept and self._kept[0] == state:
            return self._kept[2]
        ids_C = torch.from_numpy(self.vocabulary.code_ids).to(weight.device)
        added_VD = weight.new_zeros(self.vocabulary.size, weight.shape[1])
        added_VD.index_copy_(0, ids_C, self._levels.sums(weight))
        self._kept = (state, weight.detach(), added_VD) if fixed else None
        return added_VD


def add_code_embeddings(x_BTD: Tensor, ids_BT: Tensor, added_VD: Tensor) -> Tensor:
    """Return the embeddings x_BTD of ids with the vectors of factorised codes added."""
    return x_BTD + F.embedding(ids_BT, added_VD)
