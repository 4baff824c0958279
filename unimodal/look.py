"""A look is what rows of a forward see of the key-value cache.

On a CPU rows of unlike lengths are looked at apart, so that no short row's queries are compared
with as many slots as the longest one has: among a server's new conversations there is one of many
turns. Rows that stand beside each other share a product where it is worth it.

Letters: B rows, H query heads, G key-value heads, T queries, N queries whose hidden vectors are
wanted, S slots, C slots of a row, d head width.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .decode_attention import DecodeAttention


@dataclass(frozen=True, eq=False)
class Look:
    """A Look says what neighbouring rows see, the same in all layers of a device."""

    rows: slice
    """Which rows they are, of those of the forward."""
    end: int
    """How many slots of each row are looked at."""
    mask_B1TS: Tensor | None
    """None: all is seen, or what is causal."""
    seen_mask_B1NS: Tensor | None = None
    """The mask of those tokens whose hidden vectors are wanted alone."""
    decode: DecodeAttention | None = None
    """How few tokens attend on a CPU; None: as many do."""
    queries: slice | None = None
    """Which of the queries are theirs, where those of all rows lie side by side in one row."""
    is_only: bool = True
    """Whether they are all rows of the forward; then `rows` and `end` need not be cut out."""

    def to(self, device: torch.device) -> "Look":
        """Return the same on a device, for layers that lie there."""
        masks = self.mask_B1TS, self.seen_mask_B1NS
        mask, seen_mask = (None if one is None else one.to(device) for one in masks)
        return replace(self, mask_B1TS=mask, seen_mask_B1NS=seen_mask, decode=None)

    def __call__(
        self,
        q_BHTd: Tensor,
        keys_BGSd: Tensor,
        values_BGSd: Tensor,
        values_BGCd: Tensor,
        num_new: int,
    ) -> Tensor:
        """Return the attention of these rows' queries, out_BHTd.

        q, keys, values_BGSd: of all rows of the forward. values_BGCd: of all rows of the cache.
        num_new: how many tokens each row appended; fewer queries are those whose hidden vectors are
        wanted.
        """
        if not self.is_only:
            own = self.rows, slice(None), slice(self.end)
            keys_BGSd, values_BGSd = keys_BGSd[own], values_BGSd[own]
            q_BHTd = q_BHTd[self.rows] if self.queries is None else q_BHTd[:, :, self.queries]
        if self.decode is not None:
            return self.decode(q_BHTd, keys_BGSd, values_BGCd, self.mask_B1TS)
        num = q_BHTd.shape[2]
        mask_B1TS = self.mask_B1TS if num == num_new else self.seen_mask_B1NS
        return F.scaled_dot_product_attention(
            q_BHTd,
            keys_BGSd,
            values_BGSd,
            attn_mask=mask_B1TS,
            is_causal=mask_B1TS is None and num > 1,
            enable_gqa=q_BHTd.shape[1] != keys_BGSd.shape[1],
        )


class Appended(NamedTuple):
    """Appended says, on one device, where the keys of the next forward go and who sees them."""

    rows_B1: Tensor
    slots_BT: Tensor
    looks: list[Look]

    def to(self, device: torch.device) -> "Appended":
        """Return the same on a device."""
        looks = [look.to(device) for look in self.looks]
        return Appended(self.rows_B1.to(device), self.slots_BT.to(device), looks)


def row_runs(ends_B: np.ndarray, worth: int) -> list[tuple[slice, int]]:
    """Return rows in runs of neighbours, and the largest number of slots in each run.

    ends_B: how many slots each row looks at. worth: how many slots, of all rows together, a further
    run must save.
    """
    found: list[tuple[slice, int]] = []
    waiting = [slice(0, len(ends_B))]
    while waiting:
        rows = waiting.pop()
        own_B = ends_B[rows]
        num, end = len(own_B), int(own_B.max())
        # What is looked at where the first k rows are one run and the others another.
        split_K = np.arange(1, num)
        left_K = np.maximum.accumulate(own_B)[:-1] * split_K
        right_K = np.maximum.accumulate(own_B[::-1])[::-1][1:] * (num - split_K)
        both_K = left_K + right_K
        if num > 1 and num * end - both_K.min() >= worth:
            middle = rows.start + 1 + int(both_K.argmin())
            waiting += [slice(middle, rows.stop), slice(rows.start, middle)]
        else:
            found.append((rows, end))
    return found
