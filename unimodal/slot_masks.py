"""Which slots of a key-value cache a query sees: those of its own row, by `sequence.span_mask`.

A cache whose tokens all are causal and public stores nothing for it.

Letters: B rows, T appended tokens, N of them whose hidden vectors are wanted, S slots.
"""

import numpy as np
import torch
from torch import Tensor

from .sequence import may_see, same_block
from .zeros import enlarged

Numbers = tuple[Tensor, Tensor]
"""The block and the private number of each token, int64 (B, T), as in a Row."""


class SlotMasks:
    """SlotMasks hold the block and the private number of each slot, once some are not 0."""

    def __init__(self, device: torch.device) -> None:
        """Hold none."""
        self._device = device
        self._stored: Numbers | None = None

    @property
    def are_plain(self) -> bool:
        """Return whether all tokens are causal and public."""
        return self._stored is None

    def store(
        self, rows_B1: Tensor, slots_BT: Tensor, numbers: Numbers | None, size: tuple[int, int]
    ) -> None:
        """Store the numbers of the tokens in some slots; None: zeros. size: the cache's, (B, S)."""
        if numbers is None and self._stored is None:
            return
        if self._stored is None:
            block_BS, private_BS = (
                torch.zeros(size, dtype=torch.int64, device=self._device) for _ in range(2)
            )
            self._stored = block_BS, private_BS
        for stored_BS, given_BT in zip(self._stored, numbers or _zeros(slots_BT), strict=True):
            stored_BS.index_put_((rows_B1, slots_BT), given_BT)

    def of(
        self, slots_BT: Tensor, numbers: Numbers | None, rows: slice, end: int, dtype: torch.dtype
    ) -> Tensor:
        """Return what is added to the scores of queries in some slots, (B, 1, T, S): 0 where one
        sees a slot before `end`, else -inf. numbers: of the queries.
        """
        slots_S = torch.arange(end, device=slots_BT.device)
        seen_BTS = slots_S <= slots_BT[..., None]
        if self._stored is not None:
            block_BT, private_BT = numbers or _zeros(slots_BT)
            block_BS, private_BS = (stored_BS[rows, :end] for stored_BS in self._stored)
            seen_BTS = seen_BTS | same_block(block_BT, block_BS)
            seen_BTS = seen_BTS & may_see(private_BT, private_BS)
        mask_BTS = torch.zeros_like(seen_BTS, dtype=dtype)
        return mask_BTS.masked_fill_(~seen_BTS, -torch.inf)[:, None]

    def clear(self, rows: slice, held_B: np.ndarray) -> None:
        """Zero the numbers behind the first so many slots of rows, whose tokens are forgotten.

        Otherwise a later block with the same number would see their slots.
        """
        for stored_BS in self._stored or ():
            held = torch.from_numpy(held_B).to(stored_BS.device)
            slots_S = torch.arange(stored_BS.shape[1], device=stored_BS.device)
            stored_BS[rows] *= slots_S < held[:, None]

    def copy(self, source: int, row: int) -> None:
        """Copy the numbers of a row to another."""
        for stored_BS in self._stored or ():
            stored_BS[row] = stored_BS[source]

    def grow(self, size: tuple[int, int]) -> None:
        """Make room for a cache of (B, S)."""
        if self._stored is not None:
            block_BS, private_BS = (enlarged(stored_BS, size) for stored_BS in self._stored)
            self._stored = block_BS, private_BS


def _zeros(slots_BT: Tensor) -> Numbers:
    return torch.zeros_like(slots_BT), torch.zeros_like(slots_BT)
