"""Rows taken by their places, against torch's own way back."""

import pytest
import torch

from unimodal.gather import Gather


def test_what_comes_back_is_what_index_select_gives() -> None:
    """Rows that are taken once, several times, only as filling, and never."""
    torch.manual_seed(0)
    from_M = torch.tensor([4, 0, 0, 2, 4, 5, 4, 2])
    counts_M = torch.tensor([1, 1, 0, 1, 1, 0, 1, 1], dtype=torch.bool)
    x_ND = torch.randn(6, 3, requires_grad=True)
    weights_MD = torch.randn(8, 3) * counts_M[:, None]  # nothing comes back from filling
    taken_MD = Gather.of(from_M, counts_M, 6)(x_ND)
    expected_MD = x_ND.index_select(0, from_M)
    assert torch.equal(taken_MD, expected_MD)
    found, expected = (
        torch.autograd.grad((one * weights_MD).sum(), x_ND)[0] for one in (taken_MD, expected_MD)
    )
    torch.testing.assert_close(found, expected)
    assert not found[[1, 3, 5]].any() and found[[0, 2, 4]].any(1).all()


def test_the_way_back_is_a_gather_too() -> None:
    from_M = torch.tensor([2, 0, 0, 1])
    there = Gather.of(from_M, torch.tensor([True, True, False, True]), 3)
    back = there.reversed()
    x_ND = torch.randn(3, 2)
    assert torch.equal(back(there(x_ND)), x_ND)
    y_MD = torch.randn(4, 2, requires_grad=True)
    weights_ND = torch.randn(3, 2)
    (grad_MD,) = torch.autograd.grad((back(y_MD) * weights_ND).sum(), y_MD)
    assert torch.equal(grad_MD[[1, 3, 0]], weights_ND) and not grad_MD[2].any()


def test_what_went_nowhere_or_twice_cannot_come_back() -> None:
    for from_M, num in (([0, 2], 3), ([0, 0, 1], 2)):
        there = Gather.of(torch.tensor(from_M), torch.ones(len(from_M), dtype=torch.bool), num)
        with pytest.raises(ValueError, match="to no place, or to several"):
            there.reversed()
