"""The reader of scenes: right on renders, robust to mild damage, and silent on what is no scene."""

import pytest

from unimodal.data.reading import measure


def test_reads_renders() -> None:
    rendered = next(measure(500, seed=101))
    assert rendered.num_right == 500, rendered


@pytest.mark.slow
@pytest.mark.parametrize("canvas, num_samples", [(64, 10_000), (96, 2_000), (128, 2_000)])
def test_reads_nearly_all_renders(canvas: int, num_samples: int) -> None:
    rendered = next(measure(num_samples, seed=102, canvas=canvas))
    assert rendered.num_right >= 0.999 * num_samples, rendered
