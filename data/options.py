"""Declare the arguments and options that several verbs of `unimodal data` share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from unimodal.finite_range import FiniteRange

Decorator = Callable[[Any], Any]

shards = click.argument("shards")
output = click.argument("output", type=click.Path(path_type=Path, file_okay=False))
shard_samples = click.option(
    "--shard-samples", type=click.IntRange(1), default=5000, show_default=True
)


def workers(default: int) -> Decorator:
    """Declare how many processes share the work."""
    words = "Processes. The bytes are the same for any number."
    kind = click.IntRange(1)
    return click.option("--workers", type=kind, default=default, show_default=True, help=words)


def bad_share(words: str) -> Decorator:
    """Declare how many samples may be bad before the command stops, of 1."""
    kind = FiniteRange(0, 1)
    return click.option("--bad-share", type=kind, default=0.01, show_default=True, help=words)


def target_pixels(words: str) -> Decorator:
    """Declare to about how many pixels images are resized and cropped."""
    return click.option("--target-pixels", type=click.IntRange(1), help=words)


def reading(command: Any) -> Any:
    """Declare how samples are read, where their files and fields do not say it: `format`, `fields`
    and `ignore`, as a source of a run has them.
    """
    for option in (
        click.option(
            "--ignore",
            metavar="EXTENSION",
            multiple=True,
            help="Files that are left unread: mask.png, cls; repeatable.",
        ),
        click.option(
            "--fields",
            metavar="ROLE=FIELD",
            multiple=True,
            help="The field of .json that fills a role, where it has an unusual name: "
            "caption=my_words; repeatable.",
        ),
        click.option("--format", help="Read every sample as this format."),
    ):
        command = option(command)
    return command


def max_aspect_ratio(words: str, default: float | None = None) -> Decorator:
    """Declare the largest ratio of an image's sides."""
    kind = FiniteRange(1)
    return click.option(
        "--max-aspect-ratio", type=kind, default=default, show_default=True, help=words
    )
