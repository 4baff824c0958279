"""Every kind of image opens as RGB with its conversions named; bad ones are refused in words."""

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unimodal.tokenizer.pixels import (
    FORMATS,
    MAX_SIDE,
    MIN_SIDE,
    ImageError,
    Opened,
    fit,
    open_image,
    to_images,
    to_tensor,
)

PIXELS_HWC = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
IMAGE = Image.fromarray(PIXELS_HWC)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG written by hand, for headers that no library writes."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(name, data) for name, data in chunks)


def pixels(opened: Opened) -> np.ndarray:
    assert opened.image.mode == "RGB"
    return np.asarray(opened.image)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_lossless_files_keep_every_pixel_without_a_note(kind):
    opened = open_image(encoded(IMAGE, kind))
    assert opened.notes == ()
    np.testing.assert_array_equal(pixels(opened), PIXELS_HWC)


def test_path_stream_bytes_and_image_give_the_same(tmp_path):
    data = encoded(IMAGE)
    path = tmp_path / "image.png"
    path.write_bytes(data)
    for source in (path, str(path), io.BytesIO(data), data, IMAGE):
        np.testing.assert_array_equal(pixels(open_image(source)), PIXELS_HWC)


def test_exif_orientation_turns_the_image():
    exif = Image.Exif()
    exif[0x0112] = 6
    opened = open_image(encoded(IMAGE, exif=exif))
    np.testing.assert_array_equal(pixels(opened), np.rot90(PIXELS_HWC, -1))
    assert opened.notes == ("turned upright as its EXIF data asks",)


def test_damaged_exif_is_said_and_the_image_kept():
    opened = open_image(encoded(IMAGE, "PNG", exif=b"Exif\0\0nonsense"))
    assert opened.notes == ("EXIF data is damaged: orientation ignored",)
    np.testing.assert_array_equal(pixels(opened), PIXELS_HWC)


@pytest.mark.parametrize(
    "mode, kind, note",
    [
        ("CMYK", "JPEG", "CMYK converted to RGB"),
        ("CMYK", "TIFF", "CMYK converted to RGB"),
        ("L", "PNG", "grey converted to RGB"),
        ("1", "PNG", "black and white converted to RGB"),
        ("P", "PNG", "palette converted to RGB"),
        ("LA", "PNG", "transparency laid on white"),
        ("RGBA", "WEBP", "transparency laid on white"),
    ],
)
def test_other_modes_are_converted_and_said(mode, kind, note):
    image = IMAGE.convert(mode)
    if mode in ("LA", "RGBA"):
        image.putalpha(100)
    opened = open_image(encoded(image, kind))
    assert opened.notes == (note,)
    assert pixels(opened).shape == (20, 30, 3)


def test_transparency_is_composited_on_white():
    image = Image.new("RGBA", (10, 10), (200, 0, 0, 51))
    expected = np.round(0.2 * np.array([200, 0, 0]) + 0.8 * 255)
    assert np.abs(pixels(open_image(encoded(image))) - expected).max() <= 1


def test_a_transparent_palette_entry_becomes_white():
    image = Image.new("P", (10, 10), 3)
    image.putpalette([7] * 768)
    image.putpixel((0, 0), 5)
    found = pixels(open_image(encoded(image, transparency=3)))
    assert (found[0, 0] == 7).all()
    assert (found[1:] == 255).all()


def test_sixteen_bit_grey_is_scaled_not_cut():
    ramp = np.linspace(0, 65535, 256).reshape(16, 16).round().astype(np.uint16)
    for kind in ("PNG", "TIFF"):
        opened = open_image(encoded(Image.fromarray(ramp), kind))
        np.testing.assert_array_equal(pixels(opened)[..., 0].reshape(-1), np.arange(256))
        assert opened.notes == ("16 bits a channel reduced to 8", "grey converted to RGB")


def test_sixteen_bit_grey_keeps_its_transparent_value():
    data = png(8, 8, 16, 0, (b"\0" + struct.pack(">8H", 500, *[40000] * 7)) * 8)
    at = data.index(b"IDAT") - 4
    data = data[:at] + png_chunk(b"tRNS", struct.pack(">H", 500)) + data[at:]
    found = pixels(open_image(data))
    assert (found[:, 0] == 255).all()
    assert (found[:, 1:] == round(40000 / 257)).all()


