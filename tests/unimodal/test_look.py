"""Runs of rows that are looked at apart."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from unimodal.look import row_runs


def slots(runs: list[tuple[slice, int]]) -> int:
    return sum((rows.stop - rows.start) * end for rows, end in runs)


def test_one_long_row_among_short_ones_is_a_run() -> None:
    ends_B = np.array([9, 12, 11, 900, 10])
    runs = row_runs(ends_B, 100)
    assert runs == [(slice(0, 3), 12), (slice(3, 4), 900), (slice(4, 5), 10)]
    assert row_runs(ends_B, 5000) == [(slice(0, 5), 900)]
    assert row_runs(np.array([7]), 0) == [(slice(0, 1), 7)]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 300), min_size=1, max_size=40), st.integers(1, 500))
def test_runs_cover_the_rows_and_each_is_worth_it(ends: list[int], worth: int) -> None:
    ends_B = np.array(ends)
    runs = row_runs(ends_B, worth)
    covered = [row for rows, _ in runs for row in range(rows.start, rows.stop)]
    assert covered == list(range(len(ends)))
    assert all(end == ends_B[rows].max() for rows, end in runs)
    whole = len(ends) * int(ends_B.max())
    assert slots(runs) <= whole - worth * (len(runs) - 1)
    for rows, end in runs:  # none of them is worth another cut
        num = rows.stop - rows.start
        for at in range(1, num):
            own_B = ends_B[rows]
            cut = at * own_B[:at].max() + (num - at) * own_B[at:].max()
            assert num * end - cut < worth
