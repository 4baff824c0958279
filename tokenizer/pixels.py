"""Open, check and convert images: the one place that does.

In: a path, bytes, a binary file or a PIL image. Out: an RGB image and, in words, what was
changed to get it.
1. The first bytes tell the kind of a file (signatures.py), whatever its name. Only that kind's
   decoder is tried, and only of FORMATS: none that calls another program, none without a mark.
2. Size limits are checked from the header, before a pixel is decoded.
3. First frame, upright (EXIF), 8 bits a channel, colours of sRGB (colour.py), transparency laid on
   white, RGB.

Shapes: B images, C = 3 channels, H rows, W columns.
"""

import io
import math
import os
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image as PILImage
from PIL import ImageOps, UnidentifiedImageError
from torch import Tensor

from . import colour
from .signatures import READ, stream_kind

FORMATS = READ
MIN_SIDE = 8
MAX_SIDE = 16_384
MAX_PIXELS = 64_000_000

START_BYTES = 1 << 16  # in which a file says what its colours are
LATE = ("TIFF", "ICO", "ICNS")  # whose size may be another once they are decoded
# How files of the usual formats begin: tells one that was cut from a file that is no image.
CUT = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"GIF8", b"BM", b"II*\0", b"MM\0*")
TOO_MANY_PIXELS = (PILImage.DecompressionBombError, PILImage.DecompressionBombWarning)
# Pillow warns of sizes that our limits refuse in words of their own.
warnings.filterwarnings("ignore", category=PILImage.DecompressionBombWarning)
# What Pillow's decoders raise on damaged data.
DAMAGE = (
    OSError, SyntaxError, ValueError, TypeError, EOFError, LookupError, RuntimeError, struct.error,
    zlib.error,
)  # fmt: skip
SUBFILE_TAG = 254  # of TIFF; bit 0: this image is a smaller version of another one
ORIENTATION_TAG = 0x0112  # EXIF; 1 is upright, 2 to 8 are turned or mirrored
PNG_EXIF = (b"eXIf", b"Raw profile type exif", b"Raw profile type APP1", b"com.adobe.xmp")
MODE_WORDS = {"1": "black and white", "L": "grey", "P": "palette"}

Source = str | os.PathLike | bytes | BinaryIO | PILImage.Image


class ImageError(ValueError):
    """An image that cannot be used; the message names it, says why and what would work."""


@dataclass(frozen=True)
class Opened:
    """An image ready for use."""

    image: PILImage.Image  # mode RGB
    notes: tuple[str, ...]  # the conversions made, in words; empty when none was needed


def open_image(source: Source, cover: tuple[int, int] | None = None) -> Opened:
    """Open and convert one image; ImageError when missing, damaged, too small or too large.

    With `cover` (width, height) a JPEG that is to be made so small may come back smaller than it
    is, but at least twice as large as to cover that: it is decoded at 1/2, 1/4 or 1/8 of its size.
    """
    if isinstance(source, PILImage.Image):
        return _convert(source, "the image")
    if isinstance(source, bytes):
        return _open_stream(io.BytesIO(source), "the image", cover)
    if isinstance(source, str | os.PathLike):
        return _open_path(Path(source))
    return _open_stream(source, str(getattr(source, "name", "the image")))


def image_size(content: bytes) -> tuple[int, int]:
    """Return (width, height) of an image file as open_image will give it, from its header alone.

    ImageError for what the header already shows; damage behind it is found by open_image.
    """
    image = _header(io.BytesIO(content), "the image")
    with image:
        _check_size(image.size, "the image")
        if image.format in LATE:
            return open_image(content).image.size
        # Pillow decodes a whole PNG to look for EXIF behind its pixels.
        may_be_turned = image.format != "PNG" or any(mark in content for mark in PNG_EXIF)
        try:
            sideways = may_be_turned and image.getexif().get(ORIENTATION_TAG, 1) in range(5, 9)
        except DAMAGE:  # open_image ignores it too
            sideways = False
        return (image.height, image.width) if sideways else (image.width, image.height)


def to_tensor(images: list[PILImage.Image] | list[np.ndarray]) -> Tensor:
    """Return RGB images of one size, PIL or uint8 (H, W, 3), as float32 (B, 3, H, W) in [-1, 1].

    ValueError for none, for other dtypes or shapes, and for sizes that differ.
    """
    if not images:
        raise ValueError("no images given: to_tensor needs at least one")
    arrays = [np.asarray(image) for image in images]
    for array in arrays:
        found = f"{array.dtype} {array.shape}"
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
            raise ValueError(f"expected an RGB image, uint8 (H, W, 3), not {found}")
        if array.shape != arrays[0].shape:
            raise ValueError(f"sizes differ: {array.shape}, {arrays[0].shape}; fit them first")
    images_BHWC = torch.from_numpy(np.stack(arrays)).float()
    return (images_BHWC / 127.5 - 1).permute(0, 3, 1, 2).contiguous()


