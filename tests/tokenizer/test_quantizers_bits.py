"""LFQ and BSQ against vector-quantize-pytorch and the papers' equations in float64; entropies."""

from math import log

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from vector_quantize_pytorch import LFQ as LibraryLFQ

from unimodal.tokenizer.grid import Grid
from unimodal.tokenizer.quantizers.bsq import BSQ, BsqConfig
from unimodal.tokenizer.quantizers.entropy import entropy_of_mean, mean_entropy
from unimodal.tokenizer.quantizers.lfq import LFQ, LfqConfig


def all_codes(bits: int, size: float) -> torch.Tensor:
    """Every code's vector by the papers' definition, float64 (2 ** bits, bits)."""
    rows = [[1 if code >> bit & 1 else -1 for bit in range(bits)] for code in range(2**bits)]
    return torch.tensor(rows).double() * size


def reversed_bits(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Codes whose first number is the highest bit as ones whose first number is the lowest."""
    return sum((codes >> bit & 1) << (bits - 1 - bit) for bit in range(bits))


def entropy(p: torch.Tensor) -> torch.Tensor:
    return -(p * (p + 1e-300).log()).sum(-1)


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("inverse_temperature", [1.0, 100.0])
@pytest.mark.parametrize("bits", [1, 5, 8])
def test_lfq_is_the_librarys(bits: int, inverse_temperature: float):
    theirs = LibraryLFQ(dim=bits, entropy_loss_weight=0.3, diversity_gamma=2.0,
                        commitment_loss_weight=0.7).train()  # fmt: skip
    ours = LFQ(LfqConfig(bits, 0.3, 0.6, 0.7, 1 / inverse_temperature))
    z_1nK = normal(1, 300, bits).requires_grad_()
    (vectors, codes, loss), parts = theirs(
        z_1nK, inv_temperature=inverse_temperature, return_loss_breakdown=True
    )
    found = ours(z_1nK[None])
    torch.testing.assert_close(found.vectors[0], vectors)
    assert torch.equal(found.codes[0, :, 0], reversed_bits(codes[0].long(), bits))
    # The library raises probabilities below 1e-5 to that in its logarithms.
    near = {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(found.losses["entropy"], 0.3 * parts.per_sample_entropy, **near)
    torch.testing.assert_close(found.losses["diversity"], -0.6 * parts.batch_entropy, **near)
    torch.testing.assert_close(found.losses["commitment"], 0.7 * parts.commitment)
    torch.testing.assert_close(sum(found.losses.values()), loss, **near)
    if inverse_temperature == 1:  # or else many probabilities are below 1e-5
        losses = sum(found.losses.values()), loss
        mine, other = (torch.autograd.grad(x, z_1nK)[0] for x in losses)
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=2e-5)


def test_the_first_number_is_the_lowest_bit():
    lfq = LFQ(LfqConfig(bits=4)).eval()
    z_11nK = torch.tensor([[[[0.1, -2, -3, -4], [-1, -2, -3, 0.5], [0.0, 1, -1e-30, 3]]]])
    assert lfq(z_11nK).codes.flatten().tolist() == [1, 8, 10]
    decoded = lfq.decode(torch.tensor([[[1], [8]]]), Grid(1, 2))
    assert decoded.flatten().tolist() == [1, -1, -1, -1, -1, -1, -1, 1]
    assert lfq.levels == (2, 2, 2, 2)


@pytest.mark.parametrize("temperature", [0.8, 0.05])
@pytest.mark.parametrize(("bits", "factor_bits"), [(6, None), (6, 6), (6, 1), (7, 3), (5, 4)])
def test_entropies_are_those_of_a_table_of_all_codes(
    bits: int, factor_bits: int | None, temperature: float
):
    """LFQ's equations in float64: p(c | z) of every code, and of every code of each factor."""
    config = LfqConfig(bits, 1.0, 1.0, 0.0, temperature, factor_bits)
    z_nK = normal(50, bits).requires_grad_()
    found = LFQ(config)(z_nK[None, None]).losses

    def p_of(columns_nK: torch.Tensor) -> torch.Tensor:
        table_CK = all_codes(columns_nK.shape[1], 1.0)
        return (-(torch.cdist(columns_nK, table_CK) ** 2) / temperature).softmax(-1)

    def check(mine: torch.Tensor, wanted: torch.Tensor) -> None:
        torch.testing.assert_close(mine.double(), wanted, rtol=1e-5, atol=1e-6)
        slopes = [torch.autograd.grad(x, z_nK, retain_graph=True)[0] for x in (mine, wanted)]
        torch.testing.assert_close(*slopes, rtol=1e-3, atol=1e-5)

    check(found["entropy"], entropy(p_of(z_nK.double())).mean())
    factors = z_nK.double().split(factor_bits or bits, dim=1)
    wanted = sum(entropy(p_of(factor_nK).mean(0)) for factor_nK in factors)
    check(-found["diversity"], wanted)
    whole = entropy(p_of(z_nK.double()).mean(0))
    assert wanted >= whole - 1e-9  # factors are an upper bound


@pytest.mark.parametrize("bits", [3, 8, 18])
def test_bsq_is_the_papers(bits: int):
    """arXiv:2406.07548, sec. 4 in float64: u = z / |z|, u^ = sign(u) / sqrt(L), the soft
    assignment sigmoid(2 tau c_d u_d) of each number, and its entropies.
    """
    config, tau = BsqConfig(bits, entropy_weight=0.2, diversity_weight=0.3, temperature=0.05), 40
    bsq, z_nK = BSQ(config), 3 * normal(200, bits)
    found = bsq(z_nK[None, None])
    u_nK = z_nK.double() / z_nK.double().norm(dim=-1, keepdim=True)
    torch.testing.assert_close(found.vectors[0, 0].double(), u_nK.sign() * bits**-0.5)
    norms = found.vectors.norm(dim=-1)
    torch.testing.assert_close(norms, torch.ones_like(norms))
    wanted = ((u_nK > 0).long() * 2 ** torch.arange(bits)).sum(-1)
    assert torch.equal(found.codes[0, :, 0], wanted)
    p_nK = torch.sigmoid(2 * tau * bits**-0.5 * u_nK)
    of_bit = entropy(torch.stack([p_nK, 1 - p_nK], dim=-1)).sum(-1).mean()
    of_mean = entropy(torch.stack([p_nK.mean(0), 1 - p_nK.mean(0)], dim=-1)).sum()
    near = {"rtol": 1e-4, "atol": 1e-6}
    torch.testing.assert_close(found.losses["entropy"].double(), 0.2 * of_bit, **near)
    torch.testing.assert_close(found.losses["diversity"].double(), -0.3 * of_mean, **near)
    assert found.losses["commitment"] == 0
    # The distance on the sphere is bounded by sqrt(2 - 2 / sqrt(L)).
    assert (u_nK - found.vectors[0, 0]).norm(dim=-1).max() < (2 - 2 * bits**-0.5) ** 0.5


def test_bsq_with_one_factor_is_the_librarys():
    bits = 6
    size = bits**-0.5
    theirs = LibraryLFQ(dim=bits, spherical=True, commitment_loss_weight=0.5).train()
    ours = BSQ(BsqConfig(bits, 0.1, 0.1, 0.5, temperature=0.5, factor_bits=None))
    z_1nK = normal(1, 300, bits)
    (vectors, codes, _), parts = theirs(z_1nK, inv_temperature=2.0, return_loss_breakdown=True)
    found = ours(z_1nK[None])
    torch.testing.assert_close(found.vectors[0], vectors)
    assert torch.equal(found.codes[0, :, 0], reversed_bits(codes[0].long(), bits))
    near = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(found.losses["entropy"], 0.1 * parts.per_sample_entropy, **near)
    torch.testing.assert_close(found.losses["diversity"], -0.1 * parts.batch_entropy, **near)
    torch.testing.assert_close(found.losses["commitment"], 0.5 * parts.commitment, **near)
    assert abs(found.vectors[0, 0, 0].abs().max() - size) < 1e-6


def test_training_by_the_entropies_alone_uses_all_codes():
    """Confident and different: what the two losses are for."""
    lfq = LFQ(LfqConfig(bits=5, commitment_weight=0.0, temperature=1.0, diversity_weight=0.2))
    z = torch.nn.Parameter(0.01 * normal(1, 8, 16, 5) + 0.2)
    assert len(lfq(z).codes.unique()) == 1
    optimizer = torch.optim.Adam([z], lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        sum(lfq(z).losses.values()).backward()
        optimizer.step()
    assert len(lfq(z).codes.unique()) == 32
    assert z.abs().mean() > 0.5


@pytest.mark.parametrize("sign", [-1, 1])
def test_certain_bits_have_no_entropy_and_finite_slopes(sign: int):
    logits_nK = torch.full((4, 18), 1e6 * sign, requires_grad=True)
    loss = mean_entropy(logits_nK) - entropy_of_mean(logits_nK, 18)
    loss.backward()
    assert loss.abs() < 1e-6 and logits_nK.grad.isfinite().all()
    uncertain = torch.zeros(4, 18)
    for found in (mean_entropy(uncertain), entropy_of_mean(uncertain, 18)):
        assert found.item() == pytest.approx(18 * log(2), rel=1e-6)


class Made(TorchDispatchMode):
    """Adds up the bytes of all tensors that are made, those given back since included."""

    num_bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore
        out = function(*args, **(kwargs or {}))
        self.num_bytes += sum(x.nbytes for x in tree_leaves(out) if isinstance(x, torch.Tensor))
        return out


def test_2_to_the_18_codes_fit():
    """A table of all codes for each of 2,048 vectors would be 2 GiB; everything that forward and
    backward ever make, views counted again, is a tenth of one.
    """
    lfq, z_BhwK = LFQ(LfqConfig(bits=18)), normal(8, 16, 16, 18).requires_grad_()
    with Made() as made:
        sum(lfq(z_BhwK).losses.values()).backward()
    assert z_BhwK.grad.abs().sum() > 0
    assert 2**20 < made.num_bytes < 2048 * 2**18 * 4 / 10
