"""Packing: every sequence once, never cut, rows nearly full, long documents in groups of equals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unimodal.data import packing
from unimodal.data.packing import FILLER, length_groups, pack, pack_prefix

LONG = 2048  # the sequence length of the tests of length groups,
GROUP = 8  # and the units of one
RNG = np.random.default_rng(3)


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
def test_each_row_is_the_first_left_and_the_best_set_beside_it(lengths):
    left = list(range(len(lengths)))
    for first, *others in pack(np.array(lengths), 20):
        assert first == left.pop(0) and others == sorted(others)
        best = most([lengths[number] for number in left], 20 - lengths[first])
        assert sum(lengths[number] for number in others) == best
        for number in others:
            left.remove(number)


def test_by_hand():
    assert pack(np.array([1, 8, 2, 9]), 10) == [[0, 3], [1, 2]]
    assert pack(np.array([], dtype=int), 10) == []
    assert pack(np.array([5, 5, 5]), 10) == [[0, 1], [2]]
    # One after the other, 6 + 3 would leave a gap; 6 + 2 + 2 does not.
    assert pack(np.array([6, 3, 2, 2]), 10) == [[0, 2, 3], [1]]
    # Of what fills a row the first ones: a row holds neighbours, whatever their lengths.
    assert pack(np.array([4, 3, 3, 6, 6, 1, 1, 1, 1]), 10) == [[0, 1, 2], [3, 5, 6, 7, 8], [4]]


@pytest.mark.parametrize("count", [5000, 20000])
def test_what_fits_no_row_any_more_does_not_make_packing_slow(count, monkeypatch):
    """Many long sequences and hardly anything beside them: each row looks at a few of them."""
    looked = 0
    offered = packing._Left._offered

    def counted(left, first):
        nonlocal looked
        for one in offered(left, first):
            looked += 1
            yield one

    monkeypatch.setattr(packing._Left, "_offered", counted)
    lengths = np.random.default_rng(0).integers(LONG // 2 + 1, LONG, count)
    rows = pack(lengths, LONG)
    assert len(rows) == count and looked < (packing.SPARE + 2) * count


@pytest.mark.parametrize("sequence_length", [512, 1024, 4096])
def test_rows_hold_what_chance_gives(sequence_length):
    """Two tasks whose documents differ in length are mixed in rows as they are in the order."""
    rng = np.random.default_rng(1)
    is_long = rng.random(6000) < 0.4
    lengths = 76 + np.where(is_long, rng.integers(30, 160, 6000), rng.integers(10, 30, 6000))
    rows = pack(lengths, sequence_length)[:-4]
    share = is_long.mean()
    number = np.array([is_long[row].sum() for row in rows])
    sizes = np.array([len(row) for row in rows])
    z = (number - sizes * share) / np.sqrt(sizes * share * (1 - share))
    assert 0.6 < (z**2).mean() < 1.2, "as a longest-first order never is: 4 to 20"


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
    assert lengths.sum() / (len(rows) * sequence_length) >= least


def items(rng: np.random.Generator, longest: int, tokens: int) -> tuple[np.ndarray, ...]:
    """Lengths of units up to so many tokens, the end of each item, who is of a length group."""
    lengths: list[int] = []
    ends, in_group = [], []
    while True:
        is_group = rng.random() < 0.1
        more = rng.integers(48, 65, 8) if is_group else rng.integers(1, longest + 1, 1)
        if sum(lengths) + more.sum() > tokens:
            return np.array(lengths), np.array(ends), np.array(in_group)
        lengths += more.tolist()
        in_group += [is_group] * len(more)
        ends.append(len(lengths))


@pytest.mark.parametrize("longest", [4, 20, 64])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_prefix_fills_the_rows_as_the_best_of_all_prefixes_does(longest, seed):
    lengths, ends, in_group = items(np.random.default_rng([longest, seed]), longest, 32 * 64)
    fitting = [0]
    for end in ends.tolist():
        groups = np.flatnonzero(in_group[:end]).reshape(-1, GROUP).tolist()
        if len(pack(lengths[:end], 64, groups)) <= 32:
            fitting.append(end)
    count, rows = pack_prefix(lengths, ends, in_group, 64, 32, GROUP)
    assert count in fitting and len(rows) <= 32
    assert sorted(number for row in rows for number in row) == list(range(count))
    assert all(lengths[row].sum() <= 64 for row in rows)
    assert lengths[:count].sum() >= 0.985 * lengths[: max(fitting)].sum()


def test_a_prefix_by_hand():
    """Items of 6 tokens leave a gap of 4 in each row of 10, whatever the usual fill is."""
    ends, alone = np.arange(1, 31), np.zeros(30, bool)
    assert pack_prefix(np.full(30, 6), ends, alone, 10, 8, 1)[0] == 8
    assert pack_prefix(np.full(30, 5), ends, alone, 10, 8, 1)[0] == 16
    assert pack_prefix(np.full(30, 5), ends, alone, 10, 1, 1) == (2, [[0, 1]])
    rows = [[number] for number in range(8)]
    grouped = pack_prefix(np.full(16, 6), np.array([8, 16]), np.ones(16, bool), 10, 8, GROUP)
    assert grouped == (8, rows)


def test_length_groups_are_of_equal_lengths_and_hold_every_long_unit_but_a_few() -> None:
    lengths = np.concatenate(
        [RNG.integers(1, FILLER + 1, 5000), RNG.integers(FILLER + 1, LONG, 803)]
    )
    members, num = length_groups(lengths, LONG, GROUP)
    assert np.array_equal(np.sort(members), np.arange(len(lengths)))
    assert num == 803 // GROUP
    groups = lengths[members[: GROUP * num]].reshape(num, GROUP)
    assert (groups > FILLER).all()
    rest = lengths[members[GROUP * num :]]
    assert (rest > FILLER).sum() == 803 % GROUP
    assert rest.max() <= groups.min(), "what is left over is the shortest of the long"
    # Neighbours in a sorted list: all spreads together are no more than the range of lengths.
    assert (groups.max(1) - groups.min(1)).sum() <= LONG - FILLER


def test_units_of_one_length_are_mixed() -> None:
    members, num = length_groups(np.full(8000, 1000), LONG, GROUP)
    assert num == 1000
    groups = np.sort(members.reshape(num, GROUP).astype(int), axis=1)
    assert np.median(np.diff(groups, axis=1)) > 400, "neighbours in a shard do not stay together"


@pytest.mark.parametrize("lengths", [[5], [FILLER] * 20, [LONG] * 7])
def test_without_a_whole_group_every_unit_is_an_item(lengths: list) -> None:
    members, num = length_groups(np.array(lengths), LONG, GROUP)
    assert num == 0 and sorted(members.tolist()) == list(range(len(lengths)))


def test_rows_shorter_than_eight_fillers_have_groups_of_the_longer_ones() -> None:
    lengths = np.repeat([200, 300, 1000], 8)
    members, num = length_groups(lengths, 1024, GROUP)
    assert num == 2 and set(lengths[members[:8]]) == {1000} and set(lengths[members[8:16]]) == {300}


def test_a_group_of_one_row_needs_no_length_groups() -> None:
    members, num = length_groups(np.full(40, LONG), LONG, 1)
    assert num == 0 and sorted(members.tolist()) == list(range(40))
    assert length_groups(np.full(40, LONG), LONG, 3)[1] == 13
