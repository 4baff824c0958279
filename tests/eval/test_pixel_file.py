"""Images on a disk are those that were given, and memory holds one at a time."""

import tracemalloc

import numpy as np
import pytest

from unimodal.eval.pixel_file import PixelFile


def test_images_of_any_sizes_come_back_writable() -> None:
    rng, file = np.random.default_rng(0), PixelFile()
    images = [rng.integers(0, 256, (h, w, 3), np.uint8) for h, w in [(4, 8), (1, 1), (7, 3)]]
    file.append(images[0])
    file.extend(images[1:])
    assert len(file) == 3
    for given, kept in zip(images, file, strict=True):
        assert (given == kept).all() and kept.dtype == np.uint8 and kept.flags.writeable
    assert [one.shape for one in file[-2:]] == [(1, 1, 3), (7, 3, 3)]
    assert (file[-1] == images[-1]).all() and (file[1:2][0] == images[1]).all()
    with pytest.raises(IndexError):
        file[3]


def test_other_arrays_are_refused() -> None:
    file = PixelFile()
    for wrong in (np.zeros((2, 2, 3)), np.zeros((2, 2), np.uint8), np.zeros((2, 2, 4), np.uint8)):
        with pytest.raises(ValueError, match="uint8 .H, W, 3. are kept"):
            file.append(wrong)
    assert not len(file)


def test_memory_does_not_grow_with_the_images() -> None:
    file, image = PixelFile(), np.zeros((256, 256, 3), np.uint8)
    tracemalloc.start()
    file.extend(image for _ in range(64))
    total = sum(int(one.sum()) for one in file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 0 and peak < 4 * image.nbytes
