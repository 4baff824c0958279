"""KID, precision and recall, Inception Score and copies: by hand and by their properties."""

import numpy as np
import pytest

from unimodal.eval.fidelity.copies import CopyRule, copies
from unimodal.eval.fidelity.embedder import Embedder, Features
from unimodal.eval.fidelity.inception import inception_score
from unimodal.eval.fidelity.kid import _without_each, default_size, kid, mmd
from unimodal.eval.fidelity.manifold import precision_and_recall, within
from unimodal.eval.frechet import distance_of_sets


def normal(n: int, width: int = 4, seed: int = 0, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1, (n, width)).astype(np.float32)


def test_mmd_by_its_definition() -> None:
    """Eq. 4 of arXiv:1801.01401, written out with loops."""
    x, y = normal(5, 3), normal(7, 3, seed=1, shift=1)

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float((float(a.astype(float) @ b.astype(float)) / 3 + 1) ** 3)

    within_x = sum(k(x[i], x[j]) for i in range(5) for j in range(5) if i != j) / (5 * 4)
    within_y = sum(k(y[i], y[j]) for i in range(7) for j in range(7) if i != j) / (7 * 6)
    between = sum(k(a, b) for a in x for b in y) / (5 * 7)
    assert mmd(x, y) == pytest.approx(within_x + within_y - 2 * between, rel=1e-9)


def test_kid_of_one_distribution_is_zero_on_average() -> None:
    """Without bias: as often below zero as above, at any size; a shift is seen."""
    found = [mmd(normal(20, seed=2 * s), normal(20, seed=2 * s + 1)) for s in range(100)]
    error = np.std(found) / np.sqrt(len(found))
    assert abs(np.mean(found)) < 3 * error and 0.3 < np.mean(np.array(found) < 0) < 0.75
    value, spread = kid(normal(200), normal(300, seed=1, shift=0.5), size=50, subsets=20)
    assert value.low is not None and 0 < value.low < value.value and value.n == 200
    assert spread.value > 0 and spread.n == 20
    near = [kid(normal(60, seed=2 * s), normal(60, seed=2 * s + 1), 30, 10)[0] for s in range(40)]
    assert 34 <= sum(one.low < 0 < one.high for one in near)
    assert kid(normal(60), normal(60, seed=1), 30, 10)[0] == near[0]  # seeded


def test_leaving_groups_out_is_computing_anew() -> None:
    x, y = normal(9), normal(12, seed=1)
    rest = [mmd(x[np.arange(9) % 3 != g], y[np.arange(12) % 3 != g]) for g in range(3)]
    assert _without_each(x, y, 3) == pytest.approx(rest, rel=1e-9)


def test_subsets_are_not_larger_than_the_sets() -> None:
    with pytest.raises(ValueError, match="--kid-size 6.*at most the 5 of the smaller set"):
        kid(normal(5), normal(9), size=6)
    assert (default_size(500, 80), default_size(9000, 8000)) == (40, 1000)


def test_precision_and_recall_on_points_of_a_line() -> None:
    """k = 1: each ball reaches the nearest neighbour."""
    reference = np.array([[0.0], [1.0], [10.0], [11.0]])
    images = np.array([[0.5], [1.0], [5.0], [12.5]])
    # Balls of the reference: 0 +- 1, 1 +- 1, 10 +- 1, 11 +- 1: of images 0.5 and 1 are in them.
    assert within(images, reference, 1).tolist() == [True, True, False, False]
    # Balls of the images: 0.5 +- 0.5, 1 +- 0.5, 5 +- 4, 12.5 +- 7.5: all of the reference.
    assert within(reference, images, 1).tolist() == [True, True, True, True]
    precision, recall = precision_and_recall(reference, images, 1)
    assert (precision.value, recall.value, precision.n, recall.n) == (0.5, 1.0, 4, 4)


