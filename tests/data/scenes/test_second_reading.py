"""The second reader on renders and on damaged ones."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from unimodal.data.scenes.damage import blurred, compressed
from unimodal.data.scenes.reading import same_scene
from unimodal.data.scenes.second_reading import read_again
from unimodal.data.scenes.world import BACKGROUNDS, Background, Scene, render, scene

NUM_SCENES = 120


@pytest.mark.parametrize("canvas", [64, 128])
def test_it_reads_fresh_renders(canvas: int) -> None:
    """At least 97 % whole scenes; the other reader reads 100 % of renders."""
    scenes = [scene(21, index) for index in range(NUM_SCENES if canvas == 64 else 20)]
    right = [same_scene(read_again(render(one, canvas)), one, 3.0) for one in scenes]
    assert np.mean(right) >= 0.97
    assert {one.background.kind for one in scenes} == set(BACKGROUNDS)


@pytest.mark.parametrize(
    "damage,least",
    [(partial(blurred, sigma_px=0.8), 0.97), (partial(compressed, quality=60), 0.9)],
    ids=["blurred", "compressed"],
)
def test_it_reads_damaged_renders(damage: Callable, least: float) -> None:
    scenes = [scene(22, index) for index in range(60)]
    read = [read_again(damage(render(one))) for one in scenes]
    assert np.mean([same_scene(a, b, 3.0) for a, b in zip(read, scenes, strict=True)]) >= least


def test_what_is_no_scene() -> None:
    empty = Scene(Background("plain", "sand"), ())
    assert read_again(render(empty)) == empty
    assert read_again(np.zeros((64, 80, 3), np.uint8)) is None
    assert read_again(np.zeros((32, 32, 3), np.uint8)) is None
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    assert read_again(noise) is not None, "it names whatever it finds"
