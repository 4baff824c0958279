"""Colours come out as those of sRGB, whatever profile or mark says which they are."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from unimodal.tokenizer.colour import D50, D65, matrix_profile
from unimodal.tokenizer.pixels import Opened, image_size, open_image

P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
SRGB = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
SPACES = {
    "Display P3": (D65, P3, 2.2),
    "Adobe RGB": (D65, ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06)), 563 / 256),
    "ProPhoto": (D50, ((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001)), 1.8),
}
REDS = {"Display P3": (234, 51, 35), "Adobe RGB": (219, 0, 0), "ProPhoto": (179, 70, 26)}
"""What the red of sRGB is in other spaces: published values of CSS Color 4 and colour tables."""


def profile(name: str) -> bytes:
    return matrix_profile(name, *SPACES[name])


def tagged(
    colour: object, icc: bytes | None, mode: str = "RGB", kind: str = "PNG", **more: object
) -> bytes:
    stream = io.BytesIO()
    Image.new(mode, (16, 16), colour).save(stream, kind, icc_profile=icc, **more)
    return stream.getvalue()


def first(opened: Opened) -> np.ndarray:
    assert opened.image.mode == "RGB" and "icc_profile" not in opened.image.info
    return np.asarray(opened.image)[0, 0].astype(int)


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "AVIF", "JPEG"])
def test_the_red_of_srgb_comes_back_from_every_space(name: str, kind: str) -> None:
    lossless = {"WEBP": {"lossless": True}, "AVIF": {"quality": 100}, "JPEG": {"quality": 100}}
    opened = open_image(tagged(REDS[name], profile(name), kind=kind, **lossless.get(kind, {})))
    assert opened.notes == (f"colours converted from {name} to sRGB",)
    assert np.abs(first(opened) - [255, 0, 0]).max() <= 4


@pytest.mark.parametrize("name", SPACES)
def test_any_colour_comes_back_as_the_equations_have_it(name: str) -> None:
    """Linear light, through XYZ, of colours inside both spaces: an independent computation."""
    rng = np.random.default_rng(1)
    wanted_n3 = rng.integers(40, 216, (200, 3))
    linear_n3 = _linear(wanted_n3 / 255)
    there_n3 = linear_n3 @ _matrix(D65, SRGB).T @ _adapted(D65, SPACES[name][0]).T
    there_n3 = there_n3 @ np.linalg.inv(_matrix(*SPACES[name][:2])).T
    assert there_n3.min() >= 0 and there_n3.max() <= 1
    stored = np.round(255 * there_n3 ** (1 / SPACES[name][2])).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(stored.reshape(10, 20, 3)).save(stream, "PNG", icc_profile=profile(name))
    found_n3 = np.asarray(open_image(stream.getvalue()).image).reshape(-1, 3).astype(int)
    assert np.abs(found_n3 - wanted_n3).max() <= 4, "of 8 bits stored"


def _linear(values: np.ndarray) -> np.ndarray:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def _matrix(white: tuple, primaries: tuple) -> np.ndarray:
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
    x, y = white
    return columns * np.linalg.solve(columns, [x / y, 1, (1 - x - y) / y])


def _adapted(white: tuple, other: tuple) -> np.ndarray:
    """Bradford's matrix from one white to another."""
    cones = np.array(
        [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
    )
    old, new = (cones @ [x / y, 1, (1 - x - y) / y] for x, y in (white, other))
    return np.linalg.inv(cones) @ np.diag(new / old) @ cones


def test_srgb_by_any_name_changes_no_pixel() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", icc_profile=own)
    opened = open_image(stream.getvalue())
    assert opened.notes == () and np.array_equal(np.asarray(opened.image), pixels)


def test_transparency_and_palettes_keep_their_profile() -> None:
    red = (*REDS["Display P3"], 128)
    opened = open_image(tagged(red, profile("Display P3"), "RGBA"))
    assert opened.notes[0] == "colours converted from Display P3 to sRGB"
    assert np.abs(first(opened) - [255, 127, 127]).max() <= 3
    stream = io.BytesIO()
    image = Image.new("P", (16, 16), 1)
    image.putpalette([0, 0, 0, *REDS["Display P3"]])
    image.save(stream, "PNG", icc_profile=profile("Display P3"))
    assert np.abs(first(open_image(stream.getvalue())) - [255, 0, 0]).max() <= 2


def grey_profile(gamma: float) -> bytes:
    """A profile of grey by hand: one curve, nothing else."""
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    curve = b"curv" + struct.pack(">IIH", 0, 1, round(gamma * 256)) + bytes(2)
    words = b"desc" + struct.pack(">II", 0, 5) + b"grey\0" + bytes(79)
    return _profile(b"GRAY", b"XYZ ", {b"desc": words, b"wtpt": white, b"kTRC": curve})


def cmyk_profile() -> bytes:
    """Inks by hand: cyan is shown green, all others as paper: no formula of CMYK does that."""
    corners = []
    for number in range(16):
        is_cyan = number & 8
        corners += [140, 60, 190] if is_cyan else [255, 128, 128]  # L, a, b of 8 bits
    unit = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    ramp = bytes(range(256))
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + unit + ramp * 4 + bytes(corners) + ramp * 3
    words = b"desc" + struct.pack(">II", 0, 5) + b"inks\0" + bytes(79)
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    return _profile(b"CMYK", b"Lab ", {b"desc": words, b"wtpt": white, b"A2B0": lut}, b"prtr")


def _profile(space: bytes, pcs: bytes, tags: dict, kind: bytes = b"mntr") -> bytes:
    at, table = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags))
    contents = {tag: content + bytes(-len(content) % 4) for tag, content in tags.items()}
    for tag, content in contents.items():
        table += tag + struct.pack(">II", at, len(content))
        at += len(content)
    head = struct.pack(">I4xI", at, 0x02400000) + kind + space + pcs + bytes(12) + b"acsp"
    head = head.ljust(68, b"\0") + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + table + b"".join(contents.values())


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_grey_profiles_count(mode: str) -> None:
    opened = open_image(tagged(128 if mode == "L" else (128, 255), grey_profile(1.0), mode))
    assert opened.notes[0] == "colours converted from grey to sRGB"
    assert np.abs(first(opened) - 188).max() <= 1, "half the light of white is level 188"


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_profiles_of_inks_count(kind: str) -> None:
    opened = open_image(tagged((255, 0, 0, 0), cmyk_profile(), "CMYK", kind))
    assert opened.notes == ("colours converted from inks to sRGB",)
    red, green, blue = first(opened)
    assert green > red + 40 and green > blue + 40, "not the blue-green of a formula"
    plain = open_image(tagged((255, 0, 0, 0), None, "CMYK", kind))
    assert plain.notes == ("CMYK converted to RGB",) and first(plain)[2] > 200


