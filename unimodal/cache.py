"""The key-value cache keeps the keys and values of tokens that were read before.

So a forward computes new tokens only.

In: queries, keys and values of the tokens that a forward appends. Out: their attention.

A row of the cache holds the tokens of one branch (branches.py), in slots 0, 1, 2, ... in the order
in which they were read. No row is padded on the left, so rows of any lengths share a forward.

1. `append` reserves the next slots of some rows.
2. The transformer runs with the cache as its `attend`: keys and values go into these slots, and a
   query sees of its own row what `sequence.span_mask` lets it see, at first slots 0 .. its own.
3. `commit(n)` keeps the first n appended tokens, `rollback(n)` forgets the last n. So a row with
   less to read than the others is padded on the right and forgets the padding, and guessed ids that
   are refused leave no trace.

Rows in use are always 0 .. num_rows - 1: `drop` moves the last row into the gap, so that a step
reads views of the memory, 2 x layers x batch x capacity x key-value width, which `grow` enlarges.
What is kept of a layer lies where the layer does; layers on one device, a run, share their memory.

Letters: L layers of a run, B rows, H query heads, G key-value heads, T appended tokens, S slots, d
head width.
"""

from collections.abc import Sequence
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from .decode_attention import LEAST, MOST_QUERIES, DecodeAttention, serves, slot_places
from .look import Appended, Look, row_runs
from .slot_masks import Numbers, SlotMasks
from .transformer import TransformerConfig
from .varlen import Varlen
from .zeros import enlarged, zeros

MOST_PADDED = 512  # tokens of rows that would be padded and are read side by side instead


