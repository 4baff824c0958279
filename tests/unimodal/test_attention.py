"""Attention in packed rows: the rule against a loop, the fast path against the dense mask."""

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from unimodal.attention import DenseAttention, PackedAttention
from unimodal.sequence import PADDING, span_mask

Row = list[tuple[int, int, int]]
"""(doc, block, private) of each token."""


@st.composite
def rows(draw: st.DrawFn) -> Row:
    """A row of whole documents, runs of padding among them; blocks and private pieces in some.

    A block may have several private numbers, and a private number several blocks.
    """
    row: Row = []
    for doc in range(draw(st.integers(1, 4))):
        causal = draw(st.booleans())
        for _ in range(draw(st.integers(1, 4))):
            block = 0 if causal else draw(st.integers(0, 2))
            private = 0 if causal else draw(st.integers(0, 2))
            row += [(doc, block, private)] * draw(st.integers(1, 5))
        row += [(PADDING, 0, 0)] * draw(st.sampled_from([0, 0, 3]))
    return row


def spans(row: Row) -> tuple[Tensor, Tensor, Tensor]:
    """doc, block and private of one row, (1, T) each."""
    doc, block, private = (torch.tensor(column)[None] for column in zip(*row, strict=True))
    return doc, block, private


def sees(row: Row, q: int, k: int) -> bool:
    """The rule, read aloud."""
    (q_doc, q_block, q_private), (k_doc, k_block, k_private) = row[q], row[k]
    share_block = q_block == k_block and q_block > 0
    if q == k:
        return True
    if q_doc != k_doc or q_doc == PADDING:
        return False
    return (k <= q or share_block) and k_private in (0, q_private)


@pytest.mark.parametrize(
    ("row", "seen"),
    [
        # A noised image is a block that it alone sees; its clean copy and the text behind do not.
        (
            [(0, 0, 0), (0, 1, 1), (0, 1, 1), (0, 0, 0), (0, 0, 0)],
            ["x....", "xxx..", "xxx..", "x..x.", "x..xx"],
        ),
        # Each scale of an image is a block, sees the private scales before it, and no other image.
        (
            [(0, 1, 1), (0, 2, 1), (0, 2, 1), (0, 3, 2), (0, 4, 2), (0, 0, 0)],
            ["x.....", "xxx...", "xxx...", "...x..", "...xx.", ".....x"],
        ),
        # A block of two private numbers: each token sees the public ones and its own number's.
        (
            [(0, 1, 0), (0, 1, 1), (0, 1, 2), (0, 1, 2)],
            ["x...", "xx..", "x.xx", "x.xx"],
        ),
    ],
)
def test_private_numbers_by_hand(row: Row, seen: list[str]) -> None:
    mask_TT = span_mask(*spans(row))[0].tolist()
    assert ["".join("x" if one else "." for one in line) for line in mask_TT] == seen


def qkv(T: int, H: int, G: int, seed: int, B: int = 1, dtype: torch.dtype = torch.float32):
    """Random queries, keys and values that want gradients."""
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(B, heads, T, 8, generator=generator).to(dtype).requires_grad_()
        for heads in (H, G, G)
    ]


def out_and_gradients(attend, inputs: list[Tensor]) -> list[Tensor]:
    """The output of one layer and the gradients of a random functional of it."""
    out_BHTd = attend(0, *inputs)
    weights = torch.randn(out_BHTd.shape, generator=torch.Generator().manual_seed(1))
    return [out_BHTd, *torch.autograd.grad((out_BHTd * weights).sum(), inputs)]


@hypothesis.settings(max_examples=60, deadline=None, derandomize=True)
@hypothesis.given(rows())
def test_span_mask_is_the_rule(row: Row) -> None:
    seen_TT = span_mask(*spans(row))[0]
    rule = [[sees(row, q, k) for k in range(len(row))] for q in range(len(row))]
    assert seen_TT.tolist() == rule


@hypothesis.settings(max_examples=40, deadline=None, derandomize=True)
@hypothesis.given(rows(), st.sampled_from([(4, 4), (4, 2), (3, 1)]), st.integers(0, 9))
def test_packed_equals_dense(row: Row, heads: tuple[int, int], seed: int) -> None:
    inputs = qkv(len(row), *heads, seed)
    packed = out_and_gradients(PackedAttention(*spans(row)), inputs)
    dense = out_and_gradients(DenseAttention(span_mask(*spans(row))), inputs)
    for mine, oracle in zip(packed, dense, strict=True):
        torch.testing.assert_close(mine, oracle, atol=2e-6, rtol=1e-5)


