"""Bring the colours of an image to sRGB, which every other file takes pixels for.

In: an image that carries a colour profile, or describes its colours otherwise. Out: the image in
sRGB, and in words what was done. The same numbers mean other colours elsewhere: a red of Display P3
(telephones) or Adobe RGB (cameras) is read too dull without this, and one of ProPhoto as brown.

1. An ICC profile is applied by lcms. One that changes no colour by more than SAME is sRGB by
   another name: then no pixel is touched.
2. Without one, a PNG's own gamma and primaries count, and the mark by which cameras say Adobe RGB
   (DCF, "R03").

Costs 5 ms for each profile that is met first, and 40 ms a megapixel that is converted.
"""

import io
import struct
from functools import lru_cache

import numpy as np
from PIL import Image as PILImage
from PIL import ImageCms

Point = tuple[float, float]
"""A chromaticity: CIE x and y."""
Primaries = tuple[Point, ...]

SAME = 2  # levels of 255
GREY = ("1", "L", "LA", "La")
MODES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab ": "LAB"}
"""The mode of pixels that a profile is for, by the colour space that it names."""
D50, D65 = (0.3457, 0.3585), (0.3127, 0.3290)
SRGB_PRIMARIES: Primaries = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
# Adobe RGB (1998), sec. 4.2 and 4.3
ADOBE_PRIMARIES: Primaries = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
ADOBE_GAMMA = 563 / 256
USUAL_GAMMA = 2.2  # of PNGs: within NEAR of it is sRGB's own curve, as libpng has it
NEAR = 0.05
INTEROPERABILITY, INDEX = 0xA005, 1  # tags of EXIF
BRADFORD = np.array(  # ICC.1:2010, annex E
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
LETTERS = (b"r", b"g", b"b")
# What lcms, Pillow and the arithmetic below raise on damaged profiles and EXIF data.
BROKEN = (
    ImageCms.PyCMSError, OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError,
    struct.error,
)  # fmt: skip


def srgb(image: PILImage.Image) -> tuple[PILImage.Image, list[str]]:
    """Return an image of 8 bits a channel in the colours of sRGB, and what was done to it.

    A profile that is damaged or for another kind of pixels is told of and not used.
    """
    try:
        profile = image.info.get("icc_profile") or _described(image)
        if not profile:
            return image, []
        name, mode = _about(profile)
        if mode is None or not _fits(image.mode, mode):
            return image, [f"colour profile {name} is not for {image.mode}: ignored"]
        transform = _transform(profile, mode)
    except BROKEN as error:
        return image, [f"colour profile is damaged ({error}): ignored"]
    if transform is None:
        return image, []
    return _applied(transform, image, mode), [f"colours converted from {name} to sRGB"]


def _fits(mode: str, wanted: str) -> bool:
    """Tell whether pixels of a mode can be brought to the mode that a profile is for."""
    if wanted == "RGB":
        return mode not in ("CMYK", "LAB")
    return mode in GREY if wanted == "L" else mode == wanted


def _applied(
    transform: ImageCms.ImageCmsTransform, image: PILImage.Image, mode: str
) -> PILImage.Image:
    """Return the image in RGB, or in RGBA where parts of it are transparent."""
    if not image.has_transparency_data:
        return transform.apply(image.convert(mode))
    rgba = image.convert("RGBA")
    made = transform.apply(rgba.getchannel("R") if mode == "L" else rgba.convert(mode))
    made.putalpha(rgba.getchannel("A"))
    return made


@lru_cache(64)
def _about(profile: bytes) -> tuple[str, str | None]:
    """Return the name of a profile, and the mode that it is for; None: no mode of Pillow's."""
    opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    words = ImageCms.getProfileDescription(opened).strip()
    name = "".join(letter for letter in words if letter.isprintable())[:60]
    return name or "a profile without a name", MODES.get(opened.profile.xcolor_space)


@lru_cache(64)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return what brings pixels of a mode to sRGB; None where that changes none."""
    transform = ImageCms.ImageCmsTransform(
        ImageCms.ImageCmsProfile(io.BytesIO(profile)),
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")),
        mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    if mode not in ("RGB", "L"):
        return transform
    colours = _colours(mode)
    before, after = (
        np.asarray(one.convert("RGB")).astype(int) for one in (colours, transform.apply(colours))
    )
    return None if np.abs(before - after).max() <= SAME else transform


def _colours(mode: str) -> PILImage.Image:
    """Return an image of colours from all over RGB, or of all greys."""
    if mode == "L":
        return PILImage.fromarray(np.arange(256, dtype=np.uint8)[None])
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    axes = np.meshgrid(levels, levels, levels)
    return PILImage.fromarray(np.stack(axes, axis=-1).reshape(1, -1, 3))


# --- images without a profile that say what their colours are -----------------------------------


def _described(image: PILImage.Image) -> bytes | None:
    """Return the profile that an image without one describes; None where it says nothing."""
    if image.mode == "LAB":
        return ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    if "srgb" in image.info:
        return None
    if "gamma" in image.info or "chromaticity" in image.info:
        return _of_png(image.info.get("gamma"), image.info.get("chromaticity"))
    if "exif" in image.info and image.getexif().get_ifd(INTEROPERABILITY).get(INDEX) == "R03":
        return matrix_profile("Adobe RGB (by EXIF)", D65, ADOBE_PRIMARIES, ADOBE_GAMMA)
    return None


def _of_png(exponent: float | None, chromaticity: tuple[float, ...] | None) -> bytes | None:
    """Return the profile of a PNG's gAMA and cHRM (PNG, 3rd edition, 11.3.2); None: it is sRGB."""
    gamma = USUAL_GAMMA if exponent is None else 1 / exponent
    white, primaries = D65, SRGB_PRIMARIES
    if chromaticity is not None:
        white, *others = zip(chromaticity[::2], chromaticity[1::2], strict=True)
        primaries = tuple(others)
    far = np.abs(np.subtract([white, *primaries], [D65, *SRGB_PRIMARIES])).max()
    if abs(gamma / USUAL_GAMMA - 1) < NEAR and far < NEAR / 5:
        return None
    return matrix_profile(f"a PNG of gamma {gamma:.3g}", white, primaries, gamma)


@lru_cache(64)
def matrix_profile(name: str, white: Point, primaries: Primaries, gamma: float) -> bytes:
    """Return an ICC profile of RGB: x, y of its white and its primaries, and one gamma for all.

    ICC.1:2001-04: a head of 128 bytes, a table of tags, their contents. ValueError or
    ArithmeticError for primaries that span no colours, or a gamma outside 0.1 to 10.
    """
    if not 0.1 <= gamma <= 10:
        raise ValueError(f"gamma {gamma}")
    unscaled = np.array([_xyz(point) for point in primaries]).T
    matrix = unscaled * np.linalg.solve(unscaled, _xyz(white))
    cone = (BRADFORD @ _xyz(D50)) / (BRADFORD @ _xyz(white))
    columns = (np.linalg.inv(BRADFORD) @ (cone[:, None] * BRADFORD) @ matrix).T
    words = name.encode("ascii") + b"\0"
    description = b"desc" + struct.pack(">II", 0, len(words)) + words + bytes(78)
    curve = b"curv" + struct.pack(">IIH", 0, 1, round(gamma * 256)) + bytes(2)
    tags = {
        b"desc": description + bytes(-len(description) % 4),
        b"wtpt": _xyz_tag(_xyz(D50)),
        **{
            letter + b"XYZ": _xyz_tag(column)
            for letter, column in zip(LETTERS, columns, strict=True)
        },
        **{letter + b"TRC": curve for letter in LETTERS},
    }
    at, table = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags))
    for tag, content in tags.items():
        table += tag + struct.pack(">II", at, len(content))
        at += len(content)
    head = struct.pack(">I4xI", at, 0x02400000) + b"mntrRGB XYZ " + bytes(12) + b"acsp"
    head = (head.ljust(68, b"\0") + _xyz_tag(_xyz(D50))[8:]).ljust(128, b"\0")
    return head + table + b"".join(tags.values())


def _xyz(point: Point) -> np.ndarray:
    """Return X, Y = 1 and Z of a chromaticity x, y."""
    x, y = point
    return np.array([x / y, 1.0, (1 - x - y) / y])


def _xyz_tag(xyz: np.ndarray) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *np.round(xyz * 65536).astype(int).tolist())
