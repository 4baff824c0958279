"""Images that were opened lately, found again by their files' bytes.

A client sends the whole conversation with every turn: all images but the new ones were opened
before.
"""

import hashlib
from collections import OrderedDict

from .opening import OpenedImage

MOST_BYTES = 32 * 2**20  # of pixels; thousands of drawings of 64 x 64


class OpenedImages:
    """OpenedImages keep the latest ones, up to so many bytes of pixels."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        """most_bytes: how many bytes of pixels are kept; a larger image is not."""
        self._most_bytes = most_bytes
        self._kept: OrderedDict[bytes, OpenedImage] = OrderedDict()
        self._num_bytes = 0

    def find(self, content: bytes) -> OpenedImage | None:
        """Return the image of a file, or None where it is not kept."""
        key = _key(content)
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def keep(self, content: bytes, image: OpenedImage) -> None:
        """Keep the image of a file; the oldest ones make room for it."""
        if (key := _key(content)) in self._kept or image.pixels.nbytes > self._most_bytes:
            return
        self._kept[key] = image
        self._num_bytes += image.pixels.nbytes
        while self._num_bytes > self._most_bytes:
            _, oldest = self._kept.popitem(last=False)
            self._num_bytes -= oldest.pixels.nbytes


def _key(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()
