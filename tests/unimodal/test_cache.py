"""The cache against attention over whole sequences, for rows of any lengths and any detours."""

import os
import resource
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import unimodal.cache as caching
from unimodal.attention import DenseAttention
from unimodal.cache import KVCache
from unimodal.sequence import span_mask
from unimodal.transformer import Transformer, TransformerConfig
from unimodal.zeros import zeros

CONFIG = TransformerConfig(
    num_ids=50, width=32, num_layers=3, num_heads=4, num_kv_heads=2, head_width=8, mlp_width=48
)


@pytest.fixture(scope="module")
def transformer() -> Transformer:
    """Weights well above their usual start, so that attention is far from uniform."""
    transformer = Transformer(CONFIG).eval()
    with torch.no_grad():
        for parameter in transformer.parameters():
            if parameter.ndim == 2:
                parameter.mul_(8)
    return transformer


@torch.inference_mode()
def whole(transformer: Transformer, ids: list[int]) -> torch.Tensor:
    """Hidden vectors (T, D) of a sequence read at once, without a cache."""
    causal_1TT = torch.ones(1, len(ids), len(ids), dtype=torch.bool).tril()
    positions_1T = torch.arange(len(ids))[None]
    x_1TD = transformer.embed(torch.tensor([ids]))
    return transformer(x_1TD, positions_1T, DenseAttention(causal_1TT))[0]


@torch.inference_mode()
def read(
    transformer: Transformer, cache: KVCache, ids: list[list[int]], rows: slice | None = None
) -> torch.Tensor:
    """Append ids (of equal numbers for each row) without committing them: hidden (B, T, D)."""
    positions_BT = cache.append(len(ids[0]), rows)
    return transformer(transformer.embed(torch.tensor(ids)), positions_BT, cache)


def sequences(seed: int, *lengths: int) -> list[list[int]]:
    random = np.random.default_rng(seed)
    return [random.integers(0, CONFIG.num_ids, length).tolist() for length in lengths]


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


def test_steps_of_any_size_equal_the_whole_sequence(transformer: Transformer) -> None:
    (ids,) = sequences(0, 40)
    cache = KVCache(CONFIG, batch=1, capacity=40)
    cache.add()
    hidden, at = [], 0
    for size in (7, 1, 1, 2, 13, 1, 3, 12):
        hidden.append(read(transformer, cache, [ids[at : at + size]])[0])
        cache.commit(size)
        at += size
    close(torch.cat(hidden), whole(transformer, ids))
    assert cache.lengths.tolist() == [40]


def test_rows_of_different_lengths_share_a_batch(transformer: Transformer) -> None:
    rows = sequences(1, 9, 30, 17)
    cache = KVCache(CONFIG, batch=5, capacity=40)
    cache.add(3)
    left = [list(row) for row in rows]
    hidden: list[list[torch.Tensor]] = [[], [], []]
    for size in (12, 1, 2, 10, 6):
        sizes = np.array([min(size, len(row)) for row in left])
        padded = [row[:size] + [0] * (size - len(row[:size])) for row in left]
        out_BTD = read(transformer, cache, padded)
        cache.commit(sizes)
        cache.rollback()
        for k, n in enumerate(sizes):
            hidden[k].append(out_BTD[k, :n])
            del left[k][:n]
    assert cache.lengths.tolist() == [9, 30, 17]
    for row, parts in zip(rows, hidden, strict=True):
        close(torch.cat(parts), whole(transformer, row))


def test_a_rollback_leaves_no_trace(transformer: Transformer) -> None:
    ids, wrong = sequences(2, 20, 6)
    cache = KVCache(CONFIG, batch=1, capacity=30)
    cache.add()
    read(transformer, cache, [ids[:10]])
    cache.commit(10)
    guess = read(transformer, cache, [ids[10:12] + wrong])
    assert cache.lengths.tolist() == [10], "what is not committed does not count"
    cache.commit(2)
    cache.rollback(6)
    rest = read(transformer, cache, [ids[12:]])
    cache.commit(8)
    expected = whole(transformer, ids)
    close(guess[0, :2], expected[10:12])
    close(rest[0], expected[12:])


