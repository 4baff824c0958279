"""Kinds of attention against the dense mask, tiles against every pair, and what is refused."""

from importlib.util import find_spec

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from test_attention import Row, out_and_gradients, qkv, rows, spans
from torch.nn.attention.flex_attention import flex_attention

from unimodal import kernels
from unimodal.attention import DenseAttention
from unimodal.kernels import FlexAttention, UncompiledAttention, attention, block_mask
from unimodal.sequence import PADDING, span_mask
from unimodal.transformer import Transformer, TransformerConfig

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
needs_flash = pytest.mark.skipif(
    find_spec("flash_attn") is None or not torch.cuda.is_available(),
    reason="needs a GPU and flash-attn",
)
HEADS = [(4, 4), (4, 2), (3, 1)]


def long_row() -> Row:
    """820 tokens: long causal documents, blocks of whole tiles, private ones, padding."""
    row: Row = [(3, 0, 0)] * 290 + [(PADDING, 0, 0)] * 5
    row += [(1, 0, 0)] * 20 + [(1, 1, 1)] * 400 + [(1, 2, 0)] * 40 + [(1, 0, 2)] * 9
    return row + [(2, 0, 0)] * 40 + [(PADDING, 0, 0)] * 16


def causal_rows() -> tuple[torch.Tensor, ...]:
    """Two rows of 384 tokens, one with padding."""
    doc_BT = torch.tensor([[0] * 136 + [1] * 248, [7] * 100 + [3] * 272 + [PADDING] * 12])
    return doc_BT, torch.zeros_like(doc_BT), torch.zeros_like(doc_BT)


