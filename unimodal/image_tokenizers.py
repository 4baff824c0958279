"""Find an image tokenizer: in a bundle, in a folder that a run has written, in the run's own, or
in a published model: a directory in Hugging Face's form, or an id of the hub.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unimodal.tokenizer import saved
from unimodal.tokenizer.codec import Codec
from unimodal.tokenizer.published import PublishedTokenizer
from unimodal.tokenizer.pyramid import PyramidConfig
from unimodal.tokenizer.saved import SavedTokenizer
from unimodal.tokenizer.stored_weights import CONFIG, WEIGHTS
from unimodal.tokenizer.tokenizer_config import TokenizerConfig, read_shape

from . import bundle, manifest
from .card import TOKENIZER_HASH, read_card
from .codec import ImageCodec
from .hub.checkpoint import HUB_ID, fetch
from .hub.image_checkpoint import fetch_image_tokenizer, read_image_config, read_image_tokenizer
from .hub.pickles import PICKLES, pickle_in, refusal
from .manifest import MANIFEST

SCALES = "scales"  # what a tokenizer has besides one grid


@dataclass(frozen=True, eq=False)
class FoundTokenizer:
    """An image tokenizer, ready to use."""

    codec: ImageCodec
    tokenizer: SavedTokenizer
    card: dict[str, Any]
    """Where it comes from; empty where nothing says it."""
    canvas: tuple[int, int] | None
    """Width and height in pixels of what its model draws, of what a published tokenizer was trained
    on, or of the only images that queries read; None for others of our own alone."""


def find_tokenizer(path: Path | None) -> FoundTokenizer:
    """Return the image tokenizer of a bundle (None or `default`: the one that is shipped), of a
    run of `unimodal train tokenizer` (the run's folder, or the folder `tokenizer` in it), or of a
    published model.

    Raise ValueError where there is none, or where its files are damaged.
    """
    path = tokenizer_directory(path)
    if _is_published(path):
        return _alone(read_image_tokenizer(path), {})
    directory = _of_run(path)
    if directory is None:
        model = bundle.load(path)
        return FoundTokenizer(model.codec, model.image_tokenizer, model.card, model.canvas)
    return _alone(load_tokenizer(directory), read_card(directory))


def _alone(tokenizer: SavedTokenizer, card: dict[str, Any]) -> FoundTokenizer:
    """Return a tokenizer that is no part of a bundle."""
    canvas = None
    if isinstance(tokenizer, PublishedTokenizer):
        height, width = tokenizer.geometry.canvas
        canvas = width, height
    elif tokenizer.config.queries is not None:
        canvas = tokenizer.config.queries.width, tokenizer.config.queries.height
    return FoundTokenizer(ImageCodec(tokenizer), tokenizer, card, canvas)


def tokenizer_directory(name: str | Path | None) -> Path:
    """Return the directory that is meant by a path, by `default` or None, or by an id of the hub,
    of which the image tokenizer is fetched. A path into a folder that is there is no such id.

    Raise ValueError for an id that the hub does not know, and for a pickle.
    """
    path = bundle.directory_of(name)
    if path.is_file() and path.suffix in PICKLES:
        raise ValueError(f"{path}: {refusal(path)}")
    return fetch_image_tokenizer(str(path)) if _is_hub_id(path) else path


def tokenizer_config(name: str | Path | None) -> TokenizerConfig | PyramidConfig | None:
    """Return the configuration of the image tokenizer that `load_tokenizer` would load, of which
    no weights are read or fetched; None where there is none yet.
    """
    path = bundle.directory_of(name)
    if _is_hub_id(path):
        path = fetch(str(path), ("config.json",))
    if _is_published(path):
        return read_image_config(path).config
    if not (path / CONFIG).exists():
        return None
    kind, fields = saved.read_kind(path)
    if kind is None:
        return read_shape(path / CONFIG)
    return kind.config_of(path, fields)


def load_tokenizer(name: str | Path | None) -> SavedTokenizer:
    """Return the image tokenizer in a directory, of a bundle, alone, or of a published model; or
    that of `default`, or of an id of the hub.

    ValueError where there is none, and where its files are not those that were saved, as far as a
    manifest or a card beside them tells.
    """
    directory = tokenizer_directory(name)
    if _is_published(directory):
        return read_image_tokenizer(directory)
    if (directory / MANIFEST).is_file():
        files = manifest.read(directory)
        for file in (CONFIG, WEIGHTS):
            manifest.check_file(directory / file, files[file])
    tokenizer = saved.load_tokenizer(directory)
    noted = read_card(directory).get(TOKENIZER_HASH, tokenizer.hash)
    if noted != tokenizer.hash:
        raise ValueError(
            f"{directory} does not hold the image tokenizer that was trained there "
            f"({tokenizer.hash[:12]} instead of {noted[:12]}): its files are damaged, put them back"
        )
    return tokenizer


def beyond_one_code(tokenizer: SavedTokenizer) -> str:
    """Return what a tokenizer has besides one code at each place of one grid; "" for nothing."""
    if tokenizer.num_groups > 1:
        return f"{tokenizer.num_groups} codes at each place"
    return SCALES if tokenizer.geometry.default_grid.scales else ""


def check_one_code(
    name: str | Path | None, tokenizer: SavedTokenizer, scales: bool = False
) -> None:
    """Raise ValueError for a tokenizer that no language model can read, or (`scales`) that none can
    with a head that reads several scales.
    """
    more = beyond_one_code(tokenizer)
    if scales and not more:
        raise ValueError(
            f"tokenizer {name}: it has one scale, and the image head draws several: train one with"
            " scales (model.quantizer.scales), or take model.head next_code"
        )
    if more and not (scales and more == SCALES):
        way_out = "train one with groups 1, residual 1 and no scales"
        if more == SCALES:
            way_out += ", or a model with model.head scale, which reads several"
        raise ValueError(
            f"tokenizer {name}: it has {more}, and a language model reads one code at each place of"
            f" one grid: {way_out}"
        )


def require_codes(tokenizer: Codec, whose: object) -> None:
    """Raise ValueError where a tokenizer makes latents and codes are asked for. whose: where it is
    from, for the message.
    """
    if tokenizer.latent_width:
        raise ValueError(
            f"{whose}: its image tokenizer makes latents, which the head flow learns, and no codes:"
            " give one that has a quantizer"
        )


def _is_hub_id(path: Path) -> bool:
    return bool(HUB_ID.fullmatch(path.as_posix())) and not (
        path.parts[0].startswith((".", "~")) or path.parent.exists()
    )


def _is_published(directory: Path) -> bool:
    """Return whether a directory holds a published model, or pickles that are none.

    Such a model's tokenizer.json is that of its text.
    """
    if (directory / MANIFEST).exists() or (directory / WEIGHTS).exists():
        return False
    return (directory / "config.json").is_file() or (
        directory.is_dir() and pickle_in(directory) is not None
    )


def _of_run(path: Path) -> Path | None:
    """Return the folder of an image tokenizer that is no part of a bundle; None for others."""
    for directory in (path, path / "tokenizer"):
        if (directory / CONFIG).is_file() and not (directory / MANIFEST).exists():
            return directory
    return None
