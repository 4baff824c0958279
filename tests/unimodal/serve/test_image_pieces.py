"""Image files of absurdly many pieces are refused before they are opened; usual ones are not."""

import io
import struct
import time
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from api_server import CHAT, Served, data_url, png, serving
from PIL import Image

from unimodal.model import Model
from unimodal.serve.image_pieces import MOST_PIECES, MOST_SCANS, is_sound


@pytest.fixture(scope="module")
def roomy(tiny_model: Model) -> Iterator[Served]:
    with serving(tiny_model) as served:
        yield served


def saved(kind: str, side: int = 64, **more: object) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, kind, **more)
    return stream.getvalue()


def scans(num: int) -> bytes:
    """A progressive JPEG whose last scan stands there `num` times more."""
    whole = saved("JPEG", progressive=True)
    last = whole[whole.rindex(b"\xff\xda") : -2]
    return whole[:-2] + last * num + whole[-2:]


def commented_jpeg(num: int) -> bytes:
    whole = saved("JPEG")
    return whole[:2] + b"\xff\xfe\x00\x02" * num + whole[2:]


def commented_png(num: int) -> bytes:
    whole, name = png(), b"tEXta\x00b"
    chunk = struct.pack(">I", len(name) - 4) + name + struct.pack(">I", zlib.crc32(name))
    head = 8 + 12 + 13
    return whole[:head] + chunk * num + whole[head:]


def commented_gif(num: int, blocks: bool) -> bytes:
    """A GIF with so many comments, or a comment of so many blocks, before or behind its image."""
    whole = saved("GIF")
    comments = b"\x21\xfe" + b"\x01a" * num + b"\x00" if blocks else b"\x21\xfe\x01a\x00" * num
    return whole[:-1] + comments + whole[-1:]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
@pytest.mark.parametrize("side", [1, 64, 1500])
def test_usual_files_are_sound(kind: str, side: int) -> None:
    assert is_sound(saved(kind, side), kind)


def test_usual_progressive_files_are_sound() -> None:
    assert is_sound(saved("JPEG", 500, progressive=True, quality=95), "JPEG")
    assert is_sound(saved("GIF", interlace=1, transparency=3, comment=b"a" * 2000), "GIF")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF"])
@pytest.mark.parametrize("byte", [None, 0])
def test_what_stands_behind_an_image_is_no_piece_of_it(kind: str, byte: int | None) -> None:
    """Telephones put a film there."""
    noise = np.random.default_rng(2).integers(0, 256, 2**23, np.uint8).tobytes()
    assert is_sound(saved(kind) + (noise if byte is None else bytes(2**23)), kind)


BOMBS = {
    "scans": (scans(100), "JPEG"),
    "segments": (commented_jpeg(MOST_PIECES + 1), "JPEG"),
    "an end before them": (b"\xff\xd8\xff\xd9" + commented_jpeg(MOST_PIECES + 1)[2:], "JPEG"),
    "chunks": (commented_png(MOST_PIECES + 1), "PNG"),
    "comments": (commented_gif(MOST_PIECES + 1, False), "GIF"),
    "blocks": (commented_gif(MOST_PIECES + 1, True), "GIF"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_of_pieces_are_refused_at_once(roomy: Served, name: str) -> None:
    content, kind = BOMBS[name]
    assert not is_sound(content, kind)
    part = {"type": "image_url", "image_url": {"url": data_url(content)}}
    began = time.monotonic()
    status, answer = roomy.ask(CHAT, {"messages": [{"role": "user", "content": [part]}]})
    assert status == 400 and "pieces" in answer["error"]["message"]
    assert time.monotonic() - began < 2


def test_a_few_pieces_more_are_opened() -> None:
    assert is_sound(scans(MOST_SCANS - 12), "JPEG")
    for content, kind in (
        (commented_jpeg(1000), "JPEG"), (commented_png(1000), "PNG"),
        (commented_gif(1000, True), "GIF"), (commented_gif(1000, False), "GIF"),
    ):  # fmt: skip
        assert is_sound(content, kind)
        Image.open(io.BytesIO(content)).load()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF"])
def test_damaged_files_end_somewhere(kind: str) -> None:
    """Cut anywhere or with any bytes within, a file has an end; what is wrong is told later."""
    whole, rng = saved(kind, 20), np.random.default_rng(1)
    for stop in range(len(whole)):
        assert is_sound(whole[:stop], kind)
    for _ in range(200):
        noise = bytearray(whole)
        for at in rng.integers(0, len(noise), 20):
            noise[at] = rng.integers(256)
        assert is_sound(bytes(noise), kind)
