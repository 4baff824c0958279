"""Packing: every sequence once, never cut, rows nearly full."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unimodal.data.packing import fill, pack


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 64), max_size=80))
def test_every_sequence_is_in_one_row_and_fits(lengths):
    rows = pack(np.array(lengths), 64)
    assert sorted(number for row in rows for number in row) == list(range(len(lengths)))
    assert all(row and sum(lengths[number] for number in row) <= 64 for row in rows)
    loads = [sum(lengths[number] for number in row) for row in rows]
    assert sum(load <= 32 for load in loads) <= 1  # two such rows would have been one


def test_best_fit_by_hand():
    # 9 and 8 open rows; 2 fits best beside 8 (leaves 0), 1 beside 9 (leaves 0).
    assert pack(np.array([1, 8, 2, 9]), 10) == [[3, 0], [1, 2]]
    assert pack(np.array([], dtype=int), 10) == []
    assert pack(np.array([5, 5, 5]), 10) == [[0, 1], [2]]


@pytest.mark.parametrize("lengths", [[3, 11], [3, 0]])
def test_what_fits_no_row_is_an_error(lengths):
    with pytest.raises(ValueError, match=f"sequence 1 has {lengths[1]} positions: .* 1 to 10"):
        pack(np.array(lengths), 10)


@pytest.mark.parametrize("row_length", [1024, 2048])
def test_rows_of_realistic_windows_are_at_least_98_percent_full(row_length):
    """Lengths as of conversations about 64-code pictures: one to four pictures, and words."""
    rng = np.random.default_rng(0)
    lengths = 80 * rng.integers(1, 5, 2048) + rng.integers(10, 120, 2048)
    rows = pack(lengths, row_length)
    assert fill(lengths, rows, row_length) >= 0.98
