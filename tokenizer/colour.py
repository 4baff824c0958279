"""Bring the colours of an image to sRGB, which every other file takes pixels for.

In: an image that carries a colour profile, or describes its colours otherwise. Out: the image in
sRGB, and in words what was done. The same numbers mean other colours elsewhere: a red of Display P3
(telephones) or Adobe RGB (cameras) is read too dull without this, and one of ProPhoto as brown.

1. An ICC profile is applied by lcms. One that changes no colour by more than SAME is sRGB by
   another name: then no pixel is touched.
2. Without one, other marks count: a PNG's own gamma and primaries, the mark by which cameras say
   Adobe RGB (DCF, "R03"), and code points of video (CICP) in PNG, AVIF and HEIC. Of brighter than
   white (HDR) the part up to white is kept.

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
# Rec. ITU-T H.273, tables 2 and 3: code points of primaries and of curves that are not sRGB's.
CICP_PRIMARIES: dict[int, tuple[str, Primaries]] = {
    9: ("BT.2020", ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046))),
    12: ("Display P3", ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))),
}
CICP_GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0}
PQ, HLG = 16, 18
WHITE_NITS = 203  # of what HDR shows as paper (BT.2408)
CURVE_POINTS = 4096
USUAL_GAMMA = 2.2  # of PNGs: within NEAR of it is sRGB's own curve, as libpng has it
NEAR = 0.05
INTEROPERABILITY, INDEX = 0xA005, 1  # tags of EXIF
BRADFORD = np.array(  # ICC.1:2010, annex E
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
BOXED = ("PNG", "AVIF", "HEIF", "JPEG2000")  # formats of which Pillow does not tell all
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


def boxed(head: bytes, image: PILImage.Image) -> bytes | None:
    """Return the profile that the first bytes of an image's file have and Pillow does not tell of.

    It is PNG's cICP (3rd edition, 11.3.2.6), AVIF's and HEIC's nclx (ISO 23008-12) or the profile
    of JPEG 2000 (ISO 15444-1, I.5.3.3). None where there is none, or where it is sRGB.
    """
    if image.format == "PNG":
        chunk = head.partition(b"IDAT")[0].partition(b"cICP")[2]
        return _of_cicp(chunk[0], chunk[1]) if len(chunk) >= 4 else None
    before, _, box = head.partition(b"colr")
    if image.format == "JPEG2000" and box[:1] in (b"\x02", b"\x03"):
        return box[3 : int.from_bytes(before[-4:]) - 8]
    is_boxed = image.format in ("AVIF", "HEIF") and "icc_profile" not in image.info
    if is_boxed and box.startswith(b"nclx") and len(box) >= 8:
        return _of_cicp(*struct.unpack_from(">HH", box, 4))
    return None


def _of_cicp(primaries: int, curve: int) -> bytes | None:
    """Return the profile of code points of H.273; None where they are sRGB's or not known."""
    name, points = CICP_PRIMARIES.get(primaries, ("", SRGB_PRIMARIES))
    if not name and curve not in (PQ, HLG, *CICP_GAMMAS):
        return None
    if curve in CICP_GAMMAS:
        return matrix_profile(name or "CICP", D65, points, CICP_GAMMAS[curve])
    more = {PQ: " PQ", HLG: " HLG"}.get(curve, "")
    return matrix_profile(f"{name or 'BT.709'}{more}", D65, points, _levels(curve))


def _levels(curve: int) -> tuple[int, ...]:
    """Return the light of CURVE_POINTS signals from 0 to 1, of 65,535 for white."""
    signals_n = np.linspace(0, 1, CURVE_POINTS)
    if curve == PQ:  # BT.2100, table 4
        power_n = signals_n ** (1 / 78.84375)
        light_n = np.maximum(power_n - 0.8359375, 0) / (18.8515625 - 18.6875 * power_n)
        light_n = 10_000 / WHITE_NITS * light_n ** (1 / 0.1593017578125)
    elif curve == HLG:  # BT.2100, table 5, with its gamma of 1.2 on each channel, at 1,000 nits
        bright_n = (np.exp((signals_n - 0.55991073) / 0.17883277) + 0.28466892) / 12
        scene_n = np.where(signals_n <= 0.5, signals_n**2 / 3, bright_n)
        light_n = 1000 / WHITE_NITS * scene_n**1.2
    else:  # IEC 61966-2-1
        light_n = np.where(
            signals_n <= 0.04045, signals_n / 12.92, ((signals_n + 0.055) / 1.055) ** 2.4
        )
    return tuple(np.round(65_535 * np.minimum(light_n, 1)).astype(int).tolist())


@lru_cache(64)
def matrix_profile(
    name: str, white: Point, primaries: Primaries, curve: float | tuple[int, ...]
) -> bytes:
    """Return an ICC profile of RGB: x, y of its white and its primaries, and one curve for all.

    The curve is a gamma, or the light of signals from 0 to 1, of 65,535. ICC.1:2001-04: a head of
    128 bytes, a table of tags, their contents. ValueError or ArithmeticError for primaries that
    span no colours, or a gamma outside 0.1 to 10.
    """
    unscaled = np.array([_xyz(point) for point in primaries]).T
    matrix = unscaled * np.linalg.solve(unscaled, _xyz(white))
    cone = (BRADFORD @ _xyz(D50)) / (BRADFORD @ _xyz(white))
    columns = (np.linalg.inv(BRADFORD) @ (cone[:, None] * BRADFORD) @ matrix).T
    words = name.encode("ascii") + b"\0"
    curves = _curve_tag(curve)
    points = {
        letter + b"XYZ": _xyz_tag(column) for letter, column in zip(LETTERS, columns, strict=True)
    }
    return _profile(
        {
            b"desc": b"desc" + struct.pack(">II", 0, len(words)) + words + bytes(78),
            b"wtpt": _xyz_tag(_xyz(D50)),
            **points,
            **{letter + b"TRC": curves for letter in LETTERS},
        }
    )


def _profile(tags: dict[bytes, bytes]) -> bytes:
    """Return a profile of RGB with these tags."""
    padded = {tag: content + bytes(-len(content) % 4) for tag, content in tags.items()}
    at, table = 128 + 4 + 12 * len(padded), struct.pack(">I", len(padded))
    for tag, content in padded.items():
        table += tag + struct.pack(">II", at, len(content))
        at += len(content)
    head = struct.pack(">I4xI", at, 0x02400000) + b"mntrRGB XYZ " + bytes(12) + b"acsp"
    head = (head.ljust(68, b"\0") + _xyz_tag(_xyz(D50))[8:]).ljust(128, b"\0")
    return head + table + b"".join(padded.values())


def _curve_tag(curve: float | tuple[int, ...]) -> bytes:
    if isinstance(curve, tuple):
        return b"curv" + struct.pack(f">II{len(curve)}H", 0, len(curve), *curve)
    if not 0.1 <= curve <= 10:
        raise ValueError(f"gamma {curve}")
    return b"curv" + struct.pack(">IIH", 0, 1, round(curve * 256))


def _xyz(point: Point) -> np.ndarray:
    """Return X, Y = 1 and Z of a chromaticity x, y."""
    x, y = point
    return np.array([x / y, 1.0, (1 - x - y) / y])


def _xyz_tag(xyz: np.ndarray) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *np.round(xyz * 65536).astype(int).tolist())
