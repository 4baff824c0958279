"""Grids: their size, and where each code stands."""

import numpy as np
import pytest

from unimodal.tokenizer.grid import Grid


def test_codes_stand_in_reading_order() -> None:
    grid = Grid(2, 3)
    assert grid.size == 6
    assert grid.addresses.tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    assert grid.addresses.dtype == np.int64


def test_codes_without_rows_are_one_row() -> None:
    grid = Grid(1, 128)
    assert grid.size == 128 and not grid.addresses[:, 0].any()


def test_scales_follow_one_another() -> None:
    grid = Grid(2, 3, ((1, 1), (1, 2), (2, 3)))
    assert grid.size == 1 + 2 + 6 and grid.counts == (1, 3, 9)
    assert Grid(2, 3).counts == (6,)
    single, coarse = [[0, 0]], [[0, 0], [0, 1]]
    assert grid.addresses.tolist() == [*single, *coarse, *Grid(2, 3).addresses.tolist()]
    with pytest.raises(ValueError, match="the last one is 2 x 3"):
        Grid(2, 3, ((1, 1), (3, 2)))


def test_grids_that_are_alike_are_equal() -> None:
    """They are keys: what is known of one is known of the other, also once its codes were asked."""
    one, other = Grid(2, 3), Grid(2, 3)
    assert one.addresses is one.addresses
    assert one == other and hash(one) == hash(other)
    assert Grid(2, 3) != Grid(3, 2) != Grid(2, 3, ((2, 3),))
