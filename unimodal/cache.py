"""The keys and values of positions already read, so that a decoding step costs one position and not all of them.

In: the queries, keys and values of the positions that a forward appends. Out: what these positions attend to.

1. `append` reserves the next slots of some rows and hands out their positions; a row's slot is its position, so rows
   of any lengths share one batch exactly, and no prompt is padded on the left.
2. The transformer runs with the cache as its `attend`: keys and values go into their slots, and a query at position p
   sees slots 0 .. p of its own row.
3. `commit(n)` makes the first n appended positions permanent, `rollback(n)` forgets the last n: a row that has less to
   append than its neighbours appends anything and forgets it, and speculative ids cost nothing when they are refused.

Rows in use are always 0 .. num_rows - 1: `drop` moves the last row into the gap, so a step reads views, never copies.
Memory: 2 x layers x batch x capacity x key-value width numbers, allocated once.

Letters: B rows, H query heads, G key-value heads, T appended positions, S slots, d head width.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .transformer import TransformerConfig


class Cache:
    """Keys and values of up to `batch` rows of up to `capacity` positions; callable as a transformer's `attend`."""

    def __init__(
        self,
        config: TransformerConfig,
        batch: int,
        capacity: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        if batch < 1 or capacity < 1:
            raise ValueError(f"a cache of {batch} rows of {capacity} positions: both must be at least 1")
        shape = (config.num_layers, batch, config.num_kv_heads, capacity, config.head_width)
        # Zeros, not empty: a masked slot weighs exactly 0, but 0 times a stray NaN is NaN.
        self._keys_LBGSd = torch.zeros(shape, dtype=dtype, device=device)
        self._values_LBGSd = torch.zeros(shape, dtype=dtype, device=device)
        self._committed_B = np.zeros(batch, dtype=np.int64)
        self._appended_B = np.zeros(batch, dtype=np.int64)
        self.num_rows = 0
        # Of the forward that `append` announced: its rows, the longest row's end, slots and mask.
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
        """Give a row back; the last row in use moves into its place (nothing may be uncommitted)."""
        assert 0 <= row < self.num_rows, f"row {row} of {self.num_rows}"
        assert not self._appended_B.any(), "a row was dropped while appended positions were uncommitted"
        last = self.num_rows - 1
        length = int(self._committed_B[last])
        if row != last:
            for stored in (self._keys_LBGSd, self._values_LBGSd):
                stored[:, row, :, :length] = stored[:, last, :, :length]
            self._committed_B[row] = length
        self.num_rows = last

    def append(self, num: int, rows: slice | None = None) -> Tensor:
        """Reserve the next `num` positions of `rows` (default: all in use) for the forward that follows.

        Returns their positions, int64 (B, num): what the transformer wants beside the embedded ids.
        """
        first, last, _ = (rows or slice(0, self.num_rows)).indices(self.num_rows)
        assert num > 0 and last > first, f"nothing to append: {num} positions of rows {first}..{last}"
        starts_B = self._committed_B[first:last] + self._appended_B[first:last]
        end = int(starts_B.max()) + num
        if end > self.capacity:
            raise ValueError(f"{end} positions do not fit into a cache of {self.capacity}")
        self._appended_B[first:last] += num
        device = self._keys_LBGSd.device
        self._rows, self._end = slice(first, last), end
        self._slots_BT = (torch.from_numpy(starts_B)[:, None] + torch.arange(num)).to(device)
        # Additive and shared by all layers: slot s is seen from position p when s <= p. Empty rows need no mask.
        self._mask_B1TS = None
        if starts_B.any():
            hidden_BTS = torch.arange(end, device=device) > self._slots_BT[..., None]
            mask_BTS = torch.zeros(hidden_BTS.shape, dtype=self._keys_LBGSd.dtype, device=device)
            self._mask_B1TS = mask_BTS.masked_fill_(hidden_BTS, -torch.inf)[:, None]
        return self._slots_BT

    def commit(self, num: int | np.ndarray, rows: slice | None = None) -> None:
        """Make the first `num` appended positions (one number, or one a row) of `rows` permanent."""
        rows = rows or slice(0, self.num_rows)
        self._forget(num, rows)
        self._committed_B[rows] += num

    def rollback(self, num: int | np.ndarray | None = None, rows: slice | None = None) -> None:
        """Forget the last `num` appended positions (None: all of them) of `rows`; committed ones stay."""
        rows = rows or slice(0, self.num_rows)
        self._forget(self._appended_B[rows].copy() if num is None else num, rows)

    def _forget(self, num: int | np.ndarray, rows: slice) -> None:
        appended_B = self._appended_B[rows]
        if np.any(np.less(num, 0)) or np.any(np.greater(num, appended_B)):
            raise ValueError(f"{num} positions of rows that have {appended_B.tolist()} uncommitted ones")
        self._appended_B[rows] -= num

    def __call__(self, layer: int, q_BHTd: Tensor, k_BGTd: Tensor, v_BGTd: Tensor) -> Tensor:
        """Store keys and values of the appended positions and attend to all up to each query: (B, H, T, d)."""
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