def test_sixteen_bit_colour_is_said():
    row = b"\0" + struct.pack(">24H", *range(0, 48000, 2000))
    opened = open_image(png(8, 8, 16, 2, row * 8))
    assert opened.notes == ("16 bits a channel reduced to 8",)
    assert np.abs(pixels(opened)[0].reshape(-1) - np.arange(0, 48000, 2000) / 257).max() <= 1


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_frame_is_used(kind):
    first, second = Image.new("RGB", (16, 16), "red"), Image.new("RGB", (16, 16), "blue")
    opened = open_image(encoded(first, kind, save_all=True, append_images=[second]))
    assert opened.notes[0] == "only the first of its 2 frames is used"
    assert np.abs(pixels(opened).astype(int) - [255, 0, 0]).max() <= 3


def test_thirty_two_bit_pixels_are_refused():
    for mode in ("I", "F"):
        with pytest.raises(ImageError, match="32-bit"):
            open_image(encoded(IMAGE.convert(mode), "TIFF"))


def test_missing_empty_folder_and_other_non_images(tmp_path):
    text, empty = tmp_path / "notes.png", tmp_path / "empty.png"
    text.write_text("I am a text\n" * 20)
    empty.touch()
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    cases = {
        tmp_path / "none.png": "there is no file",
        text: "notes.png is not an image of a known format",
        empty: "is empty",
        tmp_path: "is a folder",
        fifo: "not a regular file",
        Path("x" * 5000): "cannot be read",
        "null\0byte.png": "null",
    }
    for path, words in cases.items():
        with pytest.raises(ImageError, match=words):
            open_image(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path):
    path = tmp_path / "secret.png"
    path.write_bytes(encoded(IMAGE))
    path.chmod(0)
    with pytest.raises(ImageError, match="cannot be read"):
        open_image(path)


def test_formats_outside_the_list_are_refused():
    for kind in ("IM", "BLP", "PDF"):
        with pytest.raises(ImageError, match=", ".join(FORMATS)):
            open_image(encoded(IMAGE.convert("P"), kind))


def test_what_calls_another_program_is_refused_by_name():
    with pytest.raises(ImageError, match="is EPS, which is not read: .*save it as PNG or JPEG"):
        open_image(encoded(IMAGE, "EPS"))


def test_sixteen_bit_portable_greys_are_scaled_not_refused():
    for largest in (65535, 1023):
        ramp = np.linspace(0, largest, 256).round().astype(">u2").tobytes()
        opened = open_image(b"P5 16 16 %d\n" % largest + ramp)
        found = pixels(opened)[..., 0].reshape(-1).astype(int)
        assert np.abs(found - np.arange(256)).max() <= 1


def test_a_preview_in_a_tiff_is_not_taken_for_its_image():
    with pytest.raises(ImageError, match="first image is a preview"):
        open_image(encoded(IMAGE, "TIFF", tiffinfo={254: 1}))


def test_size_limits_are_stated_and_read_from_the_header():
    too_small = encoded(Image.new("RGB", (1, 1)))
    with pytest.raises(ImageError, match=f"1 x 1 pixels; each side needs at least {MIN_SIDE}"):
        open_image(too_small)
    # No pixel data at all: only a reader that stops at the header can say what is wrong.
    for width, height in ((20_000, 20_000), (10_000, 8_000), (MAX_SIDE + 1, 8)):
        with pytest.raises(ImageError, match="16,384 pixels a side and 64 million pixels"):
            open_image(png(width, height, 8, 2, b""))
    with pytest.raises(ImageError, match="too small"):
        open_image(Image.new("RGB", (7, 100)))


USUAL = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
WRITTEN = (
    *USUAL,
    "AVIF",
    "JPEG2000",
    "PPM",
    "QOI",
    "ICO",
    "ICNS",
    "DIB",
    "PCX",
    "SGI",
    "DDS",
    "TGA",
)


