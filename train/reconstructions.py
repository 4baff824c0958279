"""Originals beside what comes back of them, for people to look at while a tokenizer is trained."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from unimodal.codec import ImageCodec
from unimodal.data.sheet import Cell, Paragraph, Strip, sheet
from unimodal.document import Image
from unimodal.eval.reconstruction import psnr
from unimodal.tokenizer.autoencoder import ImageTokenizer

from .engine import Engine

COLUMNS = 8


@contextmanager
def averaged(engine: Engine) -> Iterator[ImageTokenizer]:
    """Give the tokenizer with its averaged weights, where the engine keeps some, to be used and not
    to be trained; afterwards it is what it was.
    """
    model: ImageTokenizer = engine.learner.model
    named = dict(model.named_parameters())
    kept = {name: one.detach().clone() for name, one in named.items() if name in engine.ema}
    grads = {name: one.requires_grad for name, one in named.items()}
    with torch.no_grad():
        for name in kept:
            named[name].copy_(engine.ema[name])
    model.eval()
    try:
        yield model
    finally:
        model.train()
        with torch.no_grad():
            for name, value in kept.items():
                named[name].copy_(value)
        for name, requires in grads.items():
            named[name].requires_grad_(requires)


def write_sheet(path: Path, model: ImageTokenizer, originals: Sequence[np.ndarray]) -> None:
    """Write a PNG of originals, uint8 (H, W, 3), beside their reconstructions, with their PSNR."""
    codec = ImageCodec(model, next(iter(model.state_dict().values())).device)
    encoded = codec.encode([Image(pixels=pixels) for pixels in originals])
    decoded = codec.decode([replace(image, pixels=None) for image in encoded])
    cells: list[Cell] = [
        [Strip((original, image.pixels)), Paragraph(f"{psnr(original, image.pixels):.1f} dB")]
        for original, image in zip(originals, decoded, strict=True)
        if image.pixels is not None
    ]
    path.parent.mkdir(exist_ok=True)
    sheet(cells, COLUMNS).save(path)
