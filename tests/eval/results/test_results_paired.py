"""Paired statistics beside what is counted out: all resamples, all signs, McNemar by hand."""

import itertools
import math

import numpy as np
import pytest

from unimodal.eval.results.paired import bootstrap, exchange_p, holm, interval


def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def every_resample(sums: list[float], sizes: list[float]) -> np.ndarray:
    """The mean difference of each of the n^n equally likely resamples of n clusters."""
    n = len(sums)
    return np.array(
        [
            math.fsum(sums[k] for k in drawn) / math.fsum(sizes[k] for k in drawn)
            for drawn in itertools.product(range(n), repeat=n)
        ]
    )


@pytest.mark.parametrize(
    ("sums", "sizes"),
    [
        ([1.0, 0.0, -1.0, 2.0, 1.0], [1.0, 1.0, 1.0, 2.0, 1.0]),
        ([4.0, 0.0, 3.0, -1.0], [4.0, 4.0, 4.0, 4.0]),
        ([0.31, -0.2, 0.05, 0.77, 0.4], [1.0, 3.0, 2.0, 1.0, 1.0]),
    ],
)
def test_the_bootstrap_draws_as_all_resamples_are(sums: list[float], sizes: list[float]):
    exact = np.sort(every_resample(sums, sizes))
    drawn = np.sort(bootstrap(np.array(sums), np.array(sizes), rng(), 40_000))
    assert set(np.round(drawn, 9)) <= set(np.round(exact, 9))
    places = np.unique(np.round(exact, 9)) + 1e-6
    below = [np.searchsorted(some, places) / len(some) for some in (exact, drawn)]
    # Dvoretzky, Kiefer and Wolfowitz: farther than this once in 10,000 such tests.
    assert np.abs(below[0] - below[1]).max() < math.sqrt(math.log(2e4) / (2 * 40_000))
    assert drawn.mean() == pytest.approx(exact.mean(), abs=0.01)
    assert drawn.var() == pytest.approx(exact.var(), rel=0.05)


def test_the_interval_is_that_of_all_resamples():
    sums, sizes = [0.31, -0.2, 0.05, 0.77, 0.4], [1.0, 3.0, 2.0, 1.0, 1.0]
    exact = np.quantile(every_resample(sums, sizes), [0.025, 0.975])
    found = interval(bootstrap(np.array(sums), np.array(sizes), rng(), 40_000))
    assert found == pytest.approx(exact, abs=0.02)


def test_large_sets_are_drawn_in_pieces(monkeypatch: pytest.MonkeyPatch):
    sums_C, sizes_C = rng().integers(-1, 2, 50).astype(float), np.ones(50)
    whole = bootstrap(sums_C, sizes_C, rng(), 1000)
    monkeypatch.setattr("unimodal.eval.results.paired.CHUNK", 50 * 7)
    pieces = bootstrap(sums_C, sizes_C, rng(), 1000)
    assert np.array_equal(whole, pieces)  # pieces of whole rows draw the same numbers
    assert len(pieces) == 1000


def every_sign(differences: list[float]) -> float:
    """The share of all 2^n signs whose sum is as far from 0."""
    seen = abs(math.fsum(differences))
    signs = itertools.product((-1, 1), repeat=len(differences))
    sums = [abs(math.fsum(s * d for s, d in zip(one, differences, strict=True))) for one in signs]
    return sum(one >= seen - 1e-9 for one in sums) / len(sums)


@pytest.mark.parametrize(
    "differences",
    [
        [1, 1, 1, 1, 1],
        [1, 1, -1],
        [2, -1, 3, 0, 0, 1],
        [4, 4, -2, 4, 1, 1, -1],
        [6, 9, -3],
        [1],
        [],
    ],
)
def test_whole_numbers_are_counted_exactly(differences: list[int]):
    p, is_exact = exchange_p(np.array(differences, float), rng())
    assert is_exact and p == pytest.approx(every_sign([float(d) for d in differences]), abs=1e-12)


def test_one_item_a_prompt_is_mcnemars_exact_test():
    """8 items that only B answers, 2 that only A does, 30 that both or neither do."""
    p, is_exact = exchange_p(np.array([1.0] * 8 + [-1.0] * 2 + [0.0] * 30), rng())
    # 2 P(Bin(10, 1/2) >= 8) = 2 (45 + 10 + 1) / 1024
    assert is_exact and p == pytest.approx(112 / 1024, abs=1e-12)


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 6), (3, 14), (40, 61), (7, 7)])
def test_mcnemar_at_other_counts(only_a: int, only_b: int):
    n, k = only_a + only_b, max(only_a, only_b)
    tail = sum(math.comb(n, j) for j in range(k, n + 1)) / 2**n
    p, _ = exchange_p(np.array([-1.0] * only_a + [1.0] * only_b), rng())
    assert p == pytest.approx(min(1.0, 2 * tail), abs=1e-12)


def test_other_numbers_are_drawn():
    differences = [0.3, -0.1, 0.25, 0.6, 0.05, -0.2, 0.4, 0.15]
    p, is_exact = exchange_p(np.array(differences), rng(), 40_000)
    assert not is_exact and p == pytest.approx(every_sign(differences), abs=0.01)


def test_a_drawn_p_is_never_zero():
    p, _ = exchange_p(np.linspace(0.11, 0.91, 60), rng(), 999)
    assert p == 1 / 1000


def test_items_of_one_prompt_are_no_independent_ones():
    """Twelve items in three prompts say as little as three items."""
    apart, _ = exchange_p(np.ones(12), rng())
    together, _ = exchange_p(np.full(3, 4.0), rng())
    assert (apart, together) == (pytest.approx(2 / 2**12), pytest.approx(2 / 2**3))


def test_alike_models_are_seldom_told_apart():
    source = np.random.default_rng(3)
    ps = [exchange_p(source.integers(-2, 3, 15).astype(float), source)[0] for _ in range(600)]
    assert np.mean(np.array(ps) < 0.05) < 0.08
    assert np.mean(np.array(ps) < 0.5) < 0.57


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
