"""Find an image tokenizer: in a bundle, in a folder that a run has written, or in the run's own."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unimodal.tokenizer.autoencoder import CONFIG, ImageTokenizer

from . import bundle
from .card import read_card
from .codec import ImageCodec
from .manifest import MANIFEST


@dataclass(frozen=True, eq=False)
class FoundTokenizer:
    """An image tokenizer, ready to use."""

    codec: ImageCodec
    tokenizer: ImageTokenizer
    card: dict[str, Any]
    """Where it comes from; empty where nothing says it."""
    canvas: tuple[int, int] | None
    """Width and height in pixels of what its model draws; None for a tokenizer alone."""


def find_tokenizer(path: Path | None) -> FoundTokenizer:
    """Return the image tokenizer of a bundle (None or `default`: the one that is shipped), or of a
    run of `unimodal train tokenizer`: the run's folder, or the folder `tokenizer` in it.

    Raise ValueError where there is none, or where its files are damaged.
    """
    path = bundle.directory_of(path)
    directory = _of_run(path)
    if directory is None:
        model = bundle.load(path)
        return FoundTokenizer(model.codec, model.image_tokenizer, model.card, model.canvas)
    tokenizer = bundle.load_tokenizer(directory)
    return FoundTokenizer(ImageCodec(tokenizer), tokenizer, read_card(directory), None)


def _of_run(path: Path) -> Path | None:
    """Return the folder of an image tokenizer that is no part of a bundle; None for others."""
    for directory in (path, path / "tokenizer"):
        if (directory / CONFIG).is_file() and not (directory / MANIFEST).exists():
            return directory
    return None