def to_images(images_BCHW: Tensor) -> list[PILImage.Image]:
    """Return images, float (B, 3, H, W) in [-1, 1], as RGB images: the exact inverse of to_tensor.

    ValueError where a value is not finite.
    """
    images_BHWC = images_BCHW.detach().float().permute(0, 2, 3, 1).cpu()
    if not torch.isfinite(images_BHWC).all():
        raise ValueError("images hold values that are not finite: the decoder or its input broke")
    # A decoder may overshoot white or black a little; a screen saturates there, and so do we.
    pixels_BHWC = ((images_BHWC + 1) * 127.5).round().clip(0, 255).to(torch.uint8).numpy()
    return [PILImage.fromarray(pixels_HWC) for pixels_HWC in pixels_BHWC]


def fit(image: PILImage.Image, size: tuple[int, int]) -> PILImage.Image:
    """Resize (antialiased) and crop an RGB image around its centre to (width, height)."""
    return ImageOps.fit(image, size, method=PILImage.Resampling.BICUBIC)


def _open_path(path: Path) -> Opened:
    """Open a file; ImageError names it."""
    try:
        _check_file(path)
        with path.open("rb") as stream:
            return _open_stream(stream, str(path))
    except ImageError:
        raise
    except (OSError, ValueError) as error:  # no permission, a name too long, a null byte in it
        raise ImageError(f"{str(path)!r} cannot be read: {error}") from error


def _check_file(path: Path) -> None:
    """ImageError unless path is a regular file with something in it."""
    if not path.exists():
        raise ImageError(f"there is no file {path}: check the path")
    if path.is_dir():
        raise ImageError(f"{path} is a folder: give the path of one image file")
    if not path.is_file():
        raise ImageError(f"{path} is not a regular file: give the path of one image file")
    if path.stat().st_size == 0:
        raise ImageError(f"{path} is empty (0 bytes): save or download the image again")


def _open_stream(stream: BinaryIO, name: str, cover: tuple[int, int] | None = None) -> Opened:
    """Open from a binary stream that can seek; name is used in messages only."""
    with _header(stream, name) as image:
        _check_size(image.size, name)
        if image.format in colour.BOXED and (profile := colour.boxed(_start(stream), image)):
            image.info["icc_profile"] = profile
        if cover is not None and image.format == "JPEG":
            _draft(image, cover)
        return _convert(image, name)


def _start(stream: BinaryIO) -> bytes:
    """Return the first bytes of the file behind a stream, which is left where it was."""
    at = stream.tell()
    stream.seek(0)
    head = stream.read(START_BYTES)
    stream.seek(at)
    return head


def _draft(image: PILImage.Image, cover: tuple[int, int]) -> None:
    """Let the JPEG decoder scale down by a power of two, which costs it less than decoding all.

    The resize that follows still halves each side, or the result would differ visibly: 48 dB and
    more to a full decode on textbook figures, against 40 dB without that margin.
    """
    scale = 2 * max(cover) / min(image.size)  # whichever way EXIF will turn it
    if scale < 1:
        size = (math.ceil(image.width * scale), math.ceil(image.height * scale))
        image.draft(image.mode, size)


def _header(stream: BinaryIO, name: str) -> PILImage.Image:
    """Return the image with its header read and nothing decoded; ImageError where it is none."""
    try:
        return PILImage.open(stream, formats=[_decoder(stream, name)])
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise _damaged(name, "its header cannot be read") from error
    except TOO_MANY_PIXELS as error:
        raise _too_large(name, "has far too many pixels") from error
    except DAMAGE as error:
        raise _damaged(name, error) from error


def _decoder(stream: BinaryIO, name: str) -> str:
    """Return Pillow's name of the decoder that reads a file; ImageError where there is none."""
    kind = stream_kind(stream)
    if kind is None:
        start = stream.tell()
        if stream.read(4).startswith(CUT):
            raise _damaged(name, "its header cannot be read")
        stream.seek(start)
        raise ImageError(f"{name} is not an image of a known format ({', '.join(FORMATS)})")
    if kind.refusal:
        raise ImageError(f"{name} is {kind.name}, which is not read: {kind.refusal}")
    if kind.name == "HEIF":
        _register_heif(name)
    return kind.name


