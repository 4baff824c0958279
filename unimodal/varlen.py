"""Tokens of several rows side by side, some of each, without padding, as kernels of variable length
take them (FlashAttention, arXiv:2205.14135).

Letters: B rows, T tokens of the row with most, N tokens of all rows.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Varlen:
    """A Varlen says which token of which row each of them is."""

    lengths_B: np.ndarray
    row_N: Tensor
    offset_N: Tensor
    """int64: which of its row's tokens it is."""
    place_BT: Tensor
    """int64: where each row's tokens stand; of the last one where it has no more."""

    @classmethod
    def of(cls, lengths_B: np.ndarray) -> "Varlen":
        """Return that of so many tokens of each row, at least one."""
        first_B = np.cumsum(lengths_B) - lengths_B
        row_N = np.repeat(np.arange(len(lengths_B)), lengths_B)
        offset_N = np.arange(len(row_N)) - first_B[row_N]
        offset_BT = np.minimum(np.arange(lengths_B.max()), lengths_B[:, None] - 1)
        return cls(
            lengths_B, *map(torch.from_numpy, (row_N, offset_N, first_B[:, None] + offset_BT))
        )

    def padded(self, x_NX: Tensor) -> Tensor:
        """Return what tokens have, (N, ...), row by row, (B, T, ...): a row's last again where it
        has no more.
        """
        return x_NX[self.place_BT]

    def packed(self, x_BTX: Tensor) -> Tensor:
        """Undo `padded`."""
        return x_BTX[self.row_N, self.offset_N]
