"""Random orders that are never written down: bijections, well mixed, keyed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unimodal.data.order import generator, hashed, permuted, uniform, word


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 5000), st.integers(0, 2**63), st.integers(0, 2**40))
def test_an_order_holds_everything_once(size: int, seed: int, epoch: int) -> None:
    order = permuted(np.arange(size), size, seed, epoch)
    assert np.array_equal(np.sort(order), np.arange(size))


def test_any_index_is_found_alone() -> None:
    size = 10**12 + 39
    at = np.array([0, 1, 10**6, size - 1])
    order = permuted(at, size, 7)
    assert [int(permuted(at[k : k + 1], size, 7)[0]) for k in range(4)] == order.tolist()
    assert len(set(order.tolist())) == 4 and (order >= 0).all() and (order < size).all()


def test_keys_of_arrays_are_an_order_for_each_index() -> None:
    at, epochs = np.array([3, 3, 9]), np.array([0, 1, 1])
    mixed = permuted(at, 100, 5, epochs)
    alone = [permuted(at[k : k + 1], 100, 5, int(epochs[k]))[0] for k in range(3)]
    assert mixed.tolist() == alone


def test_orders_look_random() -> None:
    """Where 0 goes is uniform over keys; neighbours do not stay neighbours."""
    size, keys = 50, np.arange(20_000)
    went = permuted(np.zeros(len(keys), np.int64), size, keys)
    counts = np.bincount(went, minlength=size)
    chi2 = ((counts - len(keys) / size) ** 2 / (len(keys) / size)).sum()
    assert chi2 < 49 + 5 * np.sqrt(2 * 49)  # five standard deviations above its mean
    order = permuted(np.arange(10_000), 10_000, 3)
    assert abs(np.corrcoef(np.arange(10_000), order)[0, 1]) < 0.05
    assert (np.abs(np.diff(order)) == 1).mean() < 0.001
    assert (order == np.arange(10_000)).sum() < 10


def test_hashes_mix_every_word() -> None:
    numbers = np.arange(4096)
    base = hashed(1, numbers, 2)
    assert len(set(base.tolist())) == 4096
    for other in (hashed(2, numbers, 1), hashed(1, numbers), hashed(1, numbers, 3)):
        flipped = np.bitwise_count(base ^ other).mean()
        assert 31 < flipped < 33  # of 64 bits
    assert hashed(1, 2)[0] != hashed(2, 1)[0] and word("a") != word("b")


def test_uniform_numbers() -> None:
    numbers = uniform(4, np.arange(100_000))
    assert 0 <= numbers.min() and numbers.max() < 1
    assert abs(numbers.mean() - 0.5) < 0.005 and abs(numbers.var() - 1 / 12) < 0.002


def test_generators_are_keyed() -> None:
    assert generator(1, 2).random() == generator(1, 2, 0, 0).random()
    keys = [(1,), (2,), (1, 1), (1, 0, 1), (1, 0, 0, 1)]
    assert len({generator(*key).random() for key in keys}) == len(keys)


def test_indices_outside_are_an_error() -> None:
    with pytest.raises(ValueError, match="indices 0 to 5 of an order of 5"):
        permuted(np.array([0, 5]), 5, 1)
