"""The cache against attention over whole sequences, for rows of any lengths and any detours."""

import numpy as np
import pytest
import torch

from unimodal.attention import DenseAttention
from unimodal.cache import KVCache
from unimodal.transformer import Transformer, TransformerConfig

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
