"""Cross entropy in chunks against whole masked logits in float64: values, gradients, memory."""

import dataclasses
import math

import pytest
import torch
from benchmarks.measured import peak_bytes
from torch import Tensor

from unimodal import cross_entropy
from unimodal.cross_entropy import HAS_LIGER, Targets, linear_cross_entropy

N, D, V, FIRST = 60, 16, 150, 70
Z = 0.01
needs_liger = pytest.mark.skipif(
    not (HAS_LIGER and torch.cuda.is_available()), reason="needs a GPU and liger-kernel"
)


def inputs(device: str = "cpu", dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """hidden_ND and head_VD, wide enough that the losses are far from log V."""
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(rows, D, generator=generator) for rows in (N, V)]
    return [tensor.to(device, dtype).requires_grad_() for tensor in tensors]


def targets(device: str = "cpu", count: int = N) -> list[Targets]:
    """The positions in a shuffled order: rows below FIRST, and rows from there."""
    generator = torch.Generator().manual_seed(1)
    at_M = torch.randperm(N, generator=generator)[:count].to(device)
    ids_M = torch.randint(0, V, (N,), generator=generator).to(device)[:count]
    weights_M = torch.rand(N, generator=generator).to(device)[:count]
    low_M = ids_M < FIRST
    return [
        Targets(at_M[here_M], ids_M[here_M], weights_M[here_M], first, last)
        for here_M, first, last in ((low_M, 0, FIRST), (~low_M, FIRST, V))
    ]


def made(hidden_ND: Tensor, head_VD: Tensor, of: list[Targets], z: float = Z) -> list[Tensor]:
    """The sum, its gradients and each loss."""
    total, losses = linear_cross_entropy(hidden_ND, head_VD, of, z)
    return [total, *torch.autograd.grad(total, (hidden_ND, head_VD)), *losses]


def oracle(of: list[Targets], z: float = Z) -> list[Tensor]:
    """The same by masked logits in float64."""
    hidden_ND, head_VD = (x.detach().double().requires_grad_() for x in inputs())
    logits_NV = hidden_ND @ head_VD.T
    total, losses = logits_NV.new_zeros(()), []
    for one in of:
        rows_V = torch.arange(V)
        allowed_V = (rows_V >= one.first) & (rows_V < one.last)
        if one.allowed_R is not None:
            allowed_V[one.first : one.last] &= one.allowed_R
        masked_MV = logits_NV[one.at_M].masked_fill(~allowed_V, -math.inf)
        log_z_M = masked_MV.logsumexp(-1)
        losses.append(log_z_M - masked_MV.gather(-1, one.ids_M[:, None])[:, 0])
        total = total + (one.weights_M * (losses[-1] + z * log_z_M.square())).sum()
    return [total, *torch.autograd.grad(total, (hidden_ND, head_VD)), *losses]


def error(mine: list[Tensor], exact: list[Tensor]) -> float:
    """The largest distance in norm, as a share of the norm."""
    pairs = zip(mine, exact, strict=True)
    return max(float((a.detach().cpu() - b.detach()).norm() / b.detach().norm()) for a, b in pairs)


@pytest.mark.parametrize("chunk_logits", [1, 1000, 2**24])
def test_chunks_equal_masked_logits_in_float64(chunk_logits: int, monkeypatch) -> None:
    """A position at a time, many, all at once."""
    monkeypatch.setitem(cross_entropy.CHUNK_LOGITS, "cpu", chunk_logits)
    for z in (0.0, Z):
        exact = oracle(targets(), z)
        assert error(made(*inputs(), targets(), z), exact) < 1e-6
        assert error(made(*inputs(dtype=torch.float64), targets(), z), exact) < 1e-14


@pytest.mark.parametrize("chunk_logits", [1, 1000, 2**24])
def test_rows_that_no_target_may_be_take_no_part(chunk_logits: int, monkeypatch) -> None:
    """Of each slice every third row is left out: likely ones, that would change every loss."""
    monkeypatch.setitem(cross_entropy.CHUNK_LOGITS, "cpu", chunk_logits)
    masked = []
    for one in targets():
        allowed_R = torch.arange(one.first, one.last) % 3 > 0
        kept_M = allowed_R[one.ids_M - one.first]
        rest = (x_M[kept_M] for x_M in (one.at_M, one.ids_M, one.weights_M))
        masked.append(Targets(*rest, one.first, one.last, allowed_R))
    assert sum(len(one.at_M) for one in masked) > N / 2
    for z in (0.0, Z):
        exact = oracle(masked, z)
        mine = made(*inputs(dtype=torch.float64), masked, z)
        assert error(mine, exact) < 1e-14 and error(made(*inputs(), masked, z), exact) < 1e-6
        assert not mine[2][::3].any(), "their weights get no gradient"
    without = [dataclasses.replace(one, allowed_R=None) for one in masked]
    assert error(exact[:1], oracle(without)[:1]) > 0.01


