"""FSQ: the shipped form against float64, the paper's against vector-quantize-pytorch, others."""

import pytest
import torch
from vector_quantize_pytorch import FSQ as LibraryFSQ

from unimodal.tokenizer.grid import Grid
from unimodal.tokenizer.quantizers.fsq import FSQ

LEVELS = [(2,), (3, 2), (7, 5, 5, 5, 5), (8, 8, 8, 8), (16, 16, 8, 8)]


def row(numbers: torch.Tensor) -> torch.Tensor:
    """Vectors (n, D) as those of one image of one row."""
    return numbers[None, None]


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_codes_round_trip_in_every_dtype(levels: tuple[int, ...], dtype: torch.dtype) -> None:
    fsq = FSQ(levels)
    codes = torch.arange(fsq.num_codes)[None, :, None]
    vectors = fsq.decode(codes, Grid(1, fsq.num_codes))
    assert len(vectors[0, 0].unique(dim=0)) == fsq.num_codes
    # The middle of each level's share, as the encoder would give it.
    found = fsq(torch.atanh(vectors).to(dtype))
    assert (found.codes == codes).all()
    assert found.vectors.dtype == torch.float32 and torch.equal(found.vectors, vectors)


@pytest.mark.parametrize("levels", LEVELS)
def test_codes_are_those_of_float64_arithmetic(levels: tuple[int, ...]) -> None:
    """An implementation of its own; numbers next to where levels meet may go either way."""
    torch.manual_seed(0)
    z_nD = torch.randn(20_000, len(levels)) * 1.5
    share_nD = (torch.tanh(z_nD.double()) + 1) / 2 * torch.tensor(levels)
    clear_n = ((share_nD - share_nD.round()).abs() > 1e-5).all(-1)
    digits_nD, code_n, radix = share_nD.floor().long(), torch.zeros(len(z_nD)).long(), 1
    for d, count in enumerate(levels):
        code_n, radix = code_n + digits_nD[:, d] * radix, radix * count
    found = FSQ(levels)(row(z_nD))
    assert clear_n.sum() > 19_000
    assert torch.equal(found.codes[0, clear_n, 0], code_n[clear_n])
    middles_nD = (2 * digits_nD + 1) / torch.tensor(levels).double() - 1
    torch.testing.assert_close(found.vectors[0, 0, clear_n].double(), middles_nD[clear_n])


def test_every_level_takes_an_equal_share_of_the_bounded_range() -> None:
    unit = (torch.arange(10_000) + 0.5) / 10_000
    codes = FSQ((5,))(row(torch.atanh(2 * unit - 1)[:, None])).codes
    assert torch.bincount(codes.flatten()).tolist() == [2000] * 5


def test_extremes_stay_inside() -> None:
    found = FSQ((8, 3))(row(torch.tensor([[1e9, -1e9], [-1e9, 1e9]])))
    assert found.codes.flatten().tolist() == [7, 16]
    assert found.vectors.abs().max() < 1


def test_gradient_passes_straight_through() -> None:
    z = torch.linspace(-2, 2, 9)[:, None].requires_grad_()
    FSQ((5,))(row(z)).vectors.sum().backward()
    torch.testing.assert_close(z.grad, 1 - torch.tanh(z.detach()) ** 2)


@pytest.mark.parametrize("code", [-1, 15])
def test_codes_outside_the_range_are_refused(code: int) -> None:
    with pytest.raises(ValueError, match="outside 0..14"):
        FSQ((5, 3)).decode(torch.tensor([[[code]]]), Grid(1, 1))


def test_bad_levels_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        FSQ((8, 1))


# --- the paper's form, as vector-quantize-pytorch has it ------------------------------------------


@pytest.mark.parametrize("levels", [(3,), (8, 8, 8), (7, 5, 5, 5), (8, 6, 5, 4)])
def test_shifted_is_the_librarys(levels: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    theirs, ours = LibraryFSQ(list(levels)), FSQ(levels, "shifted")
    z_1nD = (2 * torch.randn(1, 20_000, len(levels))).requires_grad_()
    vectors, codes = theirs(z_1nD)
    found = ours(z_1nD[None])
    assert len(codes.unique()) > 0.9 * ours.num_codes
    assert torch.equal(found.codes[0, :, 0], codes[0].long())
    torch.testing.assert_close(found.vectors[0], vectors)
    torch.testing.assert_close(*(torch.autograd.grad((v**2).sum(), z_1nD)[0]
                                 for v in (found.vectors, vectors)))  # fmt: skip
    every = torch.arange(ours.num_codes)
    decoded = ours.decode(every[None, :, None], Grid(1, ours.num_codes))
    torch.testing.assert_close(decoded[0, 0], theirs.indices_to_codes(every))


# --- how numbers are bounded ----------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 5, 8])
def test_equal_mass_is_the_floor_of_l_phi(count: int) -> None:
    """And makes levels equally likely for normal numbers, which no other bound does."""
    normal = torch.distributions.Normal(torch.tensor(0.0).double(), torch.tensor(1.0).double())
    torch.manual_seed(0)
    z_n1 = torch.randn(40_000, 1)
    codes = FSQ((count,), "equal_mass")(row(z_n1)).codes.flatten()
    assert torch.equal(codes, (count * normal.cdf(z_n1.double())).floor().long().flatten())
    usage = torch.bincount(codes, minlength=count) / len(codes)
    assert (usage - 1 / count).abs().max() < 0.006


def test_sigmoid_is_twice_the_sigmoid_less_one() -> None:
    """iFSQ's bound gives levels more equal shares of normal numbers than tanh does."""
    torch.manual_seed(0)
    z_n1 = torch.randn(40_000, 1)
    bounded = 2 * torch.sigmoid(1.6 * z_n1.double()) - 1
    found = FSQ((8,), "sigmoid")(row(z_n1))
    assert torch.equal(found.codes.flatten(), (4 * (bounded + 1)).floor().long().flatten())
    uneven = {}
    for bound in ("equal_width", "sigmoid"):
        codes = FSQ((8,), bound)(row(z_n1)).codes.flatten()  # type: ignore
        uneven[bound] = (torch.bincount(codes) / len(codes) - 1 / 8).abs().max().item()
    assert uneven["sigmoid"] < 0.025 < 0.04 < uneven["equal_width"]


@pytest.mark.parametrize("bound", ["equal_width", "shifted", "sigmoid", "equal_mass"])
def test_levels_rise_with_the_number_and_all_are_reached(bound: str) -> None:
    for count in range(3, 20):
        z_n1 = torch.linspace(-30, 30, 60_001)[:, None]
        fsq = FSQ((count,), bound)  # type: ignore
        codes = fsq(row(z_n1)).codes.flatten()
        assert (codes.diff() >= 0).all() and codes.unique().tolist() == list(range(count))
        if bound != "shifted" or count % 2:  # symmetric: -z has the opposite level
            opposite = fsq(row(-z_n1)).codes.flatten()
            assert ((codes + opposite) != count - 1).sum() < count
