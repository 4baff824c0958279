"""The codec encodes pixels of documents' images to codes or latents, and decodes these to pixels.

It is the only place where this is done: chat, loader, evaluation and commands all use it.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch

from unimodal.tokenizer.codec import Codec
from unimodal.tokenizer.pixels import Opened, Source, fit, open_image, to_images, to_tensor

from .document import Document, Image
from .families.fits import Fit
from .threads import enough_threads

GREY = 128  # of pixels that are not drawn yet
IMAGES_AT_ONCE = 64  # in one call of the image tokenizer


class ImageCodec:
    """An ImageCodec applies a frozen image tokenizer to images of documents, on a device."""

    def __init__(self, tokenizer: Codec, device: torch.device | str = "cpu") -> None:
        """Move the tokenizer to the device and freeze its weights."""
        if isinstance(tokenizer, torch.nn.Module):
            tokenizer.to(device).eval().requires_grad_(False)
        weights = tokenizer.parameters() if isinstance(tokenizer, torch.nn.Module) else ()
        self._num_weights = sum(one.numel() for one in weights)
        self.image_tokenizer, self.device = tokenizer, torch.device(device)
        self.hash, self.geometry = tokenizer.hash, tokenizer.geometry
        self.num_codes, self.latent_width = tokenizer.num_codes, tokenizer.latent_width

    @property
    def content(self) -> Literal["codes", "latents"]:
        """Return the field of an image that the tokenizer makes."""
        return "latents" if self.latent_width else "codes"

    @torch.no_grad()
    def encode(self, images: Sequence[Image]) -> list[Image]:
        """Return the images, of any mix of sizes, with codes or latents beside their pixels; those
        that have what this codec makes stay as they are, and equal pixels are encoded once. What
        another codec made of the pixels goes; ValueError where there is nothing else.
        """
        encoded, found = list(images), {}
        missing = [at for at, image in enumerate(images) if not self._is_encoded(image)]
        pixels = {at: self._pixels(images[at]) for at in missing}
        keys = {at: (one.shape, one.tobytes()) for at, one in pixels.items()}
        firsts = {key: at for at, key in reversed(keys.items())}
        for numbers in _alike(list(firsts.values()), lambda at: keys[at][0]):
            images_BCHW = to_tensor([pixels[at] for at in numbers]).to(self.device)
            with enough_threads(self._flops(images_BCHW.shape), once=True):
                content_BnX, grid = self.image_tokenizer.encode(images_BCHW)
            for at, content_nX in zip(numbers, content_BnX.cpu().numpy(), strict=True):
                found[keys[at]] = content_nX, grid
        for at in missing:
            content_nX, grid = found[keys[at]]
            is_own = images[at].codec_hash == self.hash
            kept: dict[str, Any] = {} if is_own else {"codes": None, "latents": None}
            made = kept | {self.content: content_nX.copy(), "grid": grid}
            encoded[at] = replace(images[at], **made, codec_hash=self.hash, stored=None)
        return encoded

    @torch.no_grad()
    def decode(self, images: Sequence[Image]) -> list[Image]:
        """Return the images with pixels beside their codes or latents; those with pixels are
        unchanged.

        Raise ValueError where an image has nothing that can be decoded, or is of another codec.
        """
        decoded = list(images)
        missing = [at for at, image in enumerate(images) if image.pixels is None]
        contents = {at: self._content(images[at]) for at in missing}
        for numbers in _alike(missing, lambda at: (images[at].grid, len(contents[at]))):
            content_BnX = torch.from_numpy(np.stack([contents[at] for at in numbers]))
            grid = images[numbers[0]].grid
            assert grid is not None, "what is decoded has a grid"
            shape = len(numbers), 3, *self.geometry.size_of(grid)
            with enough_threads(self._flops(shape), once=True):
                images_BCHW = self.image_tokenizer.decode(content_BnX.to(self.device), grid)
            for at, image in zip(numbers, to_images(images_BCHW), strict=True):
                decoded[at] = replace(images[at], pixels=np.asarray(image))
        return decoded

    def decode_partial(self, image: Image, known: np.ndarray | None) -> np.ndarray:
        """Return the pixels, uint8 (H, W, 3), of an image that is being drawn.

        known: which of its codes stand for something, bool (n,), the others being grey, where each
        has pixels of its own; None: all do. Both are those of an ImageProgress.
        """
        (decoded,) = self.decode([image])
        assert decoded.pixels is not None and decoded.grid is not None, "it was decoded"
        grid, patch = decoded.grid, self.geometry.patch
        if known is None or self.geometry.size_of(grid) != (
            grid.height * patch,
            grid.width * patch,
        ):
            return decoded.pixels
        known_hw = known.reshape(grid.height, grid.width)
        known_HW = known_hw.repeat(patch, axis=0).repeat(patch, axis=1)
        return np.where(known_HW[..., None], decoded.pixels, GREY).astype(np.uint8)

    def _flops(self, shape: Sequence[int]) -> float:
        """Return how many operations images (B, C, H, W) take: two for each weight and patch."""
        num_images, _, height, width = shape
        return 2.0 * self._num_weights * num_images * height * width / self.geometry.patch**2

    def encode_document(self, document: Document) -> Document:
        """Return the document with all its images encoded (see `encode`)."""
        return self.encode_documents([document])[0]

    def encode_documents(self, documents: Sequence[Document]) -> list[Document]:
        """Return the documents with all their images encoded, together (see `encode`)."""
        return _with_images(documents, self.encode)

    def decode_document(self, document: Document) -> Document:
        """Return the document with all its images decoded (see `decode`)."""
        return self.decode_documents([document])[0]

    def decode_documents(self, documents: Sequence[Document]) -> list[Document]:
        """Return the documents with all their images decoded, together (see `decode`)."""
        return _with_images(documents, self.decode)

    def _is_encoded(self, image: Image) -> bool:
        return getattr(image, self.content) is not None and image.codec_hash == self.hash

    def _content(self, image: Image) -> np.ndarray:
        content = getattr(image, self.content)
        if content is None:
            raise ValueError(f"an image needs {self.content} before it can be decoded")
        self._check(image)
        return content.astype(np.float32 if self.latent_width else np.int64)

    def _pixels(self, image: Image) -> np.ndarray:
        if image.pixels is None:
            if getattr(image, self.content) is not None:
                self._check(image)
            raise ValueError("an image needs pixels before it can be encoded")
        return image.pixels

    def _check(self, image: Image) -> None:
        if image.codec_hash != self.hash:
            raise ValueError(
                f"{self.content} of tokenizer {image.codec_hash}, but this one is {self.hash}: "
                "encode the image again"
            )


def _with_images(
    documents: Sequence[Document], turn: Callable[[list[Image]], list[Image]]
) -> list[Document]:
    """Return the documents with their images replaced by what `turn` makes of all of them."""
    parts = [part for document in documents for part in document.parts]
    turned = iter(turn([part for part in parts if isinstance(part, Image)]))
    return [
        Document(
            tuple(next(turned) if isinstance(part, Image) else part for part in document.parts)
        )
        for document in documents
    ]


def _alike(numbers: Sequence[int], kind: Callable[[int], Hashable]) -> Iterator[list[int]]:
    """Yield the numbers in groups of equal kind, of at most IMAGES_AT_ONCE."""
    groups: dict[Hashable, list[int]] = {}
    for number in numbers:
        groups.setdefault(kind(number), []).append(number)
    for members in groups.values():
        for start in range(0, len(members), IMAGES_AT_ONCE):
            yield members[start : start + IMAGES_AT_ONCE]


def fitted(
    source: Source | Opened, size: tuple[int, int], own_fit: Fit | None = None
) -> tuple[np.ndarray, list[str]]:
    """Open an image that is not open yet, resize and crop it to `size`, (width, height) in pixels,
    and return its pixels and notes on what was done to it. own_fit: what resizes it in place of
    that. Raise ImageError where it cannot be used.
    """
    opened = source if isinstance(source, Opened) else open_image(source)
    notes, old = list(opened.notes), opened.image.size
    if own_fit is not None:
        image = own_fit(opened.image)
        if image.size != old:
            sides = f"{old[0]} x {old[1]} to {image.width} x {image.height} pixels"
            notes.append(f"fitted from {sides}")
        return np.asarray(image), notes
    if old != size:
        cropped = " and cropped" if old[0] * size[1] != old[1] * size[0] else ""
        sides = f"{old[0]} x {old[1]} to {size[0]} x {size[1]} pixels"
        notes.append(f"resized{cropped} from {sides}")
    return np.asarray(fit(opened.image, size)), notes