def test_drafts_may_be_appended_one_after_the_other(transformer: Transformer) -> None:
    (ids,) = sequences(3, 9)
    cache = KVCache(CONFIG, batch=1, capacity=9)
    cache.add()
    read(transformer, cache, [ids[:5]])
    drafts = torch.cat([read(transformer, cache, [[token]])[0] for token in ids[5:]])
    cache.commit(9)
    close(drafts, whole(transformer, ids)[5:])


def test_a_dropped_row_gives_its_place_to_the_last(transformer: Transformer) -> None:
    a, b, c, d = sequences(4, 12, 12, 12, 12)
    cache = KVCache(CONFIG, batch=3, capacity=20)
    assert cache.add(3) == slice(0, 3)
    read(transformer, cache, [a[:8], b[:8], c[:8]])
    cache.commit(8)
    cache.drop(0)  # c moves to row 0
    assert cache.add() == slice(2, 3)
    fresh = read(transformer, cache, [d[:10]], rows=slice(2, 3))
    cache.commit(10, rows=slice(2, 3))
    assert cache.lengths.tolist() == [8, 8, 10]
    rest = read(transformer, cache, [c[8:10], b[8:10], d[10:12]])
    close(fresh[0], whole(transformer, d)[:10])
    for hidden, row, at in zip(rest, (c, b, d), (8, 8, 10), strict=True):
        close(hidden, whole(transformer, row)[at : at + 2])


