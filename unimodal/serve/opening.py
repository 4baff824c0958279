"""Images that clients send: bytes of a form, or data: URLs (RFC 2397) in JSON.

No name that a client gives reaches the disk; fetcher.py fetches, where that is switched on. Files
are opened by tokenizer/pixels.py, of KINDS alone, still ones, of so many pixels by their header.
"""

import base64
import binascii
import io
import re
from dataclasses import dataclass

import numpy as np

from unimodal.tokenizer.pixels import MAX_PIXELS, ImageError, image_size, open_image
from unimodal.tokenizer.signatures import stream_kind

from ..model import Model
from .errors import ApiError
from .image_pieces import is_sound, is_whole
from .limits import Limits

KINDS = ("PNG", "JPEG", "WEBP", "GIF")
DATA_URL = re.compile(r"data:image/[\w.+-]+;base64,", re.ASCII | re.IGNORECASE)
NOT_OURS = f"{MAX_PIXELS // 10**6} million pixels in all"  # a bound of pixels.py, above ours
ONLY_FRAME = "frames is used"  # what pixels.py notes of an animation


@dataclass(frozen=True, eq=False)
class OpenedImage:
    """An image of the size that the model is given, and what was done to it.

    pixels: uint8 (H, W, 3). size: of the file's image, width and height.
    """

    pixels: np.ndarray
    notes: tuple[str, ...]
    size: tuple[int, int]


def content_of(url: str, param: str, fetches: bool = False) -> bytes:
    """Return the bytes of a data: URL; raise ApiError for any other URL and for wrong base64.

    fetches: whether addresses of the web, which are no business of this function, are fetched.
    """
    head = DATA_URL.match(url)
    if head is None:
        which = "no address but of http: and https:" if fetches else "no address"
        raise ApiError(
            400, f"{url[:60]!r} is no image as a data: URL (data:image/png;base64,...), and nothing"
            f" else is opened: {which} is fetched, no file is read; send the image itself",
            param, "unsupported_image_url",
        )  # fmt: skip
    try:
        return base64.b64decode(url[head.end() :], validate=True)
    except (binascii.Error, ValueError) as error:
        raise ApiError(
            400, f"the image is not base64 (RFC 4648): {error}", param, "invalid_base64"
        ) from error


def opened(content: bytes, model: Model, limits: Limits, param: str) -> OpenedImage:
    """Open an image file and fit it to the model; raise ApiError where it is of another kind,
    animated, damaged, too large, or of a shape that the model does not see.
    """
    kind = stream_kind(io.BytesIO(content))
    if kind is None or kind.name not in KINDS:
        found = "of no known kind" if kind is None else f"of the kind {kind.name}"
        raise ApiError(
            400, f"the image is {found}; {', '.join(KINDS)} are opened", param, "invalid_image"
        )
    if not is_sound(content, kind.name):
        raise ApiError(
            400, "the image file is in far more pieces than an image needs: save it anew, as a"
            " plain PNG or JPEG", param, "invalid_image",
        )  # fmt: skip
    if not is_whole(content, kind.name):
        raise ApiError(
            400, f"the image is damaged or truncated: its file lacks the end of a {kind.name}",
            param, "invalid_image",
        )  # fmt: skip
    try:
        width, height = image_size(content)
        if width * height > limits.max_pixels:
            raise ImageError(
                f"the image has {width} x {height} pixels, and {limits.max_pixels:,} are the most:"
                " shrink it first"
            )
        opened = open_image(content)
        pixels, notes = model.fitted(opened)
    except ImageError as error:
        said = str(error).replace(NOT_OURS, f"{limits.max_pixels:,} pixels in all")
        raise ApiError(400, said, param, "invalid_image") from error
    if any(note.endswith(ONLY_FRAME) for note in opened.notes):
        raise ApiError(
            400, "the image is animated: send the frame that is meant, as PNG or JPEG",
            param, "invalid_image",
        )  # fmt: skip
    return OpenedImage(pixels, tuple(notes), (width, height))
