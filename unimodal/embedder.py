"""How clean images enter the transformer: the vectors that stand at their tokens.

Letters: B rows, T tokens, D width, C image codes, L levels of a factorised code.
"""

from collections.abc import Sequence
from math import prod
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .architecture import Architecture
from .sequence import Span
from .vocabulary import MAX_SIDE, Vocabulary


class ModelInput(Protocol):
    """What an embedder is given of a batch, or of what a request reads."""

    @property
    def ids(self) -> Tensor:
        """int64 (B, T)."""
        ...

    @property
    def address(self) -> Tensor:
        """int (B, T, 2), row and column from 1, 0 elsewhere."""
        ...

    @property
    def spans(self) -> Sequence[Sequence[Span]]:
        """For each row, the images whose codes, latents or pixels are needed."""
        ...


class ImageEmbedder(nn.Module):
    """Gives tokens of images their vectors; may hold weights."""

    uses_addresses = False
    """Whether it looks at addresses."""

    def forward(self, x_BTD: Tensor, tokens: ModelInput) -> Tensor:
        """Return x_BTD, the embeddings of all ids, with those of images as they should be."""
        raise NotImplementedError


class CodeEmbedder(ImageEmbedder):
    """Images enter as codes: rows of the same table as text, perhaps with their address added.

    The token that predicts a code has that code's row and column added. Both tables begin at zero,
    so that a model which gets them stays, at first, what it was.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.uses_addresses = architecture.image.addresses
        if self.uses_addresses:
            width = architecture.transformer.width
            self.rows = nn.Embedding(MAX_SIDE + 1, width, padding_idx=0)
            self.columns = nn.Embedding(MAX_SIDE + 1, width, padding_idx=0)

    def forward(self, x_BTD: Tensor, tokens: ModelInput) -> Tensor:
        """Return x_BTD, with row and column added where tokens have an address."""
        if not self.uses_addresses:
            return x_BTD
        address_BT2 = tokens.address.long()
        return x_BTD + self.rows(address_BT2[..., 0]) + self.columns(address_BT2[..., 1])


class FactorisedCodes(nn.Module):
    """A vector for each code: the sum of its quantizer levels' embeddings, which begin at zero.

    Codes that share a level share what is learned of it. A code is the mixed-radix number of its
    levels, the first one the lowest digit (Mentzer et al., arXiv:2309.15505, sec. 3.1).
    """

    def __init__(self, levels: tuple[int, ...], vocabulary: Vocabulary, width: int) -> None:
        """ValueError where the levels do not make the vocabulary's codes."""
        super().__init__()
        if prod(levels) != vocabulary.num_codes:
            raise ValueError(f"levels {levels} do not make {vocabulary.num_codes} codes")
        self.table = nn.Embedding(sum(levels), width)
        self._levels, self._vocabulary = levels, vocabulary
        self._kept: tuple[tuple, Tensor, Tensor] | None = None

    def index(self, device: torch.device) -> Tensor:
        """Return the row of the table of each level of each code, int64 (C, L)."""
        code_C, first, radix, columns = torch.arange(prod(self._levels), device=device), 0, 1, []
        for count in self._levels:
            columns.append(first + code_C // radix % count)
            first, radix = first + count, radix * count
        return torch.stack(columns, dim=1)

    def forward(self) -> Tensor:
        """Return what is added to the row of each id, (V, D): zero for ids that are no codes."""
        weight = self.table.weight
        fixed = not self.training and not torch.is_grad_enabled()
        # Of which weights a sum was kept: their memory stays taken, or others could lie there.
        state = weight.data_ptr(), weight._version, weight.dtype, weight.device
        if fixed and self._kept and self._kept[0] == state:
            return self._kept[2]
        codes_CD = self.table(self.index(weight.device)).sum(dim=1)
        ids_C = torch.from_numpy(self._vocabulary.code_ids).to(weight.device)
        added_VD = codes_CD.new_zeros(self._vocabulary.size, codes_CD.shape[1])
        added_VD = added_VD.index_copy(0, ids_C, codes_CD)
        self._kept = (state, weight.detach(), added_VD) if fixed else None
        return added_VD


def add_code_embeddings(x_BTD: Tensor, ids_BT: Tensor, added_VD: Tensor) -> Tensor:
    """Return the embeddings of ids with what factorised codes add to them."""
    return x_BTD + F.embedding(ids_BT, added_VD)
