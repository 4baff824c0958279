"""The images of a benchmark: read from one folder or from the data themselves, each checked once.

In: items. Out: a digest of all their images before the model is asked, and pixels when it is.

Nothing is fetched: an address is refused, and so is a path that leads out of the folder (absolute,
by `..` or by a link). An image that is missing or damaged stops the evaluation before it begins; it
is never counted as a wrong answer.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from unimodal.data.convert.sandbox import Sandbox
from unimodal.data.formats import SampleError
from unimodal.data.sizes import ImageRule, bucket, fitted
from unimodal.families.fits import Fit
from unimodal.tokenizer.pixels import image_size, open_image

from ..report import progress

MOST_TOLD = 5  # bad images in a message


class Shows(Protocol):
    """Anything that shows images, known by its id: a question, an edit."""

    @property
    def id(self) -> str:
        """Return its name in messages."""

    @property
    def images(self) -> tuple[Any, ...]:
        """Return its images as the data name them."""


class Pictures:
    """Reads the images that items name."""

    def __init__(self, folder: Path, rule: ImageRule | Fit | None) -> None:
        """Read from the folder, and resize by the rule, or by a published model's own fit; None:
        show images as they are.
        """
        self._sandbox, self._rule = Sandbox(folder), rule

    def check(self, items: Iterable[Shows]) -> dict[str, str]:
        """Return the SHA-256 of each distinct image by its `name_of`; ValueError that names those
        which cannot be used.
        """
        named = {name_of(image): (image, item.id) for item in items for image in item.images}
        found, bad = {}, []
        for name, (image, id) in progress(list(named.items()), "images"):
            try:
                content = self.content(image)
                if isinstance(self._rule, ImageRule):
                    bucket(image_size(content), self._rule)  # which refuses too small ones
                elif self._rule is not None:
                    self._rule(open_image(content).image)  # which refuses too long ones
                found[name] = hashlib.sha256(content).hexdigest()
            except (SampleError, ValueError) as error:
                bad.append(f"item {id}: {error}")
        if bad:
            more = f"; and {len(bad) - MOST_TOLD} more" if len(bad) > MOST_TOLD else ""
            raise ValueError(
                f"{len(bad)} of {len(named)} images cannot be used, so nothing is scored: "
                f"{'; '.join(bad[:MOST_TOLD])}{more}. Complete the folder {self._sandbox.folder}, "
                "or name another by --images"
            )
        return found

    def pixels(self, image: Any) -> np.ndarray:
        """Return an image as the model sees it, uint8 (H, W, 3)."""
        if self._rule is None:
            return self.whole(image)
        content = self.content(image)
        if not isinstance(self._rule, ImageRule):
            return np.asarray(self._rule(open_image(content).image))
        size = bucket(image_size(content), self._rule)
        return fitted(open_image(content, cover=size).image, size)

    def content(self, image: Any) -> bytes:
        """Return the contents of an image's file."""
        return self._sandbox.image(image)[1]

    def whole(self, image: Any) -> np.ndarray:
        """Return an image as it is, uint8 (H, W, 3)."""
        return np.asarray(open_image(self.content(image)).image)


def name_of(image: Any) -> str:
    """Return the name of an image, the same for equal ones: its path, or the hash of contents."""
    if isinstance(image, dict):
        image = image.get("bytes") or image.get("path") or image.get("url") or ""
    if isinstance(image, bytes):
        return hashlib.sha256(image).hexdigest()
    return image if len(str(image)) <= 256 else hashlib.sha256(str(image).encode()).hexdigest()