def test_half_precision_keeps_losses_and_sums_in_float32(monkeypatch) -> None:
    monkeypatch.setitem(cross_entropy.CHUNK_LOGITS, "cpu", 100)
    exact = oracle(targets())
    half = made(*inputs(dtype=torch.bfloat16), targets())
    assert half[0].dtype == half[3].dtype == torch.float32
    assert half[1].dtype == half[2].dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        mixed = made(*inputs(), targets())
    assert all(x.dtype == torch.float32 for x in mixed)
    assert error(half, exact) < 0.01 and error(mixed, exact) < 0.01


def test_a_sure_prediction_keeps_its_gradient_in_half_precision() -> None:
    """softmax - 1 is taken before it is rounded: 1 - p of 0.004 would be lost in bfloat16."""
    hidden_ND = torch.ones(1, 1, requires_grad=True)
    head_VD = torch.tensor([[5.5], [0.0]], requires_grad=True)
    of = [Targets(torch.tensor([0]), torch.tensor([0]), torch.ones(1), 0, 2)]
    with torch.autocast("cpu", torch.bfloat16):
        _, _, d_head_VD, _ = made(hidden_ND, head_VD, of, z=0.0)
    p = 1 / (1 + math.exp(-5.5))
    torch.testing.assert_close(d_head_VD[:, 0], torch.tensor([p - 1, 1 - p]), rtol=4e-3, atol=0)


def test_positions_without_a_target_get_no_gradient() -> None:
    of = targets(count=20)
    _, d_hidden_ND, d_head_VD, *_ = made(*inputs(), of)
    learned_N = torch.zeros(N, dtype=torch.bool)
    learned_N[torch.cat([one.at_M for one in of])] = True
    assert torch.equal(d_hidden_ND.any(-1), learned_N) and d_head_VD.any(-1).all()
    total, *gradients = made(*inputs(), targets(count=0))[:3]
    assert total.item() == 0 and not any(gradient.any() for gradient in gradients)


def test_gradients_are_scaled_and_added_up() -> None:
    """As with accumulation: the loss divided by a number, and a second one on top."""
    hidden_ND, head_VD = inputs()
    for _ in range(2):
        total, _ = linear_cross_entropy(hidden_ND, head_VD, targets(), Z)
        (total / 4).backward()
    _, d_hidden_ND, d_head_VD, *_ = oracle(targets())
    assert error([hidden_ND.grad, head_VD.grad], [d_hidden_ND / 2, d_head_VD / 2]) < 1e-6


def test_only_what_is_asked_for_is_made() -> None:
    hidden_ND, head_VD = inputs()
    exact = oracle(targets())
    with torch.no_grad():
        total, losses = linear_cross_entropy(hidden_ND, head_VD, targets(), Z)
    assert not total.requires_grad and error([total, *losses], [exact[0], *exact[3:]]) < 1e-6
    total, losses = linear_cross_entropy(hidden_ND, head_VD.detach(), targets(), Z)
    assert not losses[0].requires_grad
    total.backward()
    assert error([hidden_ND.grad], [exact[1]]) < 1e-6


def test_gradients_are_not_scaled_twice() -> None:
    total, _ = linear_cross_entropy(*inputs(), targets(), Z)
    (2 * total).backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        (2 * total).backward()


def test_memory_beside_the_gradients_is_a_chunk(monkeypatch) -> None:
    monkeypatch.setitem(cross_entropy.CHUNK_LOGITS, "cpu", 50_000)
    hidden_ND, head_VD = torch.randn(2000, 8), torch.randn(5000, 8)
    ids_N = torch.arange(2000)
    of = [Targets(ids_N, ids_N, torch.ones(2000), 0, 5000)]

    def ours() -> None:
        linear_cross_entropy(hidden_ND.requires_grad_(), head_VD.requires_grad_(), of)[0].backward()

    ours()
    hidden_ND.grad = head_VD.grad = None
    peak, kept = peak_bytes(ours)
    assert kept == 4 * 8 * (2000 + 5000)
    assert 4 * 50_000 < peak - kept < 1.2 * 4 * 50_000


@needs_liger
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_liger_equals_masked_logits(dtype: torch.dtype, monkeypatch) -> None:
    most = 1e-5 if dtype == torch.float32 else 0.02
    mine = made(*inputs("cuda", dtype), targets("cuda"))
    assert error(mine, oracle(targets())) < most
    monkeypatch.setattr(cross_entropy, "HAS_LIGER", False)
    assert error(made(*inputs("cuda", dtype), targets("cuda")), oracle(targets())) < most
