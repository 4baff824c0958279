"""Images on a disk, as a sequence: memory holds those alone that are being looked at."""

import errno
import os
import tempfile
from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np


class PixelFile(Sequence[np.ndarray]):
    """Images uint8 (H, W, 3) of any sizes, in a temporary file that is gone with this object."""

    def __init__(self) -> None:
        """Start without an image."""
        self._file = tempfile.TemporaryFile(buffering=0)
        self._end = 0
        self._places: list[tuple[int, tuple[int, ...]]] = []

    def append(self, image: np.ndarray) -> None:
        """Write an image behind the others; ValueError for one that is not uint8 (H, W, 3), OSError
        where the disk has no room.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"pixels of {image.dtype} {image.shape}: uint8 (H, W, 3) are kept")
        if self._file.write(image.tobytes()) != image.size:
            raise OSError(errno.ENOSPC, "no room for images", tempfile.gettempdir())
        self._places.append((self._end, image.shape))
        self._end += image.size

    def extend(self, images: Iterable[np.ndarray]) -> None:
        """Write images behind the others."""
        for image in images:
            self.append(image)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._places)

    @overload
    def __getitem__(self, number: int) -> np.ndarray: ...

    @overload
    def __getitem__(self, number: slice) -> list[np.ndarray]: ...

    def __getitem__(self, number: int | slice) -> np.ndarray | list[np.ndarray]:
        """Return an image, or those of a slice, read from the file."""
        if isinstance(number, slice):
            return [self[one] for one in range(*number.indices(len(self)))]
        start, shape = self._places[number]
        image = np.empty(shape, np.uint8)
        read = os.preadv(self._file.fileno(), [image.data], start)
        assert read == image.size, "the file is this object's own"
        return image
