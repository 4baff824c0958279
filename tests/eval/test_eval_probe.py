"""The linear probe: it finds what codes tell, and no more than chance where they tell nothing."""

import numpy as np
import pytest
from tiny_tokenizers import of_patches

from unimodal.eval.probe import (
    FEWEST,
    classes_of,
    cross_validated,
    label_probe,
    scene_probe,
    vectors,
)
from unimodal.eval.round_trip import RoundTrip, round_trip
from unimodal.eval.tokenizer import held_out
from unimodal.tokenizer.autoencoder import ImageTokenizer
from unimodal.tokenizer.grid import Grid

CONFIG = of_patches(levels=(4, 4, 4), encoder_width=8, decoder_width=8, num_blocks=1, pixel_width=4)


def shaded(count: int) -> RoundTrip:
    """Images of one of three greys."""
    greys = [np.full((16, 24, 3), 40 + 80 * (number % 3), np.uint8) for number in range(count)]
    return round_trip(ImageTokenizer(CONFIG).eval(), greys, 8)


def test_the_fit_is_that_of_ridge_regression() -> None:
    """The best of a grid of ridges by brute force: each row left out, each system solved."""
    rng = np.random.default_rng(0)
    x, new = rng.normal(size=(30, 4)), rng.normal(size=(5, 4))
    y = x @ rng.normal(size=(4, 2)) + rng.normal(size=(30, 2))
    both, folds = np.concatenate([x, new]), np.array([0] * 30 + [1] * 5)
    found = cross_validated(both, np.concatenate([y, np.zeros((5, 2))]), folds)[30:]

    def fitted(x, y, ridge, at):
        mean_x, mean_y = x.mean(0), y.mean(0)
        centred = x - mean_x
        weights = np.linalg.solve(centred.T @ centred + ridge * np.eye(4), centred.T @ (y - mean_y))
        return (at - mean_x) @ weights + mean_y

    scale = np.trace(np.cov(x.T) * 29) / 4
    predictions = [fitted(x, y, 10.0**power * scale, new) for power in range(-4, 5)]
    assert min(np.abs(found - one).max() for one in predictions) < 1e-9
    assert np.abs(found - predictions[-1]).max() > 0.1  # not the largest ridge


def test_a_label_that_codes_tell_and_one_that_they_do_not() -> None:
    trip = shaded(60)
    apart = [str(number) for number in range(60)]
    found = label_probe(trip, [f"grey {number % 3}" for number in range(60)], apart)
    assert found["probe"].value == 1 and found["constant"].value == pytest.approx(1 / 3)
    assert found["probe"].n == 60 and found["probe"].low < 1
    rng = np.random.default_rng(0)
    chance = label_probe(trip, [f"side {rng.integers(2)}" for _ in range(60)], apart)["probe"]
    assert chance.low < 0.5 < chance.high


def test_images_that_belong_together_are_not_on_both_sides() -> None:
    """The label of a grey that is nowhere else cannot be told, though each has many images."""
    trip = shaded(60)
    labels = [f"grey {number % 3}" for number in range(60)]
    assert label_probe(trip, labels, labels)["probe"].value < 0.5


def test_labels_that_are_missing_or_rare_are_left_out() -> None:
    trip = shaded(3 * FEWEST)
    labels: list[str | None] = [f"grey {number % 3}" for number in range(3 * FEWEST)]
    labels[0] = None  # of grey 0, which is one too few then
    found = label_probe(trip, labels, [str(number) for number in range(len(labels))])
    assert found["probe"].n == 2 * FEWEST
    with pytest.raises(ValueError, match="none of the 3 images has the key"):
        classes_of([None] * 3)
    with pytest.raises(ValueError, match="1 labels have 10 images or more: a probe needs two"):
        label_probe(trip, ["one"] * len(labels), ["a"] * len(labels))


def test_vectors_are_means_over_a_grid_that_all_images_have() -> None:
    tokenizer = ImageTokenizer(CONFIG).eval()
    images = [np.zeros((128, 72, 3), np.uint8), np.zeros((64, 80, 3), np.uint8)]
    trip = round_trip(tokenizer, images)
    assert trip.grids == [Grid(16, 9), Grid(8, 10)]
    found = vectors(trip)
    assert found.shape == (2, 3 * 8 * 8)
    z = tokenizer.quantizer.decode(_codes(trip, 0), trip.grids[0])[0].numpy()
    first_two_rows = z[:2, :2].mean((0, 1))  # columns of 9 are averaged in overlapping pairs
    assert found[0].reshape(3, 8, 8)[:, 0, 0] == pytest.approx(first_two_rows)


def test_questions_about_scenes() -> None:
    scenes, originals = held_out(40, 3, 64)
    trip = round_trip(ImageTokenizer(CONFIG).eval(), originals)
    found = scene_probe(trip, scenes)
    for part in ("probe", "probe_constant"):
        assert set(found[part]) == {"count", "background", "shape", "colour"}
        assert all(0 < one.value < 1 and one.n == 40 for one in found[part].values())
    red = np.mean([any(one.colour == "red" for one in scene.objects) for scene in scenes])
    assert found["probe_constant"]["colour"].value > 1 - red - 0.2
    few = scene_probe(RoundTrip(trip.tokenizer, originals[:3]), scenes[:3])
    assert few["probe"]["count"].value is None and few["probe"]["count"].n == 3


def _codes(trip: RoundTrip, number: int):
    import torch

    return torch.from_numpy(trip.codes[number].astype(np.int64))[None]
