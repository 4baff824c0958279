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


def most(lengths, room):
    """The largest sum of a subset that is at most `room`, by trying all."""
    sums = {0}
    for length in lengths:
        sums |= {total + length for total in sums}
    return max(total for total in sums if total <= room)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=10))
def test_each_row_is_the_longest_left_and_the_best_set_beside_it(lengths):
    left = list(lengths)
    for row in pack(np.array(lengths), 20):
        row_lengths = [lengths[number] for number in row]
        longest = max(left)
        left.remove(longest)
        assert row_lengths[0] == longest
        assert sum(row_lengths[1:]) == most(left, 20 - longest)
        for length in row_lengths[1:]:
            left.remove(length)


def test_by_hand():
    assert pack(np.array([1, 8, 2, 9]), 10) == [[3, 0], [1, 2]]
    assert pack(np.array([], dtype=int), 10) == []
    assert pack(np.array([5, 5, 5]), 10) == [[0, 1], [2]]
    # One after the other, 6 + 3 would leave a gap; 6 + 2 + 2 does not.
    assert pack(np.array([6, 3, 2, 2]), 10) == [[0, 2, 3], [1]]


@pytest.mark.parametrize("lengths", [[3, 11], [3, 0]])
def test_what_fits_no_row_is_an_error(lengths):
    with pytest.raises(ValueError, match=f"sequence 1 has {lengths[1]} tokens: .* 1 to 10"):
        pack(np.array(lengths), 10)


@pytest.mark.parametrize("sequence_length, least", [(512, 0.98), (1024, 0.99), (2048, 0.99)])
def test_rows_of_realistic_windows_are_nearly_full(sequence_length, least):
    """Lengths as of conversations about 64-code images: one to three images, and words."""
    rng = np.random.default_rng(0)
    images = rng.choice([1, 2, 3], 2048, p=[0.8, 0.15, 0.05])
    lengths = 76 * images + rng.integers(8, 70, 2048)
    rows = pack(lengths, sequence_length)
    assert fill(lengths, rows, sequence_length) >= least
    assert fill(lengths, rows, sequence_length) == lengths.sum() / (len(rows) * sequence_length)