def resident() -> int:
    """The bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux how much memory is taken")
def test_memory_is_taken_as_it_is_used(transformer: Transformer) -> None:
    before = resident()
    cache = KVCache(CONFIG, batch=256, capacity=4096)
    assert cache.num_bytes(0, 0) == 256 * 4096 * cache.token_bytes == 402_653_184
    assert not any(one.count_nonzero() for one in cache.stored(200)) and cache.resident_bytes == 0
    first, second = sequences(5, 300, 300)
    cache.add(2)
    read(transformer, cache, [first, second])
    cache.rollback(100)
    cache.commit(200)
    assert cache.resident_bytes == 2 * 300 * cache.token_bytes
    cache.drop(0)
    cache.grow(512, 4096)
    assert cache.resident_bytes == 200 * cache.token_bytes, "what is held is copied, no more"
    close(
        read(transformer, cache, [first[:3]])[0], whole(transformer, second[:200] + first[:3])[-3:]
    )
    assert resident() - before < 100_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux how much memory is taken")
def test_zeros_are_read_at_no_cost_and_are_those_of_one_process() -> None:
    before = resident()
    made = zeros((64, 1 << 20), torch.float32, torch.device("cpu"))
    assert not made.count_nonzero() and resident() - before < 30_000_000
    child = os.fork()
    if not child:
        made[:, 0] = 7
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0 and not made[:, 0].count_nonzero()
    made[:32] = 1
    assert resident() - before > 128_000_000 and made.count_nonzero() == 32 << 20


def test_limits_are_said() -> None:
    cache = KVCache(CONFIG, batch=2, capacity=8)
    with pytest.raises(ValueError, match="3 rows do not fit into a cache of 2"):
        cache.add(3)
    cache.add(2)
    cache.append(6)
    with pytest.raises(ValueError, match="9 tokens do not fit into a cache of 8"):
        cache.append(3)
    with pytest.raises(ValueError, match="7 tokens of rows with"):
        cache.commit(7)
    with pytest.raises(ValueError, match="uncommitted"):
        cache.rollback(np.array([1, 7]))
    cache.rollback()
    with pytest.raises(ValueError, match="0 rows"):
        KVCache(CONFIG, batch=0, capacity=8)


# --- blocks and private numbers -----------------------------------------------------------------


@dataclass
class Held:
    """What a row should hold: the numbers of its tokens, with their block and private number."""

    tokens: list[tuple[int, int, int]] = field(default_factory=list)
    num_waiting: int = 0  # of these, the last ones, neither committed nor rolled back


class Simulation:
    """A cache through random detours, beside plain lists of what each row holds."""

    def __init__(self, seed: int, plain_first: bool) -> None:
        self.random = np.random.default_rng(seed)
        self.cache = KVCache(CONFIG, batch=2, capacity=6)
        self.rows: list[Held] = []
        self.num_tokens = 0
        self.plain_first = plain_first
        heads = CONFIG.num_heads + 2 * CONFIG.num_kv_heads
        noise = self.random.standard_normal((heads, 2000, CONFIG.head_width))
        self.noise = torch.from_numpy(noise).float()

    def vectors(self, numbers: list[int]) -> list[torch.Tensor]:
        """q, k and v of tokens, each (heads, T, 8): a token's are always the same."""
        heads = [CONFIG.num_heads, CONFIG.num_kv_heads, CONFIG.num_kv_heads]
        return list(self.noise[:, numbers].split(heads))

    def append(self) -> None:
        """Some rows read some tokens, and each sees what the rule lets it see."""
        first = int(self.random.integers(len(self.rows)))
        last = int(self.random.integers(first + 1, len(self.rows) + 1))
        num = int(self.random.integers(1, 6))
        rows = self.rows[first:last]
        longest = max(len(row.tokens) for row in rows) + num
        if longest > self.cache.capacity:
            self.cache.grow(self.cache.batch, longest)
        masks = None
        numbers = np.arange(num * len(rows)).reshape(len(rows), num) + self.num_tokens
        self.num_tokens += numbers.size
        marks = np.zeros((2, len(rows), num), int)
        if not self.plain_first or self.num_tokens > 20:
            kinds = self.random.integers(0, 2, 2)  # the masks of all may be absent
            marks = np.sort(self.random.integers(0, 3, marks.shape)) * kinds[:, None, None]
            masks = tuple(map(torch.from_numpy, marks)) if kinds.any() else None
        slots = self.cache.append(num, slice(first, last), masks)
        assert slots[:, 0].tolist() == [len(row.tokens) for row in rows]
        for row, mine, block, private in zip(rows, numbers.tolist(), *marks.tolist(), strict=True):
            row.tokens += zip(mine, block, private, strict=True)
            row.num_waiting += num
        q, k, v = (torch.stack(x) for x in zip(*map(self.vectors, numbers.tolist()), strict=True))
        for layer in (0, CONFIG.num_layers - 1):
            seen = self.cache(layer, q, k + layer, v)
            for row, out in zip(rows, seen, strict=True):
                close(out, self.dense(row, layer)[:, -num:])

    def dense(self, row: Held, layer: int) -> torch.Tensor:
        numbers, block, private = (list(x) for x in zip(*row.tokens, strict=True))
        q, k, v = (x[None] for x in self.vectors(numbers))
        doc, block, private = (torch.tensor([x]) for x in ([0] * len(numbers), block, private))
        return DenseAttention(span_mask(doc, block, private))(layer, q, k + layer, v)[0]

    def settle(self) -> None:
        """Some of what waits is made permanent, some forgotten, some goes on waiting."""
        waiting = np.array([row.num_waiting for row in self.rows])
        kept = self.random.integers(0, waiting + 1)
        self.cache.commit(kept)
        for row, n in zip(self.rows, kept.tolist(), strict=True):
            row.num_waiting -= n
        self._roll_back(self.random.integers(0, waiting - kept + 1))

    def settle_all(self) -> None:
        """Nothing waits any more."""
        self.settle()
        left = np.array([row.num_waiting for row in self.rows])
        self._roll_back(left if self.random.random() < 0.5 else None)

    def _roll_back(self, num: np.ndarray | None) -> None:
        self.cache.rollback(num)
        gone = [row.num_waiting for row in self.rows] if num is None else num.tolist()
        for row, n in zip(self.rows, gone, strict=True):
            del row.tokens[len(row.tokens) - n :]
            row.num_waiting -= n

    def add(self) -> None:
        if len(self.rows) == self.cache.batch:
            self.cache.grow(len(self.rows) + 1, self.cache.capacity)
        self.cache.add()
        self.rows.append(Held())

    def drop(self) -> None:
        if len(self.rows) > 1:
            at = int(self.random.integers(len(self.rows)))
            self.cache.drop(at)
            self.rows[at] = self.rows[-1]
            self.rows.pop()

    def copy(self) -> None:
        source = int(self.random.integers(len(self.rows)))
        self.add()
        self.cache.copy(source, len(self.rows) - 1)
        self.rows[-1].tokens = list(self.rows[source].tokens)

    def truncate(self) -> None:
        at = int(self.random.integers(len(self.rows)))
        num = int(self.random.integers(len(self.rows[at].tokens) + 1))
        self.cache.truncate(at, num)
        del self.rows[at].tokens[len(self.rows[at].tokens) - num :]

    def run(self, num_steps: int) -> None:
        self.add()
        for _ in range(num_steps):
            for _ in range(self.random.integers(1, 4)):
                self.append()
                self.settle()
            self.settle_all()
            assert self.cache.lengths.tolist() == [len(row.tokens) for row in self.rows]
            change = ("add", "drop", "copy", "truncate")[self.random.integers(4)]
            getattr(self, change)()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_detours_of_any_kind_equal_dense_attention(seed: int, plain_first: bool) -> None:
    """Blocks and private numbers, begun anywhere and cut anywhere; rows that come, go, are copied,
    cut and outgrow the memory.
    """
    Simulation(seed, plain_first).run(12)


