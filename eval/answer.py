"""What a model replied, in the form in which evaluators judge it.

In: the parts of a reply, its images decoded. Out: an `Answer`: words, images and their codes or
latents.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from unimodal.document import Image, Part, Text
from unimodal.model import Model

LATENT_DIGITS = 4  # after the point, far below what changes a pixel


@dataclass(frozen=True, eq=False)
class Answer:
    """Words, images uint8 (H, W, 3) and their codes or latents; `earlier` has the answers of turns
    before.
    """

    text: str
    images: tuple[np.ndarray, ...] = ()
    codes: tuple[tuple[int, ...], ...] = ()
    earlier: tuple["Answer", ...] = ()
    latents: tuple[tuple[float, ...], ...] = ()
    """Of each image in reading order, to LATENT_DIGITS digits."""

    @classmethod
    def of(cls, parts: Sequence[Part], earlier: tuple["Answer", ...] = ()) -> Self:
        """Return the answer that a reply's parts make: texts joined by spaces, images in order.

        Every image has both pixels and codes, or pixels and latents.
        """
        text = " ".join(part.text.strip() for part in parts if isinstance(part, Text)).strip()
        drawn = [part for part in parts if isinstance(part, Image)]
        images = tuple(image.pixels for image in drawn if image.pixels is not None)
        codes = tuple(
            tuple(image.codes.ravel().tolist()) for image in drawn if image.codes is not None
        )
        latents = tuple(
            tuple(image.latents.astype(float).round(LATENT_DIGITS).ravel().tolist())
            for image in drawn
            if image.latents is not None
        )
        whole = len(images) == len(codes) + len(latents) == len(drawn)
        assert whole, "an image lacks its pixels, or its codes or latents"
        return cls(text, images, codes, earlier, latents)

    def kept(self) -> dict[str, Any]:
        """Return what a prediction keeps of all images, those of earlier answers first, so that
        they can be judged again: `codes`, or `latents` where the model has no codes.
        """
        whole = (*self.earlier, self)
        latents = [list(one) for answer in whole for one in answer.latents]
        codes = [list(one) for answer in whole for one in answer.codes]
        return {"latents": latents} if latents else {"codes": codes}


def kept_image(model: Model, content: Sequence[Any]) -> Image:
    """Return the image that a model drew from what a prediction keeps of it (`Answer.kept`)."""
    content_nX = np.array(content).reshape(model.grid.size, -1)
    made: Any = {model.codec.content: content_nX}
    return Image(**made, grid=model.grid, codec_hash=model.codec.hash)
