"""Files of images are told by their bytes: every kind that is read, and texts never."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from unimodal.tokenizer.colour import CICP_PRIMARIES, D65, matrix_profile
from unimodal.tokenizer.pixels import ImageError, image_size, open_image
from unimodal.tokenizer.signatures import READ, SUFFIXES, image_kind

IMAGE = Image.fromarray(
    np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
)  # of sides that icons have too
EXACT = ("PNG", "BMP", "DIB", "TIFF", "JPEG2000", "PPM", "QOI", "PCX", "SGI", "DDS", "TGA")
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize("kind", [*EXACT, "JPEG", "WEBP", "GIF", "AVIF", "ICO", "ICNS"])
def test_what_pillow_writes_is_told_and_read(kind: str) -> None:
    content = encoded(IMAGE, kind)
    found = image_kind(content)
    assert found is not None and (found.name, found.refusal) == (kind, "") and kind in READ
    opened = open_image(content).image
    assert image_size(content) == opened.size
    if kind in EXACT:
        assert np.array_equal(np.asarray(opened), np.asarray(IMAGE))


def test_every_mode_of_portable_images_is_told() -> None:
    for mode, words in (("1", b"P4"), ("L", b"P5"), ("RGB", b"P6")):
        content = encoded(IMAGE.convert(mode), "PPM")
        assert content.startswith(words) and image_kind(content).name == "PPM"
    plain = b"P2\n# by hand\n8 8\n255\n" + b"7 " * 64
    assert image_kind(plain).name == "PPM"
    assert np.asarray(open_image(plain).image)[0, 0].tolist() == [7, 7, 7]


@pytest.mark.parametrize(
    "text",
    [
        b"BMW is a car, and more words follow it here",
        b"P1 is the first of 20 30",
        b"MM, nice",
        b"II*",
        b"RIFF raff of words",
        b'{"caption": "GIF"}',
        b"icon of a cat",
        b"",
        b"\n\n\n",
        b"<p>a page</p><svg></svg>",
        b"<?xml version='1.0'?><annotation><size/></annotation>",
        "\ufeffa text".encode("utf-16"),
    ],
)
def test_texts_are_no_images(text: bytes) -> None:
    assert image_kind(text) is None


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"\xff\x0a" + bytes(50), "JPEG XL"),
        (b"<?xml version='1.0'?>\n<!-- by hand -->\n<svg width='9'></svg>", "SVG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "EPS"),
        (b"II*\0\x10\0\0\0CR\x02\0" + bytes(50), "camera raw"),
        (b"\0\0\0\x18ftypcrx " + bytes(50), "camera raw"),
    ],
)
def test_what_is_not_read_is_named_with_a_way_out(content: bytes, name: str) -> None:
    with pytest.raises(ImageError, match=f"is {name}, which is not read: .*save it as PNG or JPEG"):
        open_image(content)


def test_of_boxes_the_brand_decides() -> None:
    assert image_kind(HEIC).name == "HEIF"
    assert image_kind(encoded(IMAGE, "AVIF")).name == "AVIF"
    both = b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf" + bytes(40)
    assert image_kind(both).name == "AVIF"
    assert image_kind(b"\0\0\0\x18ftypisom\0\0\0\0mp42" + bytes(40)) is None, "a video"


def test_heic_without_its_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    for read in (open_image, image_size):
        with pytest.raises(ImageError, match=r"needs pillow-heif: pip install 'unimodal\[heif\]'"):
            read(HEIC)


def test_heic_is_read_with_its_library() -> None:
    pillow_heif = pytest.importorskip("pillow_heif", reason="the extra heif is not installed")
    pillow_heif.register_heif_opener()
    content = encoded(IMAGE, "HEIF", quality=-1, chroma=444, matrix_coefficients=0)
    assert image_size(content) == IMAGE.size
    assert np.array_equal(np.asarray(open_image(content).image), np.asarray(IMAGE))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(IMAGE, "HEIF", quality=-1, exif=exif.tobytes())
    assert image_size(turned) == open_image(turned).image.size == IMAGE.size[::-1]


def test_heic_of_telephones_has_its_colours_and_damage_is_told() -> None:
    pillow_heif = pytest.importorskip("pillow_heif", reason="the extra heif is not installed")
    pillow_heif.register_heif_opener()
    red = Image.new("RGB", (48, 32), (200, 60, 50))
    p3 = matrix_profile("Display P3", D65, CICP_PRIMARIES[12][1], 2.2)
    exact = {"quality": -1, "chroma": 444, "matrix_coefficients": 0}
    content = encoded(red, "HEIF", icc_profile=p3, **exact)
    same = encoded(red, "PNG", icc_profile=p3)
    opened, wanted = open_image(content), open_image(same)
    assert opened.notes == ("colours converted from Display P3 to sRGB",) == wanted.notes
    assert np.array_equal(np.asarray(opened.image), np.asarray(wanted.image))
    assert opened.image.getpixel((9, 9))[0] > 210, "redder than the same numbers of sRGB"
    for end in (40, len(content) // 2, len(content) * 9 // 10):
        with pytest.raises(ImageError, match="damaged or truncated"):
            open_image(content[:end])


def test_the_usual_suffixes_are_known() -> None:
    assert {"png", "apng", "jpg", "jpeg", "jpe", "jfif", "webp", "gif", "bmp", "dib"} < SUFFIXES
    assert {"tif", "tiff", "avif", "heic", "heif", "ppm", "pgm", "jp2", "svg", "jxl"} < SUFFIXES
    assert not {"txt", "json", "md", "csv", "img", "pdf", "mp4"} & SUFFIXES
