"""Several codes a place: residual stages as the library has them, VAR's grids, groups."""

import pytest
import torch
from torch.nn import functional as F
from vector_quantize_pytorch import ResidualFSQ, ResidualLFQ, ResidualVQ

from unimodal.tokenizer.grid import Grid
from unimodal.tokenizer.quantizers.config import (
    BsqConfig,
    FsqConfig,
    LfqConfig,
    QuantizerConfig,
    VqConfig,
)

VAR_SIDES = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def reversed_bits(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Codes whose first number is the highest bit as ones whose first number is the lowest."""
    return sum((codes >> bit & 1) << (bits - 1 - bit) for bit in range(bits))


# --- residual -------------------------------------------------------------------------------------


def test_residual_lfq_is_the_librarys():
    """Its losses come stage by stage; ours are their mean."""
    bits, stages = 6, 4
    theirs = ResidualLFQ(dim=bits, codebook_size=2**bits, num_quantizers=stages,
                         entropy_loss_weight=0.3, diversity_gamma=2.0,
                         commitment_loss_weight=0.7).train()  # fmt: skip
    section = LfqConfig(bits, 0.3, 0.6, 0.7, temperature=0.01)
    ours = QuantizerConfig(lfq=section, residual=stages).build(0)
    z_1nK = normal(1, 300, bits)
    vectors, codes, losses = theirs(z_1nK)
    found = ours(z_1nK[None])
    torch.testing.assert_close(found.vectors[0], vectors)
    assert torch.equal(found.codes, reversed_bits(codes.long(), bits))
    near = {"rtol": 1e-4, "atol": 2e-4}
    torch.testing.assert_close(sum(found.losses.values()), losses.mean(), **near)
    assert (z_1nK - vectors).abs().mean() < (z_1nK - z_1nK.sign()).abs().mean() / 2


def test_residual_vq_is_the_librarys():
    torch.manual_seed(0)
    theirs = ResidualVQ(dim=4, codebook_size=30, num_quantizers=3, decay=0.9, rotation_trick=False,
                        commitment_weight=0.3).train()  # fmt: skip
    ours = QuantizerConfig(vq=VqConfig(30, 4, 0.9, 0.3, 1e-9), residual=3).build(0)
    for mine, other in zip(ours.stages, theirs.layers, strict=True):
        mine.codebook.copy_(other._codebook.embed[0])
        mine.counts.copy_(other._codebook.cluster_size[0])
        mine.sums.copy_(other._codebook.embed_avg[0])
    for seed in range(4):
        z = normal(1, 200, 4, seed=seed)
        vectors, codes, losses = theirs(z)
        found = ours(z[None])
        torch.testing.assert_close(found.vectors[0], vectors)
        assert torch.equal(found.codes, codes)
        torch.testing.assert_close(found.losses["commitment"], losses.mean())
    for mine, other in zip(ours.stages, theirs.layers, strict=True):
        torch.testing.assert_close(mine.codebook, other._codebook.embed[0])


@pytest.mark.parametrize("levels", [(5, 5, 5), (8, 6, 3)])
def test_residual_fsq_is_the_librarys_in_other_units(levels: tuple[int, ...]):
    """It puts the outermost levels at -1 and 1, where ours are the middles of shares: its vectors
    are larger by L / (L - 1), and its bound is tanh(z (L - 1) / L).
    """
    theirs = ResidualFSQ(dim=len(levels), levels=list(levels), num_quantizers=3)
    ours = QuantizerConfig(fsq=FsqConfig(levels), residual=3).build(0)
    ratio = torch.tensor([count / (count - 1) for count in levels])
    z_1nD = normal(1, 500, len(levels))
    vectors, codes = theirs(z_1nD)
    found = ours((z_1nD / ratio)[None])
    same_n = (found.codes[0] == codes[0]).all(-1)
    assert same_n.float().mean() > 0.99  # where shares meet, rounding decides
    torch.testing.assert_close(found.vectors[0, 0, same_n] * ratio, vectors[0, same_n])


@pytest.mark.parametrize("bound", ["equal_width", "sigmoid", "equal_mass"])
def test_stages_of_fsq_are_the_digits_of_one_with_more_levels(bound: str):
    """Shares of shares: three stages of 5 levels are 125 levels, the first stage the highest."""
    z = 1.5 * normal(1, 20, 500, 2)
    staged = QuantizerConfig(fsq=FsqConfig((5, 5), bound), residual=3).build(0)(z)  # type: ignore
    fine = QuantizerConfig(fsq=FsqConfig((125, 125), bound)).build(0)(z)  # type: ignore
    first = sum(staged.codes[..., stage] % 5 * 25 // 5**stage for stage in range(3))
    second = sum(staged.codes[..., stage] // 5 * 25 // 5**stage for stage in range(3))
    same = first + 125 * second == fine.codes[..., 0]
    assert same.float().mean() > 0.999
    torch.testing.assert_close(staged.vectors.flatten(1, 2)[same], fine.vectors.flatten(1, 2)[same])


@pytest.mark.parametrize(
    "section",
    [{"fsq": FsqConfig((5, 4))}, {"fsq": FsqConfig((5, 4), "shifted")}, {"lfq": LfqConfig(bits=6)},
     {"bsq": BsqConfig(bits=6)}],
)  # fmt: skip
def test_each_stage_leaves_less(section: dict):
    first = QuantizerConfig(**section).build(0)
    z = normal(1, 30, 30, first.width)
    errors = []
    for stages in (1, 2, 3, 4):
        quantizer = QuantizerConfig(**section, residual=stages).build(0).eval()
        errors.append((first.bound(z) - quantizer(z).vectors).abs().mean().item())
    assert errors == sorted(errors, reverse=True) and errors[3] < errors[0] / 2


def test_a_residual_gradient_is_that_of_the_bound():
    quantizer = QuantizerConfig(fsq=FsqConfig((5, 5)), residual=3).build(0)
    z = normal(1, 4, 4, 2).requires_grad_()
    quantizer(z).vectors.sum().backward()
    torch.testing.assert_close(z.grad, 1 - torch.tanh(z.detach()) ** 2)


# --- scales ---------------------------------------------------------------------------------------


def test_grids_are_vars():
    quantizer = QuantizerConfig(vq=VqConfig(64, 4), scales=VAR_SIDES).build(0)
    grid = quantizer.grid_of(Grid(16, 16))
    assert grid.scales == tuple((side, side) for side in VAR_SIDES)
    assert grid.size == sum(side**2 for side in VAR_SIDES) == 680
    # Of other shapes, each grid has its part of rows and of columns.
    assert quantizer.grid_of(Grid(8, 32)).scales[-3:] == ((5, 20), (7, 26), (8, 32))
    assert quantizer.grid_of(Grid(1, 2)).scales[0] == (1, 1)


def test_scales_are_vars_algorithms():
    """Alg. 1 and 2 of arXiv:2404.02905 in float64, image by image and channels first."""
    quantizer = QuantizerConfig(vq=VqConfig(64, 4), scales=VAR_SIDES).build(0).eval()
    z = normal(2, 16, 16, 4)
    found = quantizer(z)
    book = quantizer.codebook.codebook.double()
    for image, codes, vectors in zip(z, found.codes, found.vectors, strict=True):
        rest = image.movedim(-1, 0)[None].double()
        total, wanted = torch.zeros_like(rest), []
        for side in VAR_SIDES:
            small = F.adaptive_avg_pool2d(rest, side)
            nearest = torch.cdist(small[0].flatten(1).T, book).argmin(-1)
            wanted.append(nearest)
            small = book[nearest].T.reshape(1, 4, side, side)
            large = F.interpolate(small, (16, 16), mode="nearest") if side < 16 else small
            total, rest = total + large, rest - large
        assert torch.equal(codes[:, 0], torch.cat(wanted))
        torch.testing.assert_close(vectors.double(), total[0].movedim(0, -1), rtol=1e-5, atol=1e-5)


def test_coarse_scales_are_decoded_alone():
    quantizer = QuantizerConfig(vq=VqConfig(64, 4), scales=(1, 2, 4)).build(0).eval()
    found, grid = quantizer(normal(2, 4, 4, 4)), quantizer.grid_of(Grid(4, 4))
    book, total = quantizer.codebook.codebook, torch.zeros(2, 4, 4, 4)
    for side, own in zip((1, 2, 4), found.codes[..., 0].split([1, 4, 16], 1), strict=True):
        small = book[own].unflatten(1, (side, side)).movedim(-1, 1)
        large = F.interpolate(small, (4, 4), mode="nearest") if side < 4 else small
        total = total + large.movedim(1, -1)
        count = sum(one**2 for one in (1, 2, 4) if one <= side)
        torch.testing.assert_close(quantizer.decode(found.codes[:, :count], grid), total)
    for count in (0, 2, 20, 22):
        with pytest.raises(ValueError, match=r"codes of shape \(2, \d+, 1\)"):
            quantizer.decode(found.codes[:, :1].expand(2, count, 1), grid)
    assert torch.equal(quantizer.code_vectors(torch.tensor([[3], [9]])), book[[3, 9]])


def test_finer_grids_add_detail():
    """An image of one colour is said by the first grid; a second grid adds to what it left."""
    quantizer = QuantizerConfig(vq=VqConfig(64, 4), scales=(1, 2, 4)).build(0).eval()
    flat = quantizer.codebook.codebook[7].expand(1, 4, 4, 4)
    assert quantizer(flat).codes[0, 0, 0] == 7
    z = normal(4, 8, 8, 4)
    errors = []
    for scales in ((1, 8), (1, 2, 4, 8), (1, 2, 3, 4, 5, 6, 7, 8)):
        several = QuantizerConfig(vq=VqConfig(64, 4), scales=scales).build(0).eval()
        errors.append((several(z).vectors - z).square().mean().item())
    assert errors == sorted(errors, reverse=True)


def test_a_learned_codebook_of_scales_moves_once_a_step():
    """By all grids together: the averages are those of every vector that was looked up."""
    config = QuantizerConfig(vq=VqConfig(8, 2, decay=0.75, restart_below=1e-9), scales=(1, 2, 4))
    quantizer = config.build(0)
    found = quantizer(normal(3, 4, 4, 2))
    assert quantizer.codebook.num_updates == 1
    counts = torch.bincount(found.codes.flatten(), minlength=8)
    torch.testing.assert_close(quantizer.codebook.counts, 0.25 * counts.float())
    assert counts.sum() == 3 * (1 + 4 + 16)


# --- groups ---------------------------------------------------------------------------------------


def test_groups_are_quantizers_side_by_side():
    config = QuantizerConfig(vq=VqConfig(16, 2), groups=3, residual=2)
    quantizer, z = config.build(0).eval(), normal(2, 3, 5, 6)
    found = quantizer(z)
    assert found.codes.shape == (2, 15, 6)
    for number, part in enumerate(quantizer.parts):
        alone = part(z[..., 2 * number : 2 * number + 2])
        assert torch.equal(found.codes[..., 2 * number : 2 * number + 2], alone.codes)
        assert torch.equal(found.vectors[..., 2 * number : 2 * number + 2], alone.vectors)
    decoded = quantizer.parts[1].decode(found.codes[..., 2:4], Grid(3, 5))
    assert torch.equal(decoded, found.vectors[..., 2:4])


def test_losses_of_groups_are_means():
    section = LfqConfig(bits=4, factor_bits=2)
    quantizer, z = QuantizerConfig(lfq=section, groups=2).build(0), normal(2, 3, 5, 8)
    found = quantizer(z).losses
    alone = [
        part(piece).losses for part, piece in zip(quantizer.parts, z.chunk(2, -1), strict=True)
    ]
    assert set(found) == {"entropy", "diversity", "commitment"}
    for name, loss in found.items():
        torch.testing.assert_close(loss, (alone[0][name] + alone[1][name]) / 2)
