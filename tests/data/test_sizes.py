"""Sizes of images: buckets of one target_pixels, crops and mirrors."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PILImage

from unimodal.data.sizes import ImageRule, bucket, buckets, fitted, may_mirror, tells_sides
from unimodal.document import Document, Image, Text


def gradient(width: int, height: int) -> PILImage.Image:
    """Red grows to the right, green downwards."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return PILImage.fromarray(np.stack([x, y, 0 * x], -1).astype(np.uint8))


def test_a_square_rule_has_one_bucket() -> None:
    assert buckets(ImageRule()) == ((64, 64),)
    assert buckets(ImageRule(target_pixels=100 * 100, multiple=16)) == ((96, 96),)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.integers(1, 32), st.integers(1, 40), st.floats(1, 6))
def test_buckets_have_the_area_and_the_ratios(
    multiple: int, side: int, max_aspect_ratio: float
) -> None:
    rule = ImageRule(
        target_pixels=(side * multiple) ** 2, multiple=multiple, max_aspect_ratio=max_aspect_ratio
    )
    sizes = buckets(rule)
    assert len(set(sizes)) == len(sizes)
    for width, height in sizes:
        assert width % multiple == height % multiple == 0
        assert max(width, height) <= max_aspect_ratio * min(width, height) + 1e-9
        assert abs(width - rule.target_pixels / height) <= multiple / 2 + 1e-9
    if max_aspect_ratio >= 2 and side >= 8:
        assert math.prod(sizes[0]) / rule.target_pixels == pytest.approx(1, abs=0.2)
        assert sizes[0][0] > sizes[-1][0]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.integers(8, 2000), st.integers(8, 2000))
def test_the_bucket_is_the_nearest_in_ratio(width: int, height: int) -> None:
    rule = ImageRule(target_pixels=256 * 256, multiple=16, max_aspect_ratio=3)
    ratio = width / height
    mine = bucket((width, height), rule)
    distances = [abs(math.log(w / h / ratio)) for w, h in buckets(rule)]
    assert abs(math.log(mine[0] / mine[1] / ratio)) == min(distances)


def test_an_image_is_fitted_around_its_centre() -> None:
    rule = ImageRule(target_pixels=64 * 64, multiple=8, max_aspect_ratio=4)
    pixels = fitted(gradient(400, 100), bucket((400, 100), rule))
    assert pixels.shape == (32, 128, 3) and pixels.dtype == np.uint8
    square = fitted(gradient(400, 100), (64, 64))
    assert square.shape == (64, 64, 3)
    assert square[:, :, 0].mean() == pytest.approx(127, abs=2)
    assert square[:, :, 0].max() - square[:, :, 0].min() < 70  # a quarter of the width is left


def test_a_crop_lies_where_it_is_asked_for() -> None:
    image = gradient(400, 100)
    means = [fitted(image, (64, 64), (x, 0.5))[:, :, 0].mean() for x in (0.0, 0.25, 0.5, 1.0)]
    assert means == pytest.approx([255 * (x * 300 + 50) / 400 for x in (0, 0.25, 0.5, 1)], abs=2)


def test_an_image_beside_words_that_tell_sides_is_not_mirrored() -> None:
    image = Image(np.zeros((8, 8, 3), np.uint8))
    assert may_mirror(Document((image, Text("a dog"))))
    assert not may_mirror(Document((Text("a dog"), image, Text("on the right"))))


def test_words_that_tell_sides() -> None:
    assert tells_sides("the dog on the LEFT") and tells_sides("turn clockwise")
    assert not tells_sides("bright leftovers, copyright") and not tells_sides("above")


def test_bad_rules_and_images() -> None:
    problems = ImageRule(target_pixels=10, max_aspect_ratio=0.5, min_side=0, flip=2).problems()
    assert [words.split()[0] for words in problems] == [
        "target_pixels",
        "max_aspect_ratio",
        "min_side",
        "flip",
    ]
    with pytest.raises(ValueError, match="20 x 12 pixels: the shorter side needs 16"):
        bucket((20, 12), ImageRule(min_side=16))