def test_equal_sets_are_wholly_in_each_others_manifold() -> None:
    x = normal(300, 5)
    assert [one.value for one in precision_and_recall(x, x)] == [1.0, 1.0]
    far = precision_and_recall(x, x + 100)
    assert [one.value for one in far] == [0.0, 0.0]
    assert within(np.zeros((2, 3)), np.zeros((5, 3)), 3).all()  # balls of radius 0
    with pytest.raises(ValueError, match="more than 3 images in each set"):
        precision_and_recall(x[:3], x)


def test_frechet_distance_of_normal_distributions_in_closed_form() -> None:
    """|m1 - m2|^2 + sum (s1 - s2)^2 of independent coordinates, sets of different sizes."""
    rng = np.random.default_rng(0)
    first = rng.normal([0, 1], [1, 2], (40_000, 2))
    second = rng.normal([1, 1], [3, 2], (50_000, 2))
    found = distance_of_sets(first, second)
    assert found.value == pytest.approx(1 + 4, rel=0.03) and found.n == 50_000
    assert found.low < 5 < found.high


def test_inception_score_of_sure_and_of_blind_classifiers() -> None:
    """exp of the entropy of what is shown: 4 classes shown alike, surely, give 4; noise gives 1."""
    sure = np.eye(4, dtype=np.float32)[np.arange(4000) % 4] * 100
    score, spread = inception_score(sure)
    assert score.value == pytest.approx(4, abs=0.05) and 0 <= spread.value < 0.05
    assert inception_score(np.zeros((50, 4), np.float32))[0].value == pytest.approx(1)
    # What torch_fidelity.metric_isc.isc_features_to_metric of torch-fidelity 0.4.0 gave.
    logits = np.random.default_rng(0).normal(0, 2, (57, 5)).astype(np.float32)
    score, spread = inception_score(logits)
    assert (score.value, spread.value) == pytest.approx(OF_TORCH_FIDELITY, rel=1e-6)
    with pytest.raises(ValueError, match="10 splits: there are only 9 images"):
        inception_score(logits[:9])


OF_TORCH_FIDELITY = (1.7364314965167023, 0.17479753395677558)


def features(x_nC: np.ndarray, prefix: str, pixels: list[str] | None = None) -> Features:
    names = tuple(f"{prefix}{at}" for at in range(len(x_nC)))
    return Features("set", names, x_nC.astype(np.float32), tuple(pixels or names), "0" * 64)


def test_a_copy_is_abnormally_near() -> None:
    """On a circle: training images 10 degrees apart."""

    def at(*degrees: float) -> np.ndarray:
        return np.array([[np.cos(np.radians(d)), np.sin(np.radians(d))] for d in degrees])

    training = features(5 * at(0, 10, 20, 30, 40), "t")
    drawn = features(at(21, 75, 0, 15.5), "i", ["a", "b", "c", "t4"])
    found = copies(Embedder("eye", "0" * 64, lambda _: None), drawn, training, CopyRule(0.5, 3))
    rows = found["predictions"]
    assert [one["nearest"] for one in rows] == ["t2", "t4", "t0", "t2"]
    chord = [2 * np.sin(np.radians(d) / 2) for d in (1, 9, 11)]
    assert rows[0]["distance"] == pytest.approx(chord[0], rel=1e-5)
    assert rows[0]["mean_distance"] == pytest.approx(np.mean(chord), rel=1e-5)
    assert rows[0]["cosine"] == pytest.approx(np.cos(np.radians(1)))
    # The last is between two of them; its pixels are those of one, so it is a copy anyway.
    assert [one["copy"] for one in rows] == [True, False, True, True]
    assert [one["identical"] for one in rows] == [False, False, False, True]
    (scores,) = found["scores"].values()
    assert (scores["copies"].value, scores["identical"].value) == (0.75, 0.25)
    with pytest.raises(ValueError, match="holds 5 images: give --neighbours"):
        copies(Embedder("eye", "0" * 64, lambda _: None), drawn, training, CopyRule(0.5, 6))
