"""The verb `unimodal data digest`."""

import click

from unimodal.threads import one_thread


@click.command()
@click.argument("shards", required=False)
@click.option(
    "--world-size",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Ranks that share the rows. The digest is the same for any number.",
)
@click.option(
    "--from-row",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="The first row, counted over all ranks from the start of the run.",
)
@click.option("--rows", type=click.IntRange(1), required=True, help="How many rows.")
@click.option(
    "--config",
    help="A recipe of `train lm`, a file or one that is shipped by its name: its sources, loader, "
    "tokenizer and weights are used.",
)
def digest(
    shards: str | None, world_size: int, from_row: int, rows: int, config: str | None
) -> None:
    """Print one SHA-256 of what training sees of SHARDS: ids, labels, spans, positions, weights,
    crops and mirrors of some rows, as so many ranks produce them.

    A row is a packed sequence. Equal digests mean equal data: compare them across machines,
    versions and numbers of ranks. Without a recipe the sequence length is 1,024 tokens, the seed is
    0, the tokenizers are those of the model that is shipped, and images are read at about the size
    of its drawings. With a recipe SHARDS may be left out. The digest is the last line of standard
    output; notes go to standard error.

    \b
    unimodal data digest shards/train --rows 64
    unimodal data digest shards/train --world-size 8 --from-row 10000 --rows 64
    unimodal data digest --config scenes_lm --world-size 2 --rows 64
    """
    from .digest import batch_rows, feed
    from .digest import digest as digest_of

    made = feed(shards, config)
    click.echo(f"text tokenizer {made.sequencer.text_tokenizer.hash}", err=True)
    click.echo(f"image tokenizer {made.codec.hash}", err=True)
    per_batch = batch_rows(made.loader, world_size)
    last = from_row + rows - 1
    words = f"rows {from_row} to {last} by {world_size} ranks in batches of {per_batch}"
    click.echo(
        f"{words}, sequence_length {made.loader.sequence_length}, seed {made.loader.seed}", err=True
    )
    with one_thread():
        click.echo(digest_of(made, world_size, from_row, rows))
