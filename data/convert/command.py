"""The verb `unimodal data convert`: write a table as shards."""

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import options
from .columns import ASKED, CONVERSATIONS, NEEDED, PAIRS, Columns, detect_columns

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..quarantine import Quarantine
    from ..shards import ShardWriter
    from .convert import Outcome
    from .table import Table

QUARANTINE = "quarantine.jsonl"  # in the folder: the rows that have no sample


def _column_options(command: Any) -> Any:
    """Add --image, --caption, ...: the column of each role."""
    for role in reversed(tuple(ASKED)):
        words = f"The column of {ASKED[role]}."
        command = click.option(f"--{role}", metavar="COLUMN", multiple=role == "image", help=words)(
            command
        )
    return command


@click.command()
@click.argument("source")
@options.output
@_column_options
@click.option(
    "--images",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="The folder that paths of images are relative to and may not leave "
    "[default: the folder of SOURCE].",
)
@click.option("--format", type=click.Choice(tuple(NEEDED)), help="Read every row as this format.")
@click.option(
    "--captions",
    type=click.Choice((CONVERSATIONS, PAIRS)),
    help="What an image and its caption become: a request to draw it or a question what it shows, "
    "in many phrasings, or the bare pair, which teaches no turns of a chat "
    f"[default: {CONVERSATIONS}].",
)
@options.shard_samples
@options.bad_share(
    f"The share of rows that may be unusable; they are listed in OUTPUT/{QUARANTINE}."
)
def convert(
    source: str,
    output: Path,
    images: Path | None,
    format: str | None,
    captions: str | None,
    shard_samples: int,
    bad_share: float,
    **columns: str | tuple[str, ...] | None,
) -> None:
    """Write the table SOURCE as shards into the folder OUTPUT.

    SOURCE is a folder of images with a .txt or .json of the same name beside each, or with a
    metadata.csv or metadata.jsonl that has their file_name, a folder of texts, .csv, .tsv, .jsonl,
    .json (a list), .parquet, a folder of `save_to_disk`, or hf:NAME[:SPLIT] of the Hugging Face
    hub. Columns of usual names (image, caption, question, answer, conversations, ...) are found by
    themselves; docs/formats.md has an example of each.

    \b
    unimodal data convert photos shards/photos
    unimodal data convert table.csv shards/table --image file --caption title
    unimodal data convert llava.json shards/llava --images coco/train2017
    unimodal data convert edits.jsonl shards/edits --before old --after new --instruction words
    unimodal data convert hf:lambdalabs/naruto-blip-captions shards/naruto
    """
    from ..fields import is_foreign
    from ..quarantine import Quarantine
    from ..shards import ShardWriter
    from .convert import converted, open_table

    asked = {
        role: (named,) if isinstance(named, str) else named
        for role, named in columns.items()
        if named
    }
    if captions is not None and format not in (None, "caption"):
        raise ValueError(f"--captions {captions}: the format {format} has none, leave it out")
    _claim(output)
    table = open_table(source, images, format)
    if table.names is not None and not is_foreign(table.names):  # told before a row is read
        click.echo(f"reading {detect_columns(table.names, asked, table.typed, format)}", err=True)
    output.mkdir(parents=True, exist_ok=True)
    (output / QUARANTINE).unlink(missing_ok=True)  # of a run that wrote no shard
    quarantine = Quarantine(output / QUARANTINE, bad_share, "--bad-share")
    with ShardWriter(output, shard_samples) as writer:
        outcomes = converted(table, asked, format, captions or CONVERSATIONS)
        read, num_bare = _write(outcomes, table, writer, quarantine)
    for found, count in read.items():
        click.echo(f"read {count:,} rows as {found}", err=True)
    if num_bare:
        click.echo(f"{num_bare:,} rows have no image: their image column is empty", err=True)
    if note := _of_captions({found.format for found in read}, captions):
        click.echo(note, err=True)
    if table.note:
        click.echo(table.note, err=True)
    where = f" (see {output / QUARANTINE})" if len(quarantine) else ""
    click.echo(
        f"{output}: {read.total():,} samples in {writer.number} shards "
        f"({_by_format(read)}), {len(quarantine):,} bad{where}"
    )


def _of_captions(formats: set[str], asked: str | None) -> str:
    """Say what became of captions, and what else they could become."""
    if "request" in formats:
        return (
            "captions are written as conversations: requests to draw the image, and questions what "
            f"it shows (--captions {PAIRS} writes bare pairs)"
        )
    if "caption" in formats:
        return (
            "captions are written as bare pairs, which teach no turns of a chat "
            f"(--captions {CONVERSATIONS} does)"
        )
    return f"--captions {asked}: there are no captions" if asked else ""


def _by_format(read: "Counter[Columns]") -> str:
    """Say how many samples are of which format."""
    formats: Counter[str] = Counter()
    for columns, count in read.items():
        formats[columns.format] += count
    return (
        ", ".join(f"{count:,} {format}" for format, count in sorted(formats.items())) or "nothing"
    )


def _claim(output: Path) -> None:
    """ValueError where the folder holds shards."""
    if any(output.glob("*.tar")):
        raise ValueError(f"{output} holds shards already: give another folder, or remove it")


def _write(
    outcomes: "Iterable[Outcome]", table: "Table", writer: "ShardWriter", quarantine: "Quarantine"
) -> "tuple[Counter[Columns], int]":
    """Write every row that has a sample.

    Return how many were read as what, and how many have an image column and no image in it.
    ShardError where too many are bad.
    """
    from ..lengths import Bad

    read: Counter[Columns] = Counter()
    rows = num_bare = 0
    with click.progressbar(length=table.length, label="rows", file=sys.stderr) as bar:
        for outcome in outcomes:
            rows += 1
            if isinstance(outcome.sample, Bad):
                quarantine.add_read([outcome.sample], rows)
            else:
                assert outcome.columns is not None, "a sample was read from columns"
                writer.write_files(outcome.sample.key, outcome.sample.files)
                read[outcome.columns] += 1
                num_bare += bool(outcome.columns["image"]) and not outcome.sample.image_files
            bar.update(outcome.position - bar.pos)
    if not rows:
        raise ValueError(f"{table.source} holds no rows")
    quarantine.settle(rows)
    return read, num_bare
