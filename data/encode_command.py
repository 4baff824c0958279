"""The verb `unimodal data encode`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import options
from .folder import ENCODED, claim, data_seeds

if TYPE_CHECKING:
    from .encode import EncodeConfig, EncodedShard


@click.command()
@options.shards
@options.output
@click.option(
    "--tokenizer",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory of an image tokenizer, a bundle or a published model, or that model's id on "
    "the Hugging Face hub [default: the model that is shipped].",
)
@options.target_pixels(
    "Resize and crop images to about so many pixels in all [default: as they are]."
)
@options.max_aspect_ratio(
    "With --target-pixels: the largest ratio of the sides [default: 1, squares alone]."
)
@options.workers(1)
@options.bad_share("Share of samples that may be left out before the command stops.")
def encode(
    shards: str,
    output: Path,
    tokenizer: Path | None,
    target_pixels: int | None,
    max_aspect_ratio: float | None,
    workers: int,
    bad_share: float,
) -> None:
    """Encode the images in SHARDS into codes, once and for all: training then encodes none.

    SHARDS is a folder, one .tar file, a URL, or `pipe:` and a command; {000..123} stands for that
    many numbers. OUTPUT gets as many shards in the same order. Samples that cannot be encoded are
    left out and listed in OUTPUT/quarantine.jsonl. A stopped run goes on where it was: finished
    shards are kept. Another tokenizer or other settings need another folder.

    \b
    unimodal data encode shards/train shards/train-codes --workers 8
    unimodal data encode shards/photos shards/codes --target-pixels 65536 --max-aspect-ratio 2
    unimodal data encode 'https://host/{0000..0099}.tar' codes --tokenizer runs/tokenizer/tokenizer
    """
    from rich.console import Console
    from rich.progress import Progress

    from .encode import encode_shards
    from .remote import local_shards

    config = _config(tokenizer, target_pixels, max_aspect_ratio)
    paths = local_shards(shards)
    claim(output, ENCODED, config.note() | {"data_seeds": data_seeds(Path(shards))})
    notes = []
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("encoding shards", total=len(paths))
        try:
            for note in encode_shards(paths, output, config, workers, bad_share):
                notes.append(note)
                bar.advance(task)
        except OSError as error:
            again = "finished shards are kept: fix this and run the same command again"
            raise ValueError(f"{error}; {again}") from error
    click.echo(_summary(output, notes))


def _config(
    tokenizer: Path | None, target_pixels: int | None, max_aspect_ratio: float | None
) -> "EncodeConfig":
    """Return the settings; ValueError for impossible ones."""
    from unimodal.image_tokenizers import (
        SCALES,
        beyond_one_code,
        load_tokenizer,
        require_codes,
        tokenizer_directory,
    )

    from .encode import EncodeConfig
    from .sizes import rule_of

    directory = tokenizer_directory(tokenizer)
    image = load_tokenizer(directory)
    require_codes(image, directory)
    if (more := beyond_one_code(image)) not in ("", SCALES):
        raise ValueError(
            f"{directory} has {more}: shards hold one code at each place; encode files by"
            " `unimodal encode`"
        )
    rule = rule_of(target_pixels, max_aspect_ratio, image.geometry)
    return EncodeConfig(directory.absolute(), image.hash, rule)


def _summary(output: Path, notes: Sequence["EncodedShard"]) -> str:
    images, before, after, samples, bad = (
        sum(column)
        for column in zip(
            *(
                (n.images, n.image_bytes, n.code_bytes, n.samples, len(n.bad))
                for n in notes
            ),
            strict=True,
        )
    )  # fmt: skip
    left_out = f", {bad:,} left out: see quarantine.jsonl" if bad else ""
    return (
        f"{output}: {images:,} images in {len(notes):,} shards, {before:,} bytes before and "
        f"{after:,} after; {samples:,} samples{left_out}"
    )
