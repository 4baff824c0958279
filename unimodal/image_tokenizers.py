"""Find an image tokenizer: in a bundle, in a folder that a run has written, or in the run's own."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unimodal.tokenizer.autoencoder import CONFIG, WEIGHTS, ImageTokenizer

from . import bundle, manifest
from .card import TOKENIZER_HASH, read_card
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
    directory = tokenizer_directory(path)
    if (directory / MANIFEST).exists() or not (directory / CONFIG).is_file():
        model = bundle.load(path)
        return FoundTokenizer(model.codec, model.image_tokenizer, model.card, model.canvas)
    tokenizer = load_tokenizer(directory)
    return FoundTokenizer(ImageCodec(tokenizer), tokenizer, read_card(directory), None)


def load_tokenizer(name: str | Path | None) -> ImageTokenizer:
    """Return the image tokenizer that is meant by a name (see `tokenizer_directory`).

    ValueError where there is none, and where its files are not those that were saved, as far as a
    manifest or a card beside them tells.
    """
    directory = tokenizer_directory(name)
    if (directory / MANIFEST).is_file():
        files = manifest.read(directory)
        for file in (CONFIG, WEIGHTS):
            manifest.check_file(directory / file, files[file])
    tokenizer = ImageTokenizer.load(directory)
    noted = read_card(directory).get(TOKENIZER_HASH, tokenizer.hash)
    if noted != tokenizer.hash:
        raise ValueError(
            f"{directory} does not hold the image tokenizer that was trained there "
            f"({tokenizer.hash[:12]} instead of {noted[:12]}): its files are damaged, put them back"
        )
    return tokenizer


def tokenizer_directory(name: str | Path | None) -> Path:
    """Return the directory whose image tokenizer is meant: a bundle (None or `default`: the one
    that is shipped), a tokenizer alone, or `tokenizer` in the folder of a run that trained one.
    """
    directory = bundle.directory_of(name)
    trained = directory / "tokenizer"
    is_run = (trained / CONFIG).is_file() and not (directory / CONFIG).is_file()
    return trained if is_run else directory
