"""Images as pixels and as codes: the one place where evaluations encode and decode."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from unimodal.document import Image
from unimodal.tokenizer.autoencoder import ImageTokenizer
from unimodal.tokenizer.pixels import to_images, to_tensor


def encode(tokenizer: ImageTokenizer, images: Sequence[Image]) -> list[Image]:
    """Return images of pixels uint8 (H, W, 3), all of one size, with codes int64 (n,) beside them.

    Raises ValueError when sizes differ or are not whole patches of the tokenizer.
    """
    device = next(tokenizer.parameters()).device
    pixels = [image.pixels for image in images if image.pixels is not None]
    assert len(pixels) == len(images), "an image without pixels was to be encoded"
    codes_Bn1, grid = tokenizer.encode(to_tensor(pixels).to(device))
    return [
        replace(image, codes=codes_n, grid=grid, tokenizer_hash=tokenizer.hash)
        for image, codes_n in zip(images, codes_Bn1[:, :, 0].cpu().numpy(), strict=True)
    ]


def decode(tokenizer: ImageTokenizer, images: Sequence[Image]) -> list[Image]:
    """Return images of codes (n,), all of one grid, with pixels uint8 (H, W, 3) beside them."""
    if not images:
        return []
    device, grid = next(tokenizer.parameters()).device, images[0].grid
    codes = [image.codes for image in images if image.codes is not None and image.grid == grid]
    assert grid is not None and len(codes) == len(images), "images to decode have codes of one grid"
    codes_Bn1 = torch.from_numpy(np.stack(codes).astype(np.int64))[:, :, None]
    decoded = to_images(tokenizer.decode(codes_Bn1.to(device), grid))
    return [
        replace(image, pixels=np.asarray(pixels))
        for image, pixels in zip(images, decoded, strict=True)
    ]