def test_rows_that_are_looked_at_apart_equal_dense_attention(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same, where a run of rows is worth it that saves two slots."""
    monkeypatch.setattr(caching, "LEAST", 2 * CONFIG.num_kv_heads * CONFIG.head_width)
    counts: list[int] = []

    def counted(self: KVCache, ends_B: np.ndarray) -> list[tuple[slice, int]]:
        counts.append(len(runs(self, ends_B)))
        return runs(self, ends_B)

    runs = KVCache._runs
    monkeypatch.setattr(KVCache, "_runs", counted)
    for seed in range(20):
        Simulation(seed, plain_first=bool(seed % 2)).run(12)
    assert max(counts) > 2 and sum(count > 1 for count in counts) > len(counts) / 10


def test_a_block_that_was_rolled_back_is_not_seen_again() -> None:
    """Its slots are another row's to reach, and its number is given anew."""
    cache = KVCache(CONFIG, batch=2, capacity=12)
    cache.add(2)
    ones = torch.ones(2, 6, dtype=torch.int64)
    cache.append(6, masks=(ones, 0 * ones))
    cache(0, torch.randn(2, 4, 6, 8), torch.randn(2, 2, 6, 8), torch.randn(2, 2, 6, 8))
    cache.rollback(np.array([5, 0]))  # one token of the first row goes on waiting
    cache.append(2, masks=(ones[:, :2], 0 * ones[:, :2]))
    mask_B1TS = cache._seen[0].looks[0].mask_B1TS
    assert mask_B1TS is not None
    mask_TS = mask_B1TS[0, 0]
    assert (mask_TS == 0).tolist() == [[True] * 3 + [False] * 5] * 2


def test_what_cannot_be_forgotten_is_said() -> None:
    cache = KVCache(CONFIG, batch=1, capacity=8)
    cache.add()
    cache.append(4)
    with pytest.raises(AssertionError, match="between append and commit"):
        cache.truncate(0, 1)
    cache.commit(4)
    for wrong in (5, -1):
        with pytest.raises(ValueError, match=f"{wrong} of 4 tokens cannot be forgotten"):
            cache.truncate(0, wrong)
