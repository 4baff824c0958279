"""The keys and values of positions already read, so that a step costs its new positions alone.

In: queries, keys and values of the positions that a forward appends. Out: what they attend to.

1. `append` reserves the next slots of some rows and hands out their positions. A row's slot is its
   position, so rows of any lengths share a batch exactly, and no prompt is padded on the left.
2. The transformer runs with the cache as its `attend`: keys and values go into their slots, and a
   query at position p sees slots 0 .. p of its own row.
3. `commit(n)` makes the first n appended positions permanent, `rollback(n)` forgets the last n. So
   a row with less to read than its neighbours appends anything and forgets it, and guessed ids
   that are refused leave no trace.

Rows in use are always 0 .. num_rows - 1: `drop` moves the last row into the gap, so that a step
reads views of the memory, which is allocated once: 2 x layers x batch x capacity x key-value width.

Letters: L layers, B rows, H query heads, G key-value heads, T appended positions, S slots, d head
width.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .transformer import TransformerConfig


class Cache:
    """Keys and values of at most `batch` rows of at most `capacity` positions; an `attend`."""

    def __init__(
        self,
        config: TransformerConfig,
        batch: int,
        capacity: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        if batch < 1 or capacity < 1:
            raise ValueError(f"a cache of {batch} rows of {capacity} positions: at least 1 of each")
        shape = (config.num_layers, batch, config.num_kv_heads, capacity, config.head_width)
        # Zeros, not empty: a masked slot weighs exactly 0, but 0 times a stray NaN is NaN.
        self._keys_LBGSd = torch.zeros(shape, dtype=dtype, device=device)
        self._values_LBGSd = torch.zeros(shape, dtype=dtype, device=device)
        self._committed_B = np.zeros(batch, dtype=np.int64)
        self._appended_B = np.zeros(batch, dtype=np.int64)
        self.num_rows = 0
        # Of the forward that `append` announced: its rows, their longest end, slots and mask.
        self._rows, self._end = slice(0, 0), 0
        self._rows_B1 = torch.arange(batch, device=device)[:, None]
        self._slots_BT = torch.zeros(0, 0, dtype=torch.int64, device=device)
        self._mask_B1TS: Tensor | None = None

    @property
    def batch(self) -> int:
        """The most rows it can hold."""
        return self._keys_LBGSd.shape[1]

    @property
    def capacity(self) -> int:
        """The most positions a row can hold."""
        return self._keys_LBGSd.shape[3]

    @property
    def lengths(self) -> np.ndarray:
        """Committed positions of each row in use, int64 (num_rows,)."""
        return self._committed_B[: self.num_rows].copy()

    def add(self, num: int = 1) -> slice:
        """Take `num` empty rows into use, behind the others; returns which rows they are."""
        first, last = self.num_rows, self.num_rows + num
        if last > self.batch:
            raise ValueError(f"{last} rows do not fit into a cache of {self.batch}")
        self._committed_B[first:last] = self._appended_B[first:last] = 0
        self.num_rows = last
        return slice(first, last)

    def drop(self, row: int) -> None:
        """Give a row back; the last row in use moves into its place. Nothing may be uncommitted."""
        assert 0 <= row < self.num_rows, f"row {row} of {self.num_rows} was dropped"
        assert not self._appended_B.any(), "a row was dropped between append and commit"
        last = self.num_rows - 1
        length = int(self._committed_B[last])
        if row != last:
            for stored_LBGSd in (self._keys_LBGSd, self._values_LBGSd):
                stored_LBGSd[:, row, :, :length] = stored_LBGSd[:, last, :, :length]
            self._committed_B[row] = length
        self.num_rows = last

    def append(self, num: int, rows: slice | None = None) -> Tensor:
        """Reserve the next `num` positions of `rows` (None: all in use) for the next forward.

        Returns these positions, int64 (B, T): what the transformer wants beside the embedded ids.
        More than the capacity is a ValueError.
        """
        first, last, _ = (rows or slice(None)).indices(self.num_rows)
        assert num > 0 and last > first, f"{num} positions of rows {first} .. {last} were appended"
        starts_B = self._committed_B[first:last] + self._appended_B[first:last]
        end = int(starts_B.max()) + num
        if end > self.capacity:
            raise ValueError(f"{end} positions do not fit into a cache of {self.capacity}")
        self._appended_B[first:last] += num
        self._rows, self._end = slice(first, last), end
        device = self._keys_LBGSd.device
        self._slots_BT = (torch.from_numpy(starts_B)[:, None] + torch.arange(num)).to(device)
        # One mask for all layers; rows that start empty are plainly causal and need none.
        self._mask_B1TS = self._past_mask() if starts_B.any() else None
        return self._slots_BT

    def _past_mask(self) -> Tensor:
        """Added to scores: slot s is seen from position p when s <= p."""
        slots_S = torch.arange(self._end, device=self._slots_BT.device)
        future_BTS = slots_S > self._slots_BT[..., None]
        mask_BTS = torch.zeros_like(future_BTS, dtype=self._keys_LBGSd.dtype)
        return mask_BTS.masked_fill_(future_BTS, -torch.inf)[:, None]

    def commit(self, num: int | np.ndarray, rows: slice | None = None) -> None:
        """Make the first `num` (one number, or one a row) appended positions permanent."""
        rows = rows or slice(0, self.num_rows)
        self._settle(num, rows)
        self._committed_B[rows] += num

    def rollback(self, num: int | np.ndarray | None = None, rows: slice | None = None) -> None:
        """Forget the last `num` appended positions (None: all); what was committed stays."""
        rows = rows or slice(0, self.num_rows)
        self._settle(self._appended_B[rows].copy() if num is None else num, rows)

    def _settle(self, num: int | np.ndarray, rows: slice) -> None:
        """Count `num` positions as no longer waiting for commit or rollback."""
        waiting_B = self._appended_B[rows]
        if np.any(np.less(num, 0)) or np.any(np.greater(num, waiting_B)):
            raise ValueError(f"{num} positions of rows with {waiting_B.tolist()} uncommitted ones")
        self._appended_B[rows] -= num

    def __call__(self, layer: int, q_BHTd: Tensor, k_BGTd: Tensor, v_BGTd: Tensor) -> Tensor:
        """Store the appended keys and values; each query attends up to its position: out_BHTd."""
        keys_BGSd = self._keys_LBGSd[layer, self._rows, :, : self._end]
        values_BGSd = self._values_LBGSd[layer, self._rows, :, : self._end]
        at = (self._rows_B1[: len(q_BHTd)], self._slots_BT)
        keys_BGSd.transpose(1, 2).index_put_(at, k_BGTd.transpose(1, 2))
        values_BGSd.transpose(1, 2).index_put_(at, v_BGTd.transpose(1, 2))
        return F.scaled_dot_product_attention(
            q_BHTd,
            keys_BGSd,
            values_BGSd,
            attn_mask=self._mask_B1TS,
            is_causal=self._mask_B1TS is None,
            enable_gqa=q_BHTd.shape[1] != k_BGTd.shape[1],
        )
