"""Codes of images that were drawn, found again by the pixels that were sent to a client.

A client sends the whole conversation with every turn, images as files. Pixels, encoded again, may
give other codes than those that were drawn: the model would see another image, and what was
computed of the conversation (prefixes.py) would not be found. So an image of the assistant that
was drawn here is read as it was drawn, as in a Chat.
"""

import hashlib
from collections import OrderedDict
from dataclasses import replace

import numpy as np

from ..document import Document, Image


class DrawnImages:
    """DrawnImages keep the codes or latents of the latest images, without their pixels."""

    def __init__(self, most: int) -> None:
        """most: how many images are kept."""
        self._most = most
        self._kept: OrderedDict[bytes, Image] = OrderedDict()

    def add(self, image: Image) -> None:
        """Keep an image that was drawn and has pixels."""
        assert image.pixels is not None, "a drawn image was decoded"
        key = _key(image.pixels)
        self._kept[key] = replace(image, pixels=None)
        self._kept.move_to_end(key)
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)

    def restored(self, document: Document) -> Document:
        """Return the document, whose images have pixels, with the codes of those of the assistant
        that were drawn here.
        """
        return Document(
            tuple(
                self._restored(part) if isinstance(part, Image) else part for part in document.parts
            )
        )

    def _restored(self, image: Image) -> Image:
        if image.role != "assistant" or image.pixels is None:
            return image
        key = _key(image.pixels)
        kept = self._kept.get(key)
        if kept is None:
            return image
        self._kept.move_to_end(key)
        return replace(kept, pixels=image.pixels, role=image.role)


def _key(pixels: np.ndarray) -> bytes:
    sides = "x".join(map(str, pixels.shape)).encode()
    return hashlib.sha256(sides + np.ascontiguousarray(pixels).tobytes()).digest()