@hypothesis.settings(max_examples=20, deadline=None, derandomize=True)
@hypothesis.given(rows(), st.sampled_from([(4, 4), (4, 2)]), st.integers(0, 9))
def test_bfloat16_packed_is_near_dense_in_float32(row: Row, heads: tuple[int, int], seed: int):
    inputs = qkv(len(row), *heads, seed, dtype=torch.bfloat16)
    packed = out_and_gradients(PackedAttention(*spans(row)), inputs)
    exact = [x.detach().float().requires_grad_() for x in inputs]
    dense = out_and_gradients(DenseAttention(span_mask(*spans(row))), exact)
    for mine, oracle in zip(packed, dense, strict=True):
        assert mine.dtype == torch.bfloat16
        assert (mine.float() - oracle).abs().mean() < 0.01


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-6), (torch.bfloat16, 0.01)])
def test_rows_of_a_batch_and_long_documents(dtype: torch.dtype, error: float) -> None:
    doc_BT = torch.tensor([[0] * 136 + [1] * 64, [7] * 60 + [3] * 128 + [PADDING] * 12])
    block_BT = torch.zeros_like(doc_BT)
    block_BT[1, 70:140] = 1
    private_BT = 3 * block_BT
    private_BT[1, 130:150] = 5  # the block's end, and causal tokens behind it
    inputs = qkv(200, 4, 2, seed=0, B=2, dtype=dtype)
    packed = out_and_gradients(PackedAttention(doc_BT, block_BT, private_BT), inputs)
    exact = [x.detach().float().requires_grad_() for x in inputs]
    dense = out_and_gradients(DenseAttention(span_mask(doc_BT, block_BT, private_BT)), exact)
    for mine, oracle in zip(packed, dense, strict=True):
        assert (mine.float() - oracle).norm() < error * oracle.norm()


def test_padding_returns_its_own_value_and_takes_nothing_else() -> None:
    row: Row = [(0, 0, 0)] * 3 + [(PADDING, 0, 0)] * 4
    q, k, v = qkv(7, 4, 2, seed=0)
    out_BHTd = PackedAttention(*spans(row))(0, q, k, v)
    assert torch.equal(out_BHTd[:, :, 3:], v.repeat_interleave(2, dim=1)[:, :, 3:])


def test_rows_of_padding_alone_have_every_gradient() -> None:
    """A rank of a sharded run that has such rows must take part in the sums of all gradients."""
    row: Row = [(PADDING, 0, 0)] * 7
    _, d_q, d_k, d_v = out_and_gradients(PackedAttention(*spans(row)), qkv(7, 4, 2, seed=0))
    assert not d_q.any() and not d_k.any() and d_v.any()


def test_heads_may_lie_behind_tokens_or_before_them() -> None:
    row: Row = [(0, 0, 0)] * 9 + [(1, 1, 2)] * 6 + [(PADDING, 0, 0)] * 4
    attend, inputs = PackedAttention(*spans(row)), qkv(19, 4, 2, seed=3)
    behind = [x.detach().transpose(1, 2).contiguous().transpose(1, 2) for x in inputs]
    assert not any(x.is_contiguous() for x in behind)
    found = out_and_gradients(attend, [x.requires_grad_() for x in behind])
    for mine, expected in zip(found, out_and_gradients(attend, inputs), strict=True):
        assert torch.equal(mine, expected)


def test_queries_keys_and_values_may_differ_in_dtype_under_autocast() -> None:
    q, k, v = qkv(9, 4, 2, seed=4, dtype=torch.bfloat16)
    v = v.detach().float().requires_grad_()
    attend = PackedAttention(*spans([(0, 0, 0)] * 9))
    with torch.autocast("cpu", torch.bfloat16):
        out_BHTd = attend(0, q, k, v)
    gradients = torch.autograd.grad(out_BHTd.float().sum(), (q, k, v))
    assert [one.dtype for one in gradients] == [torch.bfloat16, torch.bfloat16, torch.float32]


def test_no_position_is_dropped_and_none_leaks() -> None:
    row: Row = [(0, 0, 0)] * 20 + [(1, 0, 0)] * 30
    attend = PackedAttention(*spans(row))
    q, k, v = qkv(50, 2, 2, seed=0)
    (touched,) = torch.autograd.grad(attend(0, q, k, v)[:, :, 49].sum(), v)
    assert (touched[0, :, 20:].abs() > 0).all() and not touched[0, :, :20].any()


def test_a_scattered_document_is_refused() -> None:
    row: Row = [(5, 0, 0)] * 2 + [(1, 0, 0)] * 2 + [(5, 0, 0)] * 2
    with pytest.raises(ValueError, match=r"documents \[5\] lie in several pieces"):
        PackedAttention(*spans(row))