def _register_heif(name: str) -> None:
    """Make HEIF known to Pillow; ImageError without the library that reads it."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError as error:
        way_out = "pip install 'unimodal[heif]', or save it as JPEG or PNG"
        raise ImageError(f"{name} is a HEIC image, which needs pillow-heif: {way_out}") from error
    register_heif_opener()


def _convert(image: PILImage.Image, name: str) -> Opened:
    """Check an opened, not yet decoded image, then decode it and bring it to RGB."""
    _check_size(image.size, name)
    if _is_preview(image):  # as camera raw files have
        raise ImageError(f"{name}: its first image is a preview: save the whole as PNG or JPEG")
    try:
        notes = [*_frame_notes(image), *_depth_notes(image)]
        image.load()
        if (image.format, image.mode) == ("PPM", "I"):  # its decoder makes 65,535 of the white
            image = image.convert("I;16")
        rgb = _to_rgb(_eight_bits(_upright(image, notes), name), notes)
    except ImageError:
        raise
    except TOO_MANY_PIXELS as error:
        raise _too_large(name, "has a frame with far too many pixels") from error
    except DAMAGE as error:
        raise _damaged(name, error) from error
    rgb.info.pop("icc_profile", None)  # or else whoever saves it would have it converted again
    return Opened(rgb, tuple(notes))


def _is_preview(image: PILImage.Image) -> bool:
    return image.format == "TIFF" and bool(getattr(image, "tag_v2", {}).get(SUBFILE_TAG, 0) & 1)


def _check_size(size: tuple[int, int], name: str) -> None:
    """ImageError for (width, height) that are too small or too large."""
    width, height = size
    if min(size) < MIN_SIDE:
        raise ImageError(
            f"{name} is too small: {width} x {height} pixels; each side needs at least {MIN_SIDE}"
        )
    if max(size) > MAX_SIDE or width * height > MAX_PIXELS:
        raise _too_large(name, f"has {width} x {height} pixels")


def _too_large(name: str, what: str) -> ImageError:
    limits = f"{MAX_SIDE:,} pixels a side and {MAX_PIXELS // 10**6} million pixels in all"
    return ImageError(f"{name} is too large, it {what}: the limits are {limits}; shrink it first")


def _damaged(name: str, reason: Exception | str) -> ImageError:
    return ImageError(f"{name} is damaged or truncated ({reason}): save or download it again")


def _frame_notes(image: PILImage.Image) -> list[str]:
    num_frames = 1 if image.format == "PSD" else getattr(image, "n_frames", 1)  # its are layers
    return [f"only the first of its {num_frames} frames is used"] if num_frames > 1 else []


def _depth_notes(image: PILImage.Image) -> list[str]:
    """Say whether the image has 16 bits a channel.

    Pillow cuts 16-bit colour to 8 while decoding: the raw mode of a tile is the only trace.
    """
    deep = image.mode.startswith("I;16") or ";16" in str(getattr(image, "tile", ""))
    return ["16 bits a channel reduced to 8"] if deep else []


def _upright(image: PILImage.Image, notes: list[str]) -> PILImage.Image:
    """Turn the image as its EXIF asks; damaged EXIF loses the turn, not the image."""
    try:
        turned = image.getexif().get(ORIENTATION_TAG, 1) in range(2, 9)
        image = ImageOps.exif_transpose(image)
    except DAMAGE:
        notes.append("EXIF data is damaged: orientation ignored")
        return image
    if turned:
        notes.append("turned upright as its EXIF data asks")
    return image


def _eight_bits(image: PILImage.Image, name: str) -> PILImage.Image:
    """Turn 16-bit grey into 8-bit, its transparent value into alpha; ImageError for 32 bits."""
    if image.mode in ("I", "F"):
        raise ImageError(
            f"{name} has 32-bit pixels, whose white is not defined: save it with 8 or 16 bits"
        )
    if not image.mode.startswith("I;16"):
        return image
    values_HW = np.asarray(image).astype(np.uint32)
    grey = PILImage.fromarray(((values_HW * 255 + 32767) // 65535).astype(np.uint8))
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey.putalpha(
            PILImage.fromarray(np.where(values_HW == transparent, 0, 255).astype(np.uint8))
        )
    return grey


def _to_rgb(image: PILImage.Image, notes: list[str]) -> PILImage.Image:
    """Bring colours to sRGB, lay transparency on white, convert to RGB; note what was done."""
    image, found = colour.srgb(image)
    notes += found
    if image.has_transparency_data:
        notes.append("transparency laid on white")
        rgba = image.convert("RGBA")
        return PILImage.alpha_composite(PILImage.new("RGBA", rgba.size, "white"), rgba).convert(
            "RGB"
        )
    if image.mode != "RGB":
        notes.append(f"{MODE_WORDS.get(image.mode, image.mode)} converted to RGB")
    return image.convert("RGB")