@pytest.mark.filterwarnings("ignore")  # Pillow warns about damaged EXIF on its way
@pytest.mark.parametrize("kind", USUAL)
def test_cut_files_are_named_damaged(kind, tmp_path):
    data = encoded(IMAGE, kind)
    path = tmp_path / "cut"
    for size in (4, 30, len(data) // 2):
        path.write_bytes(data[:size])
        with pytest.raises(ImageError, match=r"cut is damaged or truncated .*again"):
            open_image(path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", WRITTEN)
def test_any_damage_is_an_image_error_or_an_image(kind):
    rng, data = np.random.default_rng(1), np.frombuffer(encoded(IMAGE, kind), np.uint8)
    for _ in range(100 if kind in USUAL else 30):
        damaged = data.copy()
        places = rng.integers(0, min(200, len(data)), 4)
        damaged[places] = rng.integers(0, 256, 4, dtype=np.uint8)
        try:
            pixels(open_image(damaged.tobytes()))
        except ImageError as error:
            assert len(str(error)) > 20


def test_sizes_that_are_refused_are_told_of_once(tmp_path):
    """By our own words: Pillow would warn of them, and quote its own source, among a command's."""
    (tmp_path / "huge.png").write_bytes(png(16_000, 8_000, 1, 0, b""))
    code = """if True:
        from unimodal.tokenizer.pixels import ImageError, open_image
        try:
            open_image("huge.png")
        except ImageError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ, capture_output=True, text=True
    )
    assert "huge.png is too large, it has 16000 x 8000 pixels" in done.stdout
    assert done.stderr == ""


def test_tensors_are_exact_both_ways():
    ramp_HWC = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    tensor = to_tensor([ramp_HWC, ramp_HWC[::-1]])
    assert tensor.shape == (2, 3, 16, 16)
    assert tensor.dtype == torch.float32
    assert tensor.min() == -1
    assert tensor.max() == 1
    np.testing.assert_array_equal(np.asarray(to_images(tensor)[0]), ramp_HWC)
    np.testing.assert_array_equal(np.asarray(to_images(tensor)[1]), ramp_HWC[::-1])


def test_to_tensor_refuses_what_is_no_rgb_batch():
    with pytest.raises(ValueError, match="no images"):
        to_tensor([])
    with pytest.raises(ValueError, match="float32"):
        to_tensor([PIXELS_HWC.astype(np.float32)])
    with pytest.raises(ValueError, match="fit them first"):
        to_tensor([PIXELS_HWC, PIXELS_HWC[:10]])


def test_to_images_saturates_and_refuses_nan():
    images = torch.full((1, 3, 8, 8), 1.2)
    assert (np.asarray(to_images(images)[0]) == 255).all()
    with pytest.raises(ValueError, match="not finite"):
        to_images(torch.full((1, 3, 8, 8), torch.nan))


def test_fit_crops_the_centre_and_keeps_an_image_that_fits():
    np.testing.assert_array_equal(np.asarray(fit(IMAGE, (30, 20))), PIXELS_HWC)
    thirds_HWC = np.zeros((30, 90, 3), dtype=np.uint8)
    thirds_HWC[:, 30:60] = 255
    fitted = np.asarray(fit(Image.fromarray(thirds_HWC), (16, 16)))
    assert fitted.shape == (16, 16, 3)
    assert fitted[:, 2:-2].min() == 255


def test_fit_averages_what_it_shrinks():
    checks = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    fitted = np.asarray(fit(Image.fromarray(checks).convert("RGB"), (8, 8))).astype(float)
    assert np.abs(fitted - 127.5).max() < 3


@pytest.mark.parametrize("turned", [1, 6])
def test_a_jpeg_is_decoded_no_larger_than_it_must_be(turned):
    """Smaller by powers of two, at least twice as large as asked for, nearly the same image."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = turned
    stream = io.BytesIO()
    coarse.resize((1600, 1200), Image.Resampling.BICUBIC).save(
        stream, "JPEG", quality=95, exif=exif
    )
    whole = open_image(stream.getvalue()).image
    size = (64, 64)
    expected = np.asarray(fit(whole, size)).astype(float)
    small = open_image(stream.getvalue(), cover=size).image
    assert whole.width / small.width == whole.height / small.height == 8
    error = ((np.asarray(fit(small, size)) - expected) ** 2).mean()
    assert 10 * np.log10(255**2 / error) > 40
    assert open_image(stream.getvalue(), cover=(500, 500)).image.size == whole.size
    stream = io.BytesIO()
    coarse.save(stream, "PNG")
    assert open_image(stream.getvalue(), cover=(8, 8)).image.size == coarse.size
