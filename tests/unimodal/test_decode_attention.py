"""Decode attention against torch's own in float64, and against whole sequences without a cache."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import unimodal.cache as caching
from unimodal.attention import DenseAttention
from unimodal.cache import KVCache
from unimodal.decode_attention import LEAST, DecodeAttention, serves, slot_places
from unimodal.products import has_fbgemm
from unimodal.transformer import Transformer, TransformerConfig
from unimodal.varlen import Varlen

needs_kernels = pytest.mark.skipif(not has_fbgemm(), reason="torch has no FBGEMM here")


@pytest.mark.parametrize("num_heads", [2, 8])
@pytest.mark.parametrize("T", [1, 3])
@pytest.mark.parametrize("masked", [False, True])
def test_it_is_attention_to_the_slots_it_is_given_and_to_no_others(
    num_heads: int, T: int, masked: bool
) -> None:
    G, C, S, d, rows = 2, 90, 70, 16, slice(1, 4)
    torch.manual_seed(0)
    keys_BGCd, values_BGCd = torch.randn(2, 5, G, C, d)
    for memory in (keys_BGCd, values_BGCd):
        memory[:, :, S:] = memory[:1] = memory[4:] = torch.nan
    q_BHTd = 3 * torch.randn(3, T, num_heads, d).transpose(1, 2)
    lengths_BT = torch.tensor([70, 41, 1])[:, None] - torch.arange(T).flip(0)
    seen_B1TS = (torch.arange(S) < lengths_BT.clamp(min=1)[..., None])[:, None]
    mask_B1TS = torch.zeros(seen_B1TS.shape).masked_fill(~seen_B1TS, -torch.inf)
    held = keys_BGCd[rows, :, :S], values_BGCd[rows, :, :S]
    decode = DecodeAttention.at(slot_places(keys_BGCd.shape, num_heads)[rows], S, T)
    out_BHTd = decode(q_BHTd, held[0], values_BGCd, mask_B1TS if masked else None)
    expected_BHTd = F.scaled_dot_product_attention(
        q_BHTd.double(), *(one.double() for one in held),
        attn_mask=seen_B1TS if masked else None, enable_gqa=True,
    )  # fmt: skip
    torch.testing.assert_close(out_BHTd.double(), expected_BHTd, atol=2e-6, rtol=0)


@needs_kernels
def test_only_many_float32_numbers_on_a_cpu_are_worth_it() -> None:
    many = torch.zeros(1, 1, LEAST, 1)
    assert serves(1, many)
    assert not serves(1, many[:, :, 1:])
    assert not serves(1, many.bfloat16())
    assert not serves(1, many.to("meta"))
    assert not serves(5, many)


@needs_kernels
@torch.inference_mode()
def test_rows_of_unequal_lengths_decode_as_if_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    config = TransformerConfig(
        num_ids=50, width=32, num_layers=2, num_heads=4, num_kv_heads=2, head_width=64, mlp_width=16
    )
    transformer = Transformer(config).eval()
    for parameter in transformer.parameters():
        if parameter.ndim == 2:
            parameter.mul_(8)  # attention is far from uniform
    lengths, calls = np.array([300, 264]), []
    monkeypatch.setattr(DecodeAttention, "__call__", _counted(DecodeAttention.__call__, calls))
    ids = [np.random.default_rng(n).integers(0, 50, n + 3).tolist() for n in lengths]
    cache = KVCache(config, batch=3, capacity=320)
    cache.add(2)
    padded = torch.tensor([(row[:-3] + [0] * 300)[:300] for row in ids])
    cache.append(300, None, None, lengths)
    positions_BT = torch.arange(300).expand(2, 300)
    transformer(transformer.embed(padded), positions_BT, cache)
    cache.commit(lengths)
    cache.rollback()
    for step in range(3):
        positions_B1 = cache.append(1)
        x_B1D = transformer.embed(torch.tensor([[row[step - 3]] for row in ids]))
        hidden_B1D = transformer(x_B1D, positions_B1, cache)
        cache.commit(1)
        for row, hidden_1D in zip(ids, hidden_B1D, strict=True):
            read = row[: len(row) - 2 + step]
            mask_1TT = torch.ones(1, len(read), len(read), dtype=torch.bool).tril()
            x_1TD = transformer.embed(torch.tensor([read]))
            whole = transformer(x_1TD, torch.arange(len(read))[None], DenseAttention(mask_1TT))
            torch.testing.assert_close(hidden_1D[0], whole[0, -1], atol=1e-4, rtol=1e-5)
    assert len(calls) == 3 * config.num_layers


@needs_kernels
@pytest.mark.parametrize("least", [LEAST, 100])
@torch.inference_mode()
def test_tokens_side_by_side_attend_as_if_each_row_was_read_whole(
    monkeypatch: pytest.MonkeyPatch, least: int
) -> None:
    """Some of each row, of which a part is rolled back and others are read in its place; of rows
    that are looked at together, and of three runs.
    """
    monkeypatch.setattr(caching, "LEAST", least)
    config = TransformerConfig(
        num_ids=50, width=32, num_layers=2, num_heads=4, num_kv_heads=2, head_width=64, mlp_width=16
    )
    transformer = Transformer(config).eval()
    for parameter in transformer.parameters():
        if parameter.ndim == 2:
            parameter.mul_(8)
    held, rows = np.array([90, 300, 264, 7]), slice(1, 4)
    random = np.random.default_rng(0)
    cache = KVCache(config, batch=5, capacity=320)
    ids = [random.integers(0, 50, n).tolist() for n in held]
    for row, read in enumerate(ids):
        cache.add()
        positions_BT = cache.append(len(read), slice(row, row + 1))
        transformer(transformer.embed(torch.tensor([read])), positions_BT, cache)
        cache.commit(len(read), slice(row, row + 1))
    for lengths, kept in (([1, 3, 2], [1, 1, 0]), ([4, 1, 1], [4, 1, 1]), ([1, 1, 16], [0, 1, 9])):
        lengths_B, kept_B = np.array(lengths), np.array(kept)
        assert cache.takes_varlen(lengths_B, rows)
        new = [random.integers(0, 50, n).tolist() for n in lengths]
        varlen = Varlen.of(lengths_B)
        start_B = torch.from_numpy(cache.lengths)[rows]
        cache.append_varlen(varlen, rows)
        assert len(cache._seen[0].looks) == (1 if least == LEAST else 3)
        x_1ND = transformer.embed(torch.tensor([[one for read in new for one in read]]))
        positions_1N = (start_B[varlen.row_N] + varlen.offset_N)[None]
        hidden_BTD = varlen.padded(transformer(x_1ND, positions_1N, cache)[0])
        cache.commit(kept_B, rows)
        cache.rollback(rows=rows)
        for row, (read, num, hidden_TD) in enumerate(zip(new, kept, hidden_BTD, strict=True), 1):
            whole = ids[row] + read
            mask_1TT = torch.ones(1, len(whole), len(whole), dtype=torch.bool).tril()
            x_1TD = transformer.embed(torch.tensor([whole]))
            expected_1TD = transformer(
                x_1TD, torch.arange(len(whole))[None], DenseAttention(mask_1TT)
            )
            torch.testing.assert_close(
                hidden_TD[: len(read)], expected_1TD[0, -len(read) :], atol=1e-4, rtol=1e-5
            )
            ids[row] = ids[row] + read[:num]
    assert cache.lengths.tolist() == [90, 300 + 5, 264 + 3, 7 + 1 + 9]


def test_only_few_tokens_of_unequal_numbers_are_read_side_by_side() -> None:
    config = TransformerConfig(
        num_ids=50, width=32, num_layers=1, num_heads=4, num_kv_heads=2, head_width=64, mlp_width=16
    )
    cache = KVCache(config, batch=2, capacity=400)
    rows = cache.add(2)
    cache.append(300)
    assert not cache.takes_varlen(np.array([1, 2]), rows), "nothing is held yet"
    cache.commit(300)
    for lengths in ([1, 1], [3, 3], [0, 2], [10, 11], [1, 9], [1, 300]):
        assert not cache.takes_varlen(np.array(lengths), rows), lengths
    for lengths in ([1, 2], [4, 3]):
        assert cache.takes_varlen(np.array(lengths), rows) == has_fbgemm(), lengths
    with pytest.raises(ValueError, match="401 tokens do not fit into a cache of 400"):
        cache.append_varlen(Varlen.of(np.array([1, 101])), rows)


def test_padded_and_side_by_side_undo_each_other() -> None:
    varlen = Varlen.of(np.array([2, 1, 4]))
    x_N = torch.arange(7)
    assert varlen.padded(x_N).tolist() == [[0, 1, 1, 1], [2, 2, 2, 2], [3, 4, 5, 6]]
    assert varlen.packed(varlen.padded(x_N)).tolist() == x_N.tolist()


def _counted(call, calls: list):  # noqa: ANN001, ANN202
    def counted(self, *args):  # noqa: ANN001, ANN002, ANN202
        calls.append(self)
        return call(self, *args)

    return counted
