"""Images that were opened are found by their files, and the oldest make room."""

import numpy as np

from unimodal.serve.opened_images import OpenedImages
from unimodal.serve.opening import OpenedImage


def image(value: int, side: int = 8) -> OpenedImage:
    return OpenedImage(np.full((side, side, 3), value, np.uint8), (f"note {value}",), (side, side))


def test_the_latest_are_found_by_their_bytes() -> None:
    kept = OpenedImages(most_bytes=2 * 192)
    first, second, third = image(1), image(2), image(3)
    kept.keep(b"one", first)
    kept.keep(b"two", second)
    assert kept.find(b"one") is first and kept.find(b"two") is second
    assert kept.find(b"On") is None
    kept.find(b"one")
    kept.keep(b"three", third)  # the second was asked for longest ago
    assert kept.find(b"two") is None
    assert (kept.find(b"one"), kept.find(b"three")) == (first, third)


def test_what_is_kept_twice_takes_room_once() -> None:
    kept = OpenedImages(most_bytes=2 * 192)
    kept.keep(b"one", first := image(1))
    for _ in range(5):
        kept.keep(b"two", image(2))
    assert kept.find(b"one") is first


def test_an_image_larger_than_all_room_is_not_kept() -> None:
    kept = OpenedImages(most_bytes=192)
    kept.keep(b"one", first := image(1))
    kept.keep(b"large", image(2, side=9))
    assert kept.find(b"one") is first and kept.find(b"large") is None