def test_lab_needs_no_profile() -> None:
    lab = ImageCms.profileToProfile(
        Image.new("RGB", (16, 16), (200, 10, 10)), ImageCms.createProfile("sRGB"),
        ImageCms.createProfile("LAB"), outputMode="LAB",
    )  # fmt: skip
    lab.info.clear()
    stream = io.BytesIO()
    lab.save(stream, "TIFF")
    opened = open_image(stream.getvalue())
    assert "Lab" in opened.notes[0] and np.abs(first(opened) - [200, 10, 10]).max() <= 4


@pytest.mark.parametrize("icc", [b"garbage", b"\0" * 200, profile("Display P3")[:300]])
def test_a_damaged_profile_is_told_and_costs_no_image(icc: bytes) -> None:
    opened = open_image(tagged((1, 2, 3), icc))
    assert opened.notes[0].startswith("colour profile is damaged")
    assert first(opened).tolist() == [1, 2, 3]


@pytest.mark.parametrize(("mode", "colour"), [("RGB", (9, 9, 9)), ("P", 0)])
def test_a_profile_for_other_pixels_is_told(mode: str, colour: object) -> None:
    notes = open_image(tagged(colour, grey_profile(1.0), mode)).notes
    assert notes[0] == f"colour profile grey is not for {mode}: ignored"


def png(gamma: float | None = None, primaries: tuple | None = None, **chunks: bytes) -> bytes:
    info = PngInfo()
    if gamma is not None:
        info.add(b"gAMA", struct.pack(">I", round(gamma * 1e5)))
    if primaries is not None:
        flat = [round(value * 1e5) for point in (D65, *primaries) for value in point]
        info.add(b"cHRM", struct.pack(">8I", *flat))
    for name, content in chunks.items():
        info.add(name.encode(), content)
    return tagged((128, 64, 32), None, pnginfo=info)


