"""The Frechet distance: by its definition, its interval, and as EfficientNet-Lite0 sees images."""

import numpy as np
import pytest

from unimodal.eval.frechet import distance_of_sets, frechet, frechet_distance
from unimodal.tokenizer import backbone


def features(n: int, width: int, seed: int = 0, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, width)) @ rng.normal(size=(width, width)) + shift


def by_definition(first: np.ndarray, second: np.ndarray) -> float:
    """tr (C1 C2)^(1/2) is the sum of the roots of the eigenvalues of C1 C2."""
    c1, c2 = np.cov(first.T), np.cov(second.T)
    roots = np.sqrt(np.linalg.eigvals(c1 @ c2).real).sum()
    apart = first.mean(0) - second.mean(0)
    return float(apart @ apart + np.trace(c1) + np.trace(c2) - 2 * roots)


def test_the_distance_by_its_definition() -> None:
    first, second = features(50, 6), features(70, 6, seed=1, shift=0.5)
    assert frechet_distance(first, second) == pytest.approx(by_definition(first, second), rel=1e-9)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-9)
    # Of fewer samples than numbers too, where the covariances have no inverse.
    assert frechet_distance(first[:4], first[:4] + 3) == pytest.approx(6 * 9)


def test_of_one_number_it_is_the_distance_of_two_normal_distributions() -> None:
    """(m1 - m2)^2 + (s1 - s2)^2."""
    first, second = features(30, 1), features(30, 1, seed=1, shift=2)
    expected = (first.mean() - second.mean()) ** 2 + (first.std(ddof=1) - second.std(ddof=1)) ** 2
    assert frechet_distance(first, second) == pytest.approx(expected)


def test_its_interval_narrows_with_the_number_of_pairs() -> None:
    first, second = features(2000, 3), features(2000, 3, shift=0.4)
    few, many = distance_of_sets(first[:100], second[:100]), distance_of_sets(first, second)
    assert (few.n, many.n) == (100, 2000)
    assert few.low <= few.value <= few.high and many.low <= many.value <= many.high
    noise = features(2000, 3, seed=5)
    few, many = distance_of_sets(first[:100], noise[:100]), distance_of_sets(first, noise)
    assert 0 < many.high - many.low < (few.high - few.low) / 2
    assert distance_of_sets(first[:3], second[:3]).value is None


def test_of_images() -> None:
    """Blurred images are nearer to their originals than noise is, equal ones are at 0."""
    try:
        backbone.load(backbone.EFFICIENTNET)
    except ValueError as error:
        pytest.skip(str(error))
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (4, 4, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
              for _ in range(8)]  # fmt: skip
    darker = [(image * 0.8).astype(np.uint8) for image in images]
    noise = [rng.integers(0, 256, (32, 40, 3), dtype=np.uint8) for _ in images]
    same, near, far = (frechet(images, one) for one in (images, darker, noise))
    assert same.value == pytest.approx(0, abs=1e-6) and same.n == 8
    assert 0 < near.value < far.value / 2
