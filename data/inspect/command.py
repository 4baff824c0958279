"""The verb `unimodal data inspect`: print what shards hold, and draw it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import options

if TYPE_CHECKING:
    from unimodal.model import Model

    from ..estimator import LengthEstimator
    from ..sources import SourceConfig

SHOWN_SIZES = 8  # of images in the table; the JSON has more


@click.command()
@options.shards
@click.option(
    "--json", "as_json", is_flag=True, help="All numbers as one line of JSON; tables to stderr."
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write a contact sheet and charts as PNG files into this folder.",
)
@click.option(
    "--samples",
    type=click.IntRange(1),
    default=24,
    show_default=True,
    help="On the contact sheet of --output.",
)
@options.target_pixels(
    "Pixels to about which images are resized and cropped [default: the model's drawings]."
)
@options.max_aspect_ratio("The largest ratio of an image's sides; 1: squares alone.", 4.0)
@click.option(
    "--sequence-length",
    type=click.IntRange(16),
    default=1024,
    show_default=True,
    help="Tokens of a packed sequence; longer documents are cut.",
)
@options.reading
def inspect(
    shards: str,
    as_json: bool,
    output: Path | None,
    samples: int,
    target_pixels: int | None,
    max_aspect_ratio: float,
    sequence_length: int,
    format: str | None,
    fields: tuple[str, ...],
    ignore: tuple[str, ...],
) -> None:
    """Say what SHARDS hold, before anything is trained on them: formats, bad samples, sizes of
    images, lengths of texts, tokens, and how full packed sequences are.

    SHARDS is a folder, one .tar file, a URL, or `pipe:` and a command; {000..123} stands for that
    many numbers. A document is a sample, or a piece of one that is longer than a sequence. Tokens
    are those of the model that is shipped. Bad samples are told of, never an error. --format,
    --fields and --ignore are those of a source of `train lm`.

    \b
    unimodal data inspect shards/train
    unimodal data inspect shards/photos --target-pixels 65536 --max-aspect-ratio 2 --output look
    unimodal data inspect shards --sequence-length 4096 --json > data.json
    unimodal data inspect 'laion/{00000..00009}.tar' --fields caption=my_caption
    """
    from unimodal import bundle

    from ..remote import local_shards
    from .inspect import inspect as inspected
    from .inspect import summary

    if output is not None and output.suffix.lower() == ".png":
        raise ValueError(f"--output {output}: the charts are several files; name a folder for them")
    source = _source(shards, format, fields, ignore)
    paths = local_shards(shards)
    model = bundle.load()
    found = inspected(
        paths, _estimator(model, source, target_pixels, max_aspect_ratio, sequence_length)
    )
    if missing := source.not_ignored(found.notes):
        raise ValueError(f"--ignore: no sample of {shards} has a file {', '.join(missing)}")
    numbers = summary(found)
    _print(numbers, to_stderr=as_json)
    if output is not None:
        from .views import write_views

        for path in write_views(found, model.codec, output, samples):
            click.echo(path, err=as_json)
    if as_json:
        click.echo(json.dumps(numbers))


def _source(
    shards: str, format: str | None, fields: tuple[str, ...], ignore: tuple[str, ...]
) -> "SourceConfig":
    """Return how the samples are read; ValueError for impossible options."""
    from ..sources import SourceConfig

    if wrong := [field for field in fields if not all(field.partition("="))]:
        raise ValueError(f"--fields {wrong[0]}: ROLE=FIELD, such as caption=my_words")
    named = {role: name for role, _, name in (field.partition("=") for field in fields)}
    source = SourceConfig(shards, format=format, fields=named, ignore=ignore)
    if problems := source.problems():
        raise ValueError("; ".join(f"--{problem.replace('s.', 's ', 1)}" for problem in problems))
    return source


def _estimator(
    model: "Model",
    source: "SourceConfig",
    target_pixels: int | None,
    max_aspect_ratio: float,
    sequence_length: int,
) -> "LengthEstimator":
    """Return what measures documents; ValueError for settings that cannot be."""
    from ..estimator import LengthEstimator
    from ..sizes import of_canvas

    geometry = model.image_tokenizer.geometry
    rule = of_canvas(model.canvas, geometry.patch, target_pixels, max_aspect_ratio)
    return LengthEstimator(
        model.sequencer, sequence_length, geometry, rule, source.format,
        ignore=source.ignore, fields=source.fields,
    )  # fmt: skip


def _print(numbers: dict[str, Any], to_stderr: bool) -> None:
    """Print the numbers as tables for people."""
    from rich.console import Console

    console = Console(stderr=to_stderr, highlight=False)
    for table in (_counts(numbers), _spreads(numbers), _bad(numbers["bad"])):
        if table.row_count:
            console.print(table)


def _table(title: str, *columns: str) -> Any:
    """Return an empty table whose first column is a name."""
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=number == 0)
    return table


def _counts(numbers: dict[str, Any]) -> Any:
    """Return the table of what there is of everything."""
    table = _table("what there is", "", "")
    table.show_header = False
    bad = sum(reason["count"] for reason in numbers["bad"].values())
    lines = {
        "shards": f"{numbers['shards']:,}, {numbers['bytes']:,} bytes",
        "samples": f"{numbers['samples']:,}, {bad:,} bad, {numbers['empty']:,} empty",
        "documents": f"{numbers['documents']:,}, {numbers['cut']:,} samples in several pieces",
        "left out": _listed(numbers["left_out"]),
        "unused files": _listed(numbers["unused_files"]),
        "formats": _listed(numbers["formats"]),
        "images": _images(numbers["images"]),
        "sizes": _sizes(numbers["images"]),
        "tokens": _tokens(numbers["tokens"]),
        "rows": _rows(numbers["rows"]),
    }
    for name, words in lines.items():
        table.add_row(name, _plain(words))
    return table


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items()) or "none"


def _images(images: dict[str, Any]) -> str:
    return f"{images['count']:,}, {images['codes']:,} as codes, {images['unreadable']:,} unreadable"


def _sizes(images: dict[str, Any]) -> str:
    shown = images["sizes"][:SHOWN_SIZES]
    words = [f"{width} x {height}: {count:,}" for width, height, count in shown]
    others = images["different_sizes"] - len(shown)
    return ", ".join([*words, *([f"{others:,} other sizes"] if others else [])]) or "none"


def _tokens(tokens: dict[str, Any]) -> str:
    shares = [f"{tokens[name]:,} {name} ({share:.1%})" for name, share in tokens["shares"].items()]
    return f"{tokens['total']:,}: {', '.join(shares)}"


def _rows(rows: dict[str, Any] | None) -> str:
    if rows is None:
        return "none"
    return (
        f"{rows['packed']:,} of {rows['length']:,}; {rows['packed_fill']:.1%} full when packed, "
        f"{rows['padded_fill']:.1%} when each document is padded to the longest: "
        f"{rows['packed_over_padded']:.2f} times as many useful tokens a slot"
    )


def _spreads(numbers: dict[str, Any]) -> Any:
    """Return the table of the least, the usual and the most of what has a size."""
    table = _table("how long and large", "", "min", "mean", "median", "95 %", "max")
    for column in table.columns[1:]:
        column.justify = "right"
    lines = {
        "tokens a document": numbers["positions"],
        "text tokens a document": numbers["text"]["tokens"],
        "characters a document": numbers["text"]["characters"],
        "image width": numbers["images"]["width"],
        "image height": numbers["images"]["height"],
        "image pixels": numbers["images"]["pixels"],
    }
    for name, spread in lines.items():
        if spread is not None:
            table.add_row(name, *map(_number, spread.values()))
    return table


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}".removesuffix(".0")


def _bad(reasons: dict[str, Any]) -> Any:
    """Return the table of how many are bad for each reason, and the first of them."""
    table = _table("bad samples, and the first of each reason", "reason", "count", "sample", "why")
    for reason, about in reasons.items():
        for number, bad in enumerate(about["first"]):
            head = ("", "") if number else (_plain(reason), f"{about['count']:,}")
            where = f"{Path(bad['shard']).name}, {bad['key'] or 'no key'}"
            table.add_row(*head, _plain(where), _plain(bad["message"]))
    return table


def _plain(words: str) -> Any:
    """Return words of an untrusted file without markup and without what a terminal obeys."""
    from rich.text import Text

    return Text("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in words))
