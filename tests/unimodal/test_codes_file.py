"""Codes files: a round trip, their size, and what is none."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unimodal.data.codes_member import HEAD, from_bytes, to_bytes
from unimodal.document import Image
from unimodal.tokenizer.grid import Grid

HASH = "ab" * 32


def encoded(rows: int, columns: int, num_codes: int, seed: int = 0) -> Image:
    codes = np.random.default_rng(seed).integers(0, num_codes, (rows * columns, 1))
    return Image(codes=codes, grid=Grid(rows, columns), codec_hash=HASH)


@pytest.mark.parametrize(("num_codes", "width"), [(2, 2), (2**16, 2), (2**16 + 1, 4)])
def test_round_trip_in_the_smaller_integers(num_codes: int, width: int) -> None:
    image = encoded(3, 5, num_codes)
    content = to_bytes(image, num_codes)
    assert len(content) == 56 + 15 * width
    back = from_bytes(content, "user", 0.5)
    assert np.array_equal(back.codes, image.codes) and back.codes.dtype == np.int64
    assert (back.grid, back.codec_hash) == (Grid(3, 5), HASH)
    assert (back.role, back.weight) == ("user", 0.5)


def test_codes_outside_the_tokenizer_are_refused() -> None:
    with pytest.raises(ValueError, match="code 9 of a tokenizer of 9"):
        to_bytes(Image(codes=np.array([[9]]), grid=Grid(1, 1), codec_hash=HASH), 9)
    with pytest.raises(ValueError, match="must be encoded"):
        to_bytes(Image(np.zeros((8, 8, 3), np.uint8)), 9)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.binary(max_size=120), st.integers(0, 120))
def test_damage_is_a_value_error(noise: bytes, cut: int) -> None:
    whole = to_bytes(encoded(4, 4, 100), 100)
    for content in (noise, whole[:cut] if cut < len(whole) else whole + noise + b"x"):
        with pytest.raises(ValueError):
            from_bytes(content)


def test_a_head_that_asks_for_too_much_is_refused() -> None:
    head = HEAD.pack(b"unimodal codes 1", bytes(32), 2**31, 2**31)
    with pytest.raises(ValueError, match="damaged"):
        from_bytes(head)
