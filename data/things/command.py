"""The verb `unimodal data things`: make the table of icons that drawings and talk of things use."""

from pathlib import Path

import click

from .. import options


@click.command()
@options.output
@click.option(
    "--packages",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="A folder with the .tgz files of `npm pack`; without it they are fetched from npm.",
)
@click.option(
    "--side",
    type=click.IntRange(32, 512),
    default=128,
    show_default=True,
    help="Pixels a side of a rendered icon.",
)
@click.option(
    "--shards",
    type=click.Path(path_type=Path, file_okay=False),
    help="Also write each icon in each style as a sample of shards into this folder.",
)
def things(output: Path, packages: Path | None, side: int, shards: Path | None) -> None:
    """Render 1,252 icons with names, in two styles, into the folder OUTPUT.

    They are those of @iconify-json/fluent-emoji-flat (MIT) that show no people, with their twins of
    @iconify-json/noto (Apache-2.0) and the keywords of emojilib (MIT). `unimodal data scenes
    --things OUTPUT` draws with them. Needs resvg-py: pip install unimodal[things].

    \b
    unimodal data things runs/things
    unimodal data things runs/things --packages folder/of/tgz
    unimodal data things runs/things --shards shards/icons
    """
    from .icon_shards import write_icon_shards
    from .table import Things, write_table

    number = write_table(output, packages, side)
    click.echo(f"{output}: {number:,} icons in two styles, {side} pixels a side")
    if shards is not None:
        written = write_icon_shards(Things(output), shards)
        click.echo(f"{shards}: {written:,} samples with icon, category and style")
