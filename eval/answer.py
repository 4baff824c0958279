"""What a model replied, in the form in which evaluators judge it.

In: the parts of a reply, its images decoded. Out: an `Answer`: words, images and their codes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from unimodal.document import Image, Part, Text


@dataclass(frozen=True, eq=False)
class Answer:
    """Words, images uint8 (H, W, 3) and their codes; `earlier` has the answers of turns before."""

    text: str
    images: tuple[np.ndarray, ...] = ()
    codes: tuple[tuple[int, ...], ...] = ()
    earlier: tuple["Answer", ...] = ()

    @classmethod
    def of(cls, parts: Sequence[Part], earlier: tuple["Answer", ...] = ()) -> Self:
        """Return the answer that a reply's parts make: texts joined by spaces, images in order.

        Every image has both pixels and codes.
        """
        text = " ".join(part.text.strip() for part in parts if isinstance(part, Text)).strip()
        drawn = [part for part in parts if isinstance(part, Image)]
        images = tuple(image.pixels for image in drawn if image.pixels is not None)
        codes = tuple(
            tuple(image.codes.ravel().tolist()) for image in drawn if image.codes is not None
        )
        assert len(images) == len(codes) == len(drawn), "an image lacks its pixels or its codes"
        return cls(text, images, codes, earlier)
