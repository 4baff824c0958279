"""Intervals against their published values, scipy-free oracles and simulated coverage."""

import math

import numpy as np
import pytest

from unimodal.eval.intervals import (
    Estimate,
    gain,
    mean,
    mean_of,
    proportion,
    ratio,
    share,
    unmeasured,
)


def test_wilson_matches_published_values():
    # Newcombe 1998, Stat. Med. 17, 857-872, table I, method 3 (score without continuity correction)
    published = {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0.0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }
    for (right, n), (low, high) in published.items():
        found = proportion(right, n)
        assert found.value == right / n and found.n == n
        assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


def test_wilson_is_symmetric_and_never_a_point():
    none, every = proportion(0, 50), proportion(50, 50)
    assert none.low == 0.0 and every.high == 1.0
    assert none.high == pytest.approx(1 - every.low)
    assert none.high > 0.05


def test_difference_matches_newcombe():
    # Newcombe 1998, Stat. Med. 17, 873-890, table II, method 10: 56/70 - 48/80
    found = gain(proportion(56, 70), proportion(48, 80))
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)
    assert found.n == 150


def test_nothing_measured_has_no_value():
    assert share([]) == unmeasured() == Estimate(None, None, None, 0)
    assert mean([]) == unmeasured()
    assert mean_of([]) == unmeasured()
    assert mean_of([proportion(1, 2), unmeasured()]).value is None
    assert mean([3.0]) == Estimate(3.0, None, None, 1)


def test_mean_is_the_textbook_interval():
    values = [1.0, 2.0, 3.0, 4.0]
    half = 1.959963984540054 * np.std(values, ddof=1) / 2
    found = mean(values)
    assert (found.value, found.low, found.high) == pytest.approx((2.5, 2.5 - half, 2.5 + half))


def test_mean_of_is_unweighted():
    found = mean_of([proportion(90, 100), proportion(1, 10)])
    assert found.value == pytest.approx(0.5)
    assert found.n == 110
    assert found.low < 0.5 < found.high


def test_mean_of_covers_the_truth():
    rng = np.random.default_rng(3)
    truth = [0.97, 0.6, 0.4, 0.8, 0.1, 0.2]
    covered = 0
    for _ in range(1000):
        parts = [proportion(int(rng.binomial(40, p)), 40) for p in truth]
        found = mean_of(parts)
        covered += found.low <= np.mean(truth) <= found.high
    assert 930 <= covered <= 975  # 95 % of 1,000, with room for four standard errors


def test_ratio_covers_the_truth_and_contains_its_value():
    rng = np.random.default_rng(4)
    covered = 0
    for _ in range(1000):
        score, ceiling = (
            proportion(int(rng.binomial(n, p)), n) for n, p in ((100, 0.5), (200, 0.9))
        )
        found = ratio(score, ceiling)
        assert found.low <= found.value <= found.high
        covered += found.low <= 0.5 / 0.9 <= found.high
    assert 925 <= covered <= 980


def test_ratio_by_a_perfect_ceiling_keeps_the_score():
    score = proportion(30, 40)
    found = ratio(score, Estimate(1.0, 1.0, 1.0, 1000))
    assert (found.value, found.low, found.high) == pytest.approx(
        (score.value, score.low, score.high)
    )


def test_ratio_without_a_ceiling():
    assert ratio(proportion(1, 2), proportion(0, 10)).value is None
    assert ratio(proportion(1, 2), unmeasured()).value is None
    wide = ratio(
        proportion(1, 2), proportion(1, 100)
    )  # the ceiling's interval exceeds twice its value
    assert math.isclose(wide.value, 50) and wide.low is None