class KVCache:
    """A KVCache holds keys and values of `batch` rows of `capacity` tokens each; it is an `attend`.

    Raises ValueError where `batch` or `capacity` is below 1.
    """

    def __init__(
        self,
        config: TransformerConfig,
        batch: int,
        capacity: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | Sequence[torch.device] = "cpu",
    ):
        """Allocate the memory; no row is in use. device: of all layers, or of each of them."""
        if batch < 1 or capacity < 1:
            raise ValueError(f"a cache of {batch} rows of {capacity} tokens: at least 1 of each")
        devices = (
            [torch.device(device)] * config.num_layers
            if isinstance(device, torch.device | str)
            else device
        )
        runs = [(there, len(list(layers))) for there, layers in groupby(devices)]
        self._devices, self._num_heads = [there for there, _ in runs], config.num_heads
        # The run of each layer, and its number there.
        self._places = [(run, at) for run, (_, num) in enumerate(runs) for at in range(num)]
        shape = (batch, config.num_kv_heads, capacity, config.head_width)
        self._keys, self._values = (
            [zeros((num, *shape), dtype, there) for there, num in runs] for _ in range(2)
        )
        """The keys and the values of each run, (L, B, G, S, d)."""
        self._dtype, first = dtype, self._devices[0]
        self._committed_B = np.zeros(batch, dtype=np.int64)
        self._appended_B = np.zeros(batch, dtype=np.int64)
        self._reached_B = np.zeros(batch, dtype=np.int64)  # most slots of a row that were in use
        self.num_rows = 0
        # What `append` prepared for the next forward: its rows, the largest length of a row after
        # it, the slots of its tokens, and the first one where that is the same in all rows and
        # others follow it.
        self._rows, self._end = slice(0, 0), 0
        self._rows_B1 = torch.arange(batch, device=first)[:, None]
        self._slots_BT = torch.zeros(0, 0, dtype=torch.int64, device=first)
        self._start: int | None = None
        self._seen: list[Appended] = []  # of each run
        # Of each run, the keys and the values of these rows up to that length, (L, B, G, S, d).
        self._held: list[tuple[Tensor, Tensor]] = []
        self._places_BHC: Tensor | None = None  # slot_places, once they are wanted
        self._masks = SlotMasks(first)

    @property
    def batch(self) -> int:
        """Return how many rows the cache has memory for."""
        return self._keys[0].shape[1]

    @property
    def capacity(self) -> int:
        """Return how many tokens a row has memory for."""
        return self._keys[0].shape[3]

    @property
    def lengths(self) -> np.ndarray:
        """Return the number of committed tokens of each row in use, int64 (num_rows,)."""
        return self._committed_B[: self.num_rows].copy()

    def add(self, num: int = 1) -> slice:
        """Take `num` empty rows into use, behind the others, and return which rows they are.

        Raise ValueError where the cache has no room for them.
        """
        first, last = self.num_rows, self.num_rows + num
        if last > self.batch:
            raise ValueError(f"{last} rows do not fit into a cache of {self.batch}")
        self._committed_B[first:last] = self._appended_B[first:last] = 0
        self._clear_masks(slice(first, last))
        self.num_rows = last
        return slice(first, last)

    def _grown(self, batch: int, capacity: int) -> tuple[int, int]:
        """Return the (batch, capacity) that `grow` gives the memory."""
        if capacity > self.capacity and self.num_rows:
            # By a quarter at least, or every step would copy the cache.
            capacity = max(capacity, self.capacity + self.capacity // 4)
        return max(batch, self.batch), max(capacity, self.capacity)

    def num_bytes(self, batch: int, capacity: int) -> int:
        """Return the bytes of keys and values once there is room for so much."""
        rows, tokens = self._grown(batch, capacity)
        return rows * tokens * self.token_bytes

    @property
    def resident_bytes(self) -> int:
        """Return how many of the bytes the system has given: on a CPU those that were in use."""
        if any(device.type != "cpu" for device in self._devices):
            return self.num_bytes(0, 0)
        return int(self._reached_B.sum()) * self.token_bytes

    @property
    def token_bytes(self) -> int:
        """Return the bytes of the keys and values of a token, in all layers."""
        held = [one[:, 0, :, 0] for one in self._memory]
        return sum(one.numel() * one.element_size() for one in held)

    @property
    def _memory(self) -> list[Tensor]:
        """Return the keys and the values of all runs, (L, B, G, S, d) each."""
        return [*self._keys, *self._values]

    def grow(self, batch: int, capacity: int) -> None:
        """Make room for at least `batch` rows of `capacity` tokens; what is held is kept."""
        if batch <= self.batch and capacity <= self.capacity:
            return
        rows, tokens = self._grown(batch, capacity)
        more, self._places_BHC = rows - self.batch, None
        used = int((self._committed_B + self._appended_B)[: self.num_rows].max(initial=0))
        for memory in (self._keys, self._values):
            for run, stored in enumerate(memory):
                L, _, G, _, d = stored.shape
                held = stored[:, : self.num_rows, :, :used]
                memory[run] = enlarged(held, (L, rows, G, tokens, d))
        self._reached_B = np.zeros(rows, dtype=np.int64)
        self._reached_B[: self.num_rows] = used
        self._masks.grow((rows, tokens))
        self._committed_B = np.pad(self._committed_B, (0, more))
        self._appended_B = np.pad(self._appended_B, (0, more))
        self._rows_B1 = torch.arange(rows, device=self._devices[0])[:, None]

    def held(self, row: int) -> tuple[Tensor, ...]:
        """Return the keys, then the values, of a row's committed tokens, (L, G, S, d) for each run:
        views, which hold until the row goes on.
        """
        length = int(self._committed_B[row])
        return tuple(one[:, row, :, :length] for one in self._memory)

    def stored(self, row: int) -> tuple[Tensor, ...]:
        """Return copies of what `held` returns."""
        return tuple(one.clone() for one in self.held(row))

    def restore(
        self, row: int, stored: tuple[Tensor, ...], block: list[int], private: list[int]
    ) -> None:
        """Put the first of keys and values that were stored, or that another row holds, into an
        empty row, as committed tokens.

        block, private: the numbers of these tokens, as many as there are to be.
        """
        assert not self._committed_B[row] + self._appended_B[row], "a row in use was restored"
        length = len(block)
        for own_LBGSd, one_LGSd in zip(self._memory, stored, strict=True):
            own_LBGSd[:, row, :, :length] = one_LGSd[:, :, :length]
        self._committed_B[row] = length
        self._reached_B[row] = max(self._reached_B[row], length)
        if any(block) or any(private) or not self._masks.are_plain:
            device = self._devices[0]
            numbers = [torch.tensor([one], device=device) for one in (block, private)]
            slots_1S = torch.arange(length, device=device)[None]
            self._store(self._rows_B1[row : row + 1], slots_1S, (numbers[0], numbers[1]))

    def copy(self, source: int, row: int) -> None:
        """Copy the committed tokens of row `source` into another row in use, `row`."""
        length = int(self._committed_B[source])
        for stored_LBGSd in self._memory:
            stored_LBGSd[:, row, :, :length] = stored_LBGSd[:, source, :, :length]
        self._masks.copy(source, row)
        self._committed_B[row] = length
        self._reached_B[row] = max(self._reached_B[row], length)

    def truncate(self, row: int, num: int) -> None:
        """Forget the last `num` committed tokens of a row; raise ValueError where it has fewer."""
        assert not self._appended_B[row], "a row was cut between append and commit"
        if not 0 <= num <= self._committed_B[row]:
            raise ValueError(f"{num} of {self._committed_B[row]} tokens cannot be forgotten")
        self._committed_B[row] -= num
        self._clear_masks(slice(row, row + 1))

    def drop(self, row: int) -> None:
        """Free a row; the last row in use moves into its place.

        No row may have uncommitted tokens.
        """
        assert 0 <= row < self.num_rows, f"row {row} of {self.num_rows} was dropped"
        assert not self._appended_B.any(), "a row was dropped between append and commit"
        last = self.num_rows - 1
        if row != last:
            self.copy(last, row)
        self.num_rows = last

    def append(
        self,
        num: int,
        rows: slice | None = None,
        masks: Numbers | None = None,
        lengths_B: np.ndarray | None = None,
        seen_BN: Tensor | None = None,
    ) -> Tensor:
        """Reserve the next `num` slots of `rows` (None: all in use) and return them, int64 (B, T).

        masks: the block and the private number of each token, int64 (B, T), as in a Row; None: all
        are causal and public. lengths_B: how many of the tokens of each row are more than padding,
        which shares the slot behind them and must be rolled back; None: all. seen_BN: as for
        Transformer.forward. Raise ValueError where a row would exceed the capacity.
        """
        first, last, _ = (rows or slice(None)).indices(self.num_rows)
        assert num > 0 and last > first, f"{num} tokens of rows {first} .. {last} were appended"
        starts_B = self._committed_B[first:last] + self._appended_B[first:last]
        offsets_BT = np.broadcast_to(np.arange(num), (last - first, num))
        if lengths_B is not None:
            offsets_BT = np.minimum(offsets_BT, lengths_B[:, None])
        slots_BT = starts_B[:, None] + offsets_BT
        end = int(slots_BT.max()) + 1
        self._check_room(end)
        self._appended_B[first:last] += num
        reached_B = self._reached_B[first:last]
        np.maximum(reached_B, slots_BT.max(axis=1) + 1, out=reached_B)
        self._rows, self._end = slice(first, last), end
        # Padding may then lie behind a row's tokens: nobody sees it before it is overwritten.
        abreast = bool((starts_B == starts_B[0]).all()) and starts_B[0] + num == end
        self._start = int(starts_B[0]) if abreast else None
        self._slots_BT = torch.from_numpy(slots_BT).to(self._devices[0])
        self._store(self._rows_B1[self._rows], self._slots_BT, masks)
        # All layers share one mask. Rows that start empty and causal need none: attention is causal
        # without one. Nor do single tokens behind rows of one length, which see all.
        ends_B = slots_BT.max(axis=1) + 1
        is_causal = self._masks.are_plain and not starts_B.any()
        mask_B1TS = None if is_causal else self._mask(self._slots_BT, masks)
        of_seen = None if seen_BN is None else self._mask_of(seen_BN, masks)
        self._held, runs = self._views(), self._runs(ends_B)
        looks = []
        for run, seen_end in runs:
            is_alike = num == 1 and self._masks.are_plain and (ends_B[run] == seen_end).all()
            mask = None if mask_B1TS is None or is_alike else mask_B1TS[run, ..., :seen_end]
            seen = None if of_seen is None else of_seen[run, ..., :seen_end]
            has_one = (is_causal and num > 1) or seen is not None  # what torch has a kernel for
            decode = None if has_one else self._decode(num, run, seen_end)
            looks.append(Look(run, seen_end, mask, seen, decode, is_only=len(runs) == 1))
        appended = Appended(self._rows_B1[: last - first], self._slots_BT, looks)
        self._seen = [appended, *(appended.to(device) for device in self._devices[1:])]
        return self._slots_BT

    def takes_varlen(self, lengths_B: np.ndarray, rows: slice) -> bool:
        """Return whether so many tokens of each of some rows, causal and public, are read faster
        side by side than padded: where they are few, on a CPU.
        """
        longest, num = int(lengths_B.max()), int(lengths_B.sum())
        return (
            len(self._devices) == 1
            and self._masks.are_plain
            and 0 < lengths_B.min() < longest
            and (longest <= MOST_QUERIES or 2 * num <= len(lengths_B) * longest <= MOST_PADDED)
            and serves(1, self._keys[0][0, rows, :, : int(self._committed_B[rows].max())])
        )

    def append_varlen(self, varlen: Varlen, rows: slice) -> None:
        """Reserve the next slots of `rows` for tokens that the next forward has side by side, in
        one row. Raise ValueError where a row would exceed the capacity.
        """
        starts_B = self._committed_B[rows] + self._appended_B[rows]
        ends_B = starts_B + varlen.lengths_B
        self._check_room(end := int(ends_B.max()))
        self._appended_B[rows] += varlen.lengths_B
        self._reached_B[rows] = np.maximum(self._reached_B[rows], ends_B)
        self._rows, self._end, self._start = rows, end, None
        slots_N = torch.from_numpy(starts_B)[varlen.row_N] + varlen.offset_N
        self._slots_BT, self._held = slots_N[None], self._views()
        mask_N11S = self._mask(slots_N[:, None], None)
        runs, looks, done = self._runs(ends_B), [], 0
        for run, seen_end in runs:
            mine = Varlen.of(varlen.lengths_B[run])
            queries = slice(done, done := done + len(mine.row_N))
            decode = DecodeAttention.at(self._slot_places()[run], seen_end, 1, mine)
            mask, is_only = mask_N11S[queries, ..., :seen_end], len(runs) == 1
            looks.append(Look(run, seen_end, mask, None, decode, queries, is_only))
        self._seen = [Appended(varlen.row_N[None], self._slots_BT, looks)]

    def _check_room(self, end: int) -> None:
        if end > self.capacity:
            raise ValueError(f"{end} tokens do not fit into a cache of {self.capacity}")

    def _views(self) -> list[tuple[Tensor, Tensor]]:
        """Return the keys and the values of the rows of a forward, as far as they are looked at."""
        return [
            (keys_LBGCd[:, self._rows, :, : self._end], values_LBGCd[:, self._rows, :, : self._end])
            for keys_LBGCd, values_LBGCd in zip(self._keys, self._values, strict=True)
        ]

    def _runs(self, ends_B: np.ndarray) -> list[tuple[slice, int]]:
        """Return the rows of a forward as they are looked at, and how many slots of each; ends_B:
        behind the last token of each.
        """
        if self._devices != [torch.device("cpu")]:
            return [(slice(0, len(ends_B)), self._end)]
        _, _, G, _, d = self._keys[0].shape
        return row_runs(ends_B, max(1, LEAST // (G * d)))

    def _decode(self, num: int, run: slice, end: int) -> DecodeAttention | None:
        """Return how `num` tokens of each row of a run attend, where they are few."""
        if not serves(num, self._keys[0][0, self._rows, :, : self._end]):
            return None
        return DecodeAttention.at(self._slot_places()[run], end, num)

    def _slot_places(self) -> Tensor:
        """Return the `slot_places` of the rows of a forward."""
        if self._places_BHC is None:
            self._places_BHC = slot_places(self._keys[0].shape[1:], self._num_heads)
        return self._places_BHC[self._rows]

    def _store(self, rows_B1: Tensor, slots_BT: Tensor, masks: Numbers | None) -> None:
        self._masks.store(rows_B1, slots_BT, masks, (self.batch, self.capacity))

    def _mask(self, slots_BT: Tensor, masks: Numbers | None) -> Tensor:
        """Return what is added to scores, (B, 1, T, S), of queries in some slots."""
        return self._masks.of(slots_BT, masks, self._rows, self._end, self._dtype)

    def _mask_of(self, seen_BN: Tensor, masks: Numbers | None) -> Tensor:
        """Return the mask of some of the appended tokens, (B, 1, N, S)."""
        slots_BN = self._slots_BT.gather(1, seen_BN)
        if masks is None:
            return self._mask(slots_BN, None)
        return self._mask(slots_BN, (masks[0].gather(1, seen_BN), masks[1].gather(1, seen_BN)))

    def _clear_masks(self, rows: slice) -> None:
        self._masks.clear(rows, self._committed_B[rows] + self._appended_B[rows])

    def commit(self, num: int | np.ndarray, rows: slice | None = None) -> None:
        """Keep the first `num` appended tokens; `num` is one number, or one for each row."""
        rows = rows or slice(0, self.num_rows)
        self._settle(num, rows)
        self._committed_B[rows] += num

    def rollback(self, num: int | np.ndarray | None = None, rows: slice | None = None) -> None:
        """Forget the last `num` appended tokens of each row (None: all uncommitted ones)."""
        rows = rows or slice(0, self.num_rows)
        if num is None and not self._appended_B[rows].any():
            return
        self._settle(self._appended_B[rows].copy() if num is None else num, rows)
        self._clear_masks(rows)

    def _settle(self, num: int | np.ndarray, rows: slice) -> None:
        """Count `num` tokens as committed or rolled back; raise ValueError where fewer wait."""
        waiting_B = self._appended_B[rows]
        if np.any(np.less(num, 0)) or np.any(np.greater(num, waiting_B)):
            raise ValueError(f"{num} tokens of rows with {waiting_B.tolist()} uncommitted ones")
        self._appended_B[rows] -= num

    def __call__(self, layer: int, q_BHTd: Tensor, k_BGTd: Tensor, v_BGTd: Tensor) -> Tensor:
        """Store the appended keys and values and return the queries' attention, out_BHTd.

        Queries are those of all appended tokens, or of those whose hidden vectors are wanted.
        """
        run, number = self._places[layer]
        appended, num = self._seen[run], k_BGTd.shape[2]
        keys_BGSd, values_BGSd = (held_LBGSd[number] for held_LBGSd in self._held[run])
        if self._start is not None:
            keys_BGSd.narrow(2, self._start, num).copy_(k_BGTd)
            values_BGSd.narrow(2, self._start, num).copy_(v_BGTd)
        else:
            at = appended.rows_B1, appended.slots_BT
            keys_BGSd.transpose(1, 2).index_put_(at, k_BGTd.transpose(1, 2))
            values_BGSd.transpose(1, 2).index_put_(at, v_BGTd.transpose(1, 2))
        held = keys_BGSd, values_BGSd, self._values[run][number]
        found = [look(q_BHTd, *held, num) for look in appended.looks]
        if len(found) == 1:
            return found[0]
        return torch.cat(found, dim=0 if appended.looks[0].queries is None else 2)