@hypothesis.settings(max_examples=60, deadline=None, derandomize=True)
@hypothesis.given(rows(), st.sampled_from([1, 2, 5, 16]))
def test_tiles_hold_every_pair(row: Row, tile: int) -> None:
    """Each pair that is seen lies in a tile that is listed; a full tile has no other pair."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "TILE", tile)
        mask = block_mask(*spans(row))
    seen_TT = span_mask(*spans(row))[0]
    T, number = len(row), -(-len(row) // tile)
    at_T = torch.arange(T)
    assert torch.equal(mask.mask_mod(torch.tensor(0), None, at_T[:, None], at_T), seen_TT)
    partial = listed(mask.kv_num_blocks, mask.kv_indices, number)
    full = listed(mask.full_kv_num_blocks, mask.full_kv_indices, number)
    assert not partial & full
    for q in range(number):
        for k in range(number):
            pairs = seen_TT[q * tile : (q + 1) * tile, k * tile : (k + 1) * tile]
            assert (q, k) in partial | full or not pairs.any()
            assert (q, k) not in full or (pairs.all() and pairs.shape == (tile, tile))


def listed(num: torch.Tensor, indices: torch.Tensor, number: int) -> set[tuple[int, int]]:
    return {(q, int(k)) for q in range(number) for k in indices[0, 0, q, : num[0, 0, q]]}


def test_tiles_that_nobody_sees_are_left_out() -> None:
    mask = block_mask(*spans(long_row()))
    full = listed(mask.full_kv_num_blocks, mask.full_kv_indices, 7)
    assert full == {(1, 0), (3, 3), (3, 4), (4, 3), (4, 4)}, "in the past, and within the block"
    # Two scales of one private image, causal copies behind it: the second sees the first whole.
    row: Row = [(0, 1, 1)] * 256 + [(0, 2, 1)] * 256 + [(0, 0, 0)] * 256
    mask = block_mask(*spans(row))
    full = listed(mask.full_kv_num_blocks, mask.full_kv_indices, 6)
    first, second = (
        {(q, k) for q in (0, 1) for k in (0, 1)},
        {(q, k) for q in (2, 3) for k in range(4)},
    )
    assert full == first | second | {(5, 4)}
    doc_BT = torch.arange(4096)[None] // 512
    zeros_BT = torch.zeros_like(doc_BT)
    mask = block_mask(doc_BT, zeros_BT, zeros_BT)
    assert int(mask.kv_num_blocks.sum()) == 32 and int(mask.full_kv_num_blocks.sum()) == 8 * 6


@hypothesis.settings(max_examples=20, deadline=None, derandomize=True)
@hypothesis.given(rows(), st.sampled_from(HEADS), st.integers(0, 9))
def test_flex_forward_equals_dense(row: Row, heads: tuple[int, int], seed: int) -> None:
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(kernels, "_compiled", lambda: flex_attention)
        inputs = [x.detach() for x in qkv(len(row), *heads, seed)]
        mine = attention(*spans(row), kind="flex")(0, *inputs)
        dense = DenseAttention(span_mask(*spans(row)))(0, *inputs)
    torch.testing.assert_close(mine, dense, atol=2e-6, rtol=1e-5)


@st.composite
def images(draw: st.DrawFn) -> Row:
    """What heads make of images: masked or noised copies before clean ones, scales, given ones."""
    row: Row = []
    for doc in range(draw(st.integers(1, 3))):
        row += [(doc, 0, 0)] * draw(st.integers(1, 4))
        block = private = 0
        for kind in draw(st.lists(st.sampled_from(["given", "learned", "scales"]), max_size=3)):
            n = draw(st.integers(1, 6))
            if kind == "learned":
                block, private = block + 1, private + 1
                row += [(doc, block, private)] * n
            for k in range(draw(st.integers(1, 3)) if kind == "scales" else 0):
                block, private = block + 1, private + (k == 0)
                row += [(doc, block, private)] * (k + 1)
            block += 1
            row += [(doc, block, 0)] * n + [(doc, 0, 0)] * draw(st.integers(0, 3))
        row += [(PADDING, 0, 0)] * draw(st.sampled_from([0, 0, 2]))
    return row


@hypothesis.settings(max_examples=12, deadline=None, derandomize=True)
@hypothesis.given(images(), st.sampled_from(HEADS), st.integers(0, 9))
def test_rows_of_images_equal_dense_with_gradients(row: Row, heads: tuple, seed: int) -> None:
    """A document at a time, and FlexAttention's rule, which torch runs backwards on a CPU when it
    is not asked to refuse.
    """
    dense = out_and_gradients(DenseAttention(span_mask(*spans(row))), qkv(len(row), *heads, seed))
    found = [attention(*spans(row), kind="sdpa")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "_compiled", lambda: flex_attention)
        patch.setattr(torch.nn.attention.flex_attention, "_validate_device", lambda *_: None)
        for attend in (*found, FlexAttention(*spans(row))):
            mine = out_and_gradients(attend, qkv(len(row), *heads, seed))
            for one, oracle in zip(mine, dense, strict=True):
                torch.testing.assert_close(one, oracle, atol=2e-6, rtol=1e-5)


@pytest.mark.slow  # a C++ compiler takes its time
@torch.no_grad()
def test_compiled_layers_take_flex_into_one_graph_for_all_batches() -> None:
    shape = TransformerConfig(50, 64, 2, 4, 2, 16, 128)
    model, oracle = (Transformer(shape).requires_grad_(False) for _ in range(2))
    for layer in model.model.layers:
        layer.compile(fullgraph=True)
    row = long_row()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for order in (row, row[::-1], row[295:] + row[:295]):
            x_BTD, positions_BT = torch.randn(1, len(row), 64), torch.arange(len(row))[None]
            mine = model(x_BTD, positions_BT, attention(*spans(order), kind="flex"))
            dense = oracle(x_BTD, positions_BT, DenseAttention(span_mask(*spans(order))))
            torch.testing.assert_close(mine, dense, atol=2e-5, rtol=1e-4)


@needs_gpu
@pytest.mark.parametrize("kind", ["flex", "sdpa"])
@pytest.mark.parametrize("heads", [(4, 4), (4, 2)])
def test_gradients_on_a_gpu_equal_dense_in_float32(kind: str, heads: tuple[int, int]) -> None:
    moved = [x.cuda() for x in spans(long_row())]
    inputs = [
        torch.randn(1, h, len(long_row()), 64, device="cuda", requires_grad=True)
        for h in (*heads, heads[1])
    ]
    mine = out_and_gradients_on_gpu(attention(*moved, kind=kind), inputs)
    dense = out_and_gradients_on_gpu(DenseAttention(span_mask(*moved)), inputs)
    for one, oracle in zip(mine, dense, strict=True):
        assert (one - oracle).norm() < 2e-3 * oracle.norm()  # TF32 in Triton's products


@needs_flash
@pytest.mark.parametrize("heads", [(4, 4), (4, 2)])
def test_flash_is_near_dense_in_float32(heads: tuple[int, int]) -> None:
    moved = [x.cuda() for x in causal_rows()]
    inputs = [
        torch.randn(2, h, 384, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        for h in (*heads, heads[1])
    ]
    mine = out_and_gradients_on_gpu(attention(*moved, "flash", torch.bfloat16), inputs)
    exact = [x.detach().float().requires_grad_() for x in inputs]
    dense = out_and_gradients_on_gpu(DenseAttention(span_mask(*moved)), exact)
    for one, oracle in zip(mine, dense, strict=True):
        assert (one.float() - oracle).norm() < 0.01 * oracle.norm()


def out_and_gradients_on_gpu(attend, inputs):
    out_BHTd = attend(0, *inputs)
    weights = torch.randn(out_BHTd.shape, generator=torch.Generator().manual_seed(1)).cuda()
    return [out_BHTd, *torch.autograd.grad((out_BHTd * weights).sum(), inputs)]


def test_a_cpu_takes_a_document_at_a_time() -> None:
    attend = attention(*spans(long_row()))
    assert isinstance(attend, UncompiledAttention)
    inputs = qkv(len(long_row()), 4, 2, seed=0)
    dense = out_and_gradients(DenseAttention(span_mask(*spans(long_row()))), inputs)
    for one, oracle in zip(out_and_gradients(attend, inputs), dense, strict=True):
        torch.testing.assert_close(one, oracle, atol=2e-6, rtol=1e-5)


@torch.no_grad()
def test_a_cpu_needs_no_compiler_for_passes_without_gradients() -> None:
    """FlexAttention could serve them, where a C++ compiler is installed: auto does without it."""
    for given in (causal_rows(), spans(long_row())):
        assert isinstance(attention(*given), UncompiledAttention)
        assert isinstance(attention(*given, kind="flex"), FlexAttention)


def test_what_cannot_be_is_refused(monkeypatch) -> None:
    half = torch.bfloat16
    causal, mixed = causal_rows(), spans(long_row())
    with pytest.raises(ValueError, match="attention flex: has no backward pass without a GPU"):
        attention(*causal, kind="flex")
    monkeypatch.setattr(kernels, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="attention flash: flash-attn is not installed"):
        attention(*causal, "flash", half)
    monkeypatch.setattr(kernels, "find_spec", lambda name: name)
    with pytest.raises(ValueError, match="flash: needs a GPU, and the rows lie on cpu"):
        attention(*causal, "flash", half)
    gpu = torch.device("cuda")
    assert kernels.why_unavailable("flash", gpu, half) is None
    assert "has no torch.float32" in kernels.why_unavailable("flash", gpu, torch.float32)
    assert "causal rows only" in kernels.why_unavailable("flash", gpu, half, causal=False)
    row: Row = [(5, 0, 0)] * 2 + [(1, 0, 0)] * 2 + [(5, 0, 0)] * 2
    for make in (FlexAttention, lambda doc, *_: kernels.FlashAttention(doc)):
        with pytest.raises(ValueError, match="several pieces of one row"):
            make(*spans(row))
    assert isinstance(attention(*mixed), UncompiledAttention)


def test_flash_is_given_the_bounds_of_documents() -> None:
    """A position of padding is a document of its own, so that it returns its own value."""
    doc_BT = torch.tensor([[4, 4, 4, 2, PADDING, PADDING], [4, 4, 9, 9, 9, 9]])
    flash = kernels.FlashAttention(doc_BT)
    assert flash.bounds.tolist() == [0, 3, 4, 5, 6, 8, 12] and flash.longest == 4
    assert flash.bounds.dtype == torch.int32
