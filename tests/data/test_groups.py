"""Length groups: long documents of about equal lengths, whole groups of them, nothing twice."""

import numpy as np
import pytest

from unimodal.data.groups import FILLER, GROUP, length_groups

T = 2048
RNG = np.random.default_rng(3)


def test_cohorts_are_of_equal_lengths_and_hold_every_long_unit_but_a_few() -> None:
    lengths = np.concatenate([RNG.integers(1, FILLER + 1, 5000), RNG.integers(FILLER + 1, T, 803)])
    members, num = length_groups(lengths, T)
    assert np.array_equal(np.sort(members), np.arange(len(lengths)))
    assert num == 803 // GROUP
    groups = lengths[members[: GROUP * num]].reshape(num, GROUP)
    assert (groups > FILLER).all()
    rest = lengths[members[GROUP * num :]]
    assert (rest > FILLER).sum() == 803 % GROUP
    assert rest.max() <= groups.min(), "what is left over is the shortest of the long"
    # Neighbours in a sorted list: all spreads together are no more than the range of lengths.
    assert (groups.max(1) - groups.min(1)).sum() <= T - FILLER


def test_units_of_one_length_are_mixed() -> None:
    members, num = length_groups(np.full(8000, 1000), T)
    assert num == 1000
    groups = np.sort(members.reshape(num, GROUP).astype(int), axis=1)
    assert np.median(np.diff(groups, axis=1)) > 400, "neighbours in a shard do not stay together"


@pytest.mark.parametrize("lengths", [[5], [FILLER] * 20, [T] * 7])
def test_without_a_whole_cohort_every_unit_is_an_item(lengths: list) -> None:
    members, num = length_groups(np.array(lengths), T)
    assert num == 0 and sorted(members.tolist()) == list(range(len(lengths)))


def test_rows_shorter_than_eight_fillers_have_cohorts_of_the_longer_ones() -> None:
    lengths = np.repeat([200, 300, 1000], 8)
    members, num = length_groups(lengths, 1024)
    assert num == 2 and set(lengths[members[:8]]) == {1000} and set(lengths[members[8:16]]) == {300}