def test_gamma_and_primaries_of_a_png_count() -> None:
    opened = open_image(png(1.0))
    assert opened.notes == ("colours converted from a PNG of gamma 1 to sRGB",)
    assert np.abs(first(opened) - [188, 137, 99]).max() <= 1
    wide, narrow = first(open_image(png(0.45455, P3))), first(open_image(png(0.45455, SRGB)))
    assert narrow.tolist() == [128, 64, 32] and wide[0] > 135 and wide[2] < 20
    for same in (png(0.45455), png(1.0, sRGB=b"\0"), png(None, SRGB)):
        assert open_image(same).notes == ()
    for odd in (png(None, ((0.0, 0.0),) * 3), png(0.00001), png(0.45455, ((0.3, 0.3),) * 3)):
        opened = open_image(odd)
        assert "damaged" in opened.notes[0] and first(opened).tolist() == [128, 64, 32]


def test_the_mark_of_cameras_counts() -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA005] = {1: "R03"}
    content = tagged(REDS["Adobe RGB"], None, kind="JPEG", exif=exif, quality=100)
    opened = open_image(content)
    assert opened.notes == ("colours converted from Adobe RGB (by EXIF) to sRGB",)
    assert np.abs(first(opened) - [255, 0, 0]).max() <= 3 and image_size(content) == (16, 16)


def test_what_came_out_is_not_converted_again() -> None:
    once = open_image(tagged((200, 90, 60), profile("ProPhoto"))).image
    stream = io.BytesIO()
    once.save(stream, "PNG")
    again = open_image(stream.getvalue())
    assert again.notes == () and np.array_equal(np.asarray(again.image), np.asarray(once))


# --- profiles that stand in boxes ---------------------------------------------------------------


def avif(colour: tuple, primaries: int, curve: int) -> bytes:
    """An AVIF whose code points are others than those that Pillow writes."""
    content = tagged(colour, None, kind="AVIF", quality=100)
    was = b"colrnclx" + struct.pack(">HH", 1, 13)
    assert content.count(was) == 1
    return content.replace(was, b"colrnclx" + struct.pack(">HH", primaries, curve))


def jp2(colour: tuple, icc: bytes) -> bytes:
    """A JPEG 2000 with a profile in place of the number of its colour space."""
    content = tagged(colour, None, kind="JPEG2000")
    at = content.index(b"colr") - 4
    box = struct.pack(">I", 11 + len(icc)) + b"colr" + bytes([2, 0, 0]) + icc
    grown = content[:at] + box + content[at + 15 :]
    outer = grown.index(b"jp2h") - 4
    size = int.from_bytes(grown[outer : outer + 4]) + len(box) - 15
    return grown[:outer] + struct.pack(">I", size) + grown[outer + 4 :]


def test_code_points_of_video_count() -> None:
    for content in (avif(REDS["Display P3"], 12, 13), png_of_cicp(REDS["Display P3"], 12, 13)):
        opened = open_image(content)
        assert opened.notes == ("colours converted from Display P3 to sRGB",)
        assert np.abs(first(opened) - [255, 0, 0]).max() <= 6
    for primaries, curve in ((1, 13), (2, 2), (1, 1), (1, 6)):
        assert open_image(avif((200, 90, 60), primaries, curve)).notes == ()
        assert open_image(png_of_cicp((200, 90, 60), primaries, curve)).notes == ()


def png_of_cicp(colour: tuple, primaries: int, curve: int, **more: object) -> bytes:
    info = PngInfo()
    info.add(b"cICP", bytes([primaries, curve, 0, 1]))
    return tagged(colour, more.get("icc"), pnginfo=info)


def test_brighter_than_white_is_cut_at_white() -> None:
    """PQ: signal 0.58 is 203 nits, the white of paper; HLG: 0.75 is about as much."""
    for curve, level in ((16, 148), (18, 191)):
        opened = open_image(png_of_cicp((level,) * 3, 9, curve))
        name = "BT.2020 PQ" if curve == 16 else "BT.2020 HLG"
        assert opened.notes == (f"colours converted from {name} to sRGB",)
        assert first(opened).min() >= 250
        darker = first(open_image(png_of_cicp((level // 2,) * 3, 9, curve)))
        assert 40 < darker.min() and darker.max() < 160
        assert first(open_image(png_of_cicp((255,) * 3, 9, curve))).tolist() == [255] * 3


def test_code_points_of_a_png_come_before_its_profile() -> None:
    content = png_of_cicp((200, 90, 60), 12, 13, icc=profile("ProPhoto"))
    assert open_image(content).notes == ("colours converted from Display P3 to sRGB",)


def test_the_profile_of_jpeg_2000_counts() -> None:
    opened = open_image(jp2(REDS["Adobe RGB"], profile("Adobe RGB")))
    assert opened.notes == ("colours converted from Adobe RGB to sRGB",)
    assert np.abs(first(opened) - [255, 0, 0]).max() <= 2
