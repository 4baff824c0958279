"""FSQ: code <-> vector is a bijection, whatever the dtype of the input."""

import pytest
import torch

from unimodal.tokenizer.quantizer import FSQ

LEVELS = [(2,), (3, 2), (7, 5, 5, 5, 5), (8, 8, 8, 8), (16, 16, 8, 8)]


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_codes_round_trip_in_every_dtype(levels: tuple[int, ...], dtype: torch.dtype) -> None:
    fsq = FSQ(levels)
    codes = torch.arange(fsq.num_codes)
    vectors = fsq.decode(codes)
    assert len(vectors.unique(dim=0)) == fsq.num_codes
    z = torch.atanh(vectors).to(
        dtype
    )  # the middle of each level's share, as the encoder would give it
    quantized, back = fsq(z)
    assert (back == codes).all()
    torch.testing.assert_close(quantized, vectors)


def test_every_level_takes_an_equal_share_of_the_bounded_range() -> None:
    fsq = FSQ((5,))
    unit = (torch.arange(10_000) + 0.5) / 10_000
    _, codes = fsq(torch.atanh(2 * unit - 1)[:, None])
    assert torch.bincount(codes).tolist() == [2000] * 5


def test_extremes_stay_inside() -> None:
    quantized, codes = FSQ((8, 3))(torch.tensor([[1e9, -1e9], [-1e9, 1e9]]))
    assert codes.tolist() == [7, 16]
    assert quantized.abs().max() < 1


def test_gradient_passes_straight_through() -> None:
    z = torch.linspace(-2, 2, 9)[:, None].requires_grad_()
    FSQ((5,))(z)[0].sum().backward()
    torch.testing.assert_close(z.grad, 1 - torch.tanh(z.detach()) ** 2)


@pytest.mark.parametrize("codes", [[-1], [15]])
def test_codes_outside_the_range_are_refused(codes: list[int]) -> None:
    with pytest.raises(ValueError, match="outside 0..14"):
        FSQ((5, 3)).decode(torch.tensor(codes))


def test_bad_levels_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        FSQ((8, 1))
