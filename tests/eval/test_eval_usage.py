"""Usage of codes: by hand, and that its intervals hold what other images give."""

import math

import numpy as np
import pytest

from unimodal.eval.usage import (
    bin_entropy,
    bits_per_pixel,
    code_usage,
    group_scores,
    group_usage,
    usage_scores,
)


def test_intervals_of_usage_are_those_of_leaving_an_image_out() -> None:
    """Three images of 4 codes: the jackknife by hand."""
    codes = [np.array([0, 1]), np.array([0, 0]), np.array([0, 2])]
    found = usage_scores(codes, 4)
    without = [2 / 4, 3 / 4, 2 / 4]
    error = math.sqrt(2 / 3 * sum((one - sum(without) / 3) ** 2 for one in without))
    assert found["share"].value == 3 / 4 and found["share"].n == 3
    assert 3 / 4 - found["share"].low == pytest.approx(1.959964 * error, rel=1e-6)
    assert found["share"].high == 1.0, "a share's interval ends where shares do"
    bits = code_usage(codes, 4)["entropy_bits"]
    assert found["entropy_bits"].low < bits < found["entropy_bits"].high
    assert found["perplexity"].high == pytest.approx(2 ** found["entropy_bits"].high)
    alone = usage_scores(codes[:1], 4)["share"]
    assert (alone.low, alone.high, alone.n) == (None, None, 1)
    same = usage_scores([np.array([1])] * 5, 4)["share"]
    assert (same.value, same.low, same.high) == (0.25, 0.25, 0.25)


def test_intervals_of_usage_hold_what_other_images_give() -> None:
    """Of 200 sets of 60 images about 95 % of intervals hold the mean of the entropies."""
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.full(50, 0.5))
    sets = [[rng.choice(50, 16, p=p) for _ in range(60)] for _ in range(200)]
    found = [usage_scores(one, 50)["entropy_bits"] for one in sets]
    centre = np.mean([one.value for one in found])
    assert 0.88 < np.mean([one.low < centre < one.high for one in found]) <= 1


def test_levels_are_digits_the_lowest_first() -> None:
    """Levels (2, 4): the lowest digit is always 1, the other one is each of four alike."""
    codes = [np.array([1, 3]), np.array([5, 7])]
    found = bin_entropy(codes, (2, 4))
    assert found["level_1"].value == 0 and found["level_2"].value == pytest.approx(1)
    assert found["level_2"].n == 2 and len(found) == 2


def test_each_group_has_frequencies_of_its_own() -> None:
    """The first group uses two codes of four, the second one: the report is the second's."""
    codes = [np.array([[0, 3], [1, 3]]), np.array([[1, 3], [0, 3]])]
    found = group_scores(codes, 4, (2, 2))
    assert found["usage_group_1"]["share"].value == 0.5
    assert found["usage"] == found["usage_group_2"] and found["usage"]["share"].value == 0.25
    assert found["bin_entropy_group_1"]["level_1"].value == 1
    assert group_usage(codes, 4)["distinct"] == 1
    assert set(group_scores([one[:, :1] for one in codes], 4, ())) == {"usage"}


def test_bits_of_a_pixel_by_hand() -> None:
    """Two groups of 4 codes at 2 places of 8 x 4 pixels: 8 bits of 32 pixels; entropies 1 and 0."""
    codes = [np.array([[0, 3], [1, 3]]), np.array([[1, 3], [0, 3]])]
    found = bits_per_pixel(codes, [(8, 4), (8, 4)], 4)
    assert found["fixed"].value == 8 / 32 and found["entropy"].value == pytest.approx(2 / 32)
    assert found["entropy"].low == pytest.approx(2 / 32) and found["entropy"].n == 2
    other = bits_per_pixel([codes[0], codes[1] * 0], [(8, 4), (8, 4)], 4)["entropy"]
    first, second = (1, 0), (0, 0)
    whole = [code_usage([codes[0][:, g], codes[1][:, g] * 0], 4)["entropy_bits"] for g in (0, 1)]
    assert other.value == pytest.approx(sum(whole) * 2 / 32)
    spread = math.sqrt(1 / 2 * 2 * ((sum(first) - sum(second)) / 2 * 2 / 32) ** 2)
    assert other.high - other.value == pytest.approx(1.959964 * spread, rel=1e-6)
