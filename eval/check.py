"""`unimodal eval check`: compares our scorers with outputs of the official programs.

A scorer joins by a line in NAMES: its module has `compare`, from the content of a file of vectors
to their number and the disagreements in words.
"""

from importlib import import_module
from pathlib import Path

import click

from .options import IN_FILE

NAMES = {"vqa": ".vqa.golden"}
MOST_TOLD = 20


@click.command("check")
@click.argument("name", type=click.Choice(list(NAMES)))
@click.argument("file", type=IN_FILE)
def check_(name: str, file: Path) -> None:
    """Run FILE, golden vectors for the scorer NAME, and fail on any disagreement.

    \b
    unimodal eval check vqa golden_vectors.json
    """
    from .vqa.source import read_json

    try:
        count, wrong = import_module(NAMES[name], __package__).compare(read_json(file))
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    if count == 0:
        raise ValueError(f"{file} holds no vectors")
    if wrong:
        told = "\n".join(wrong[:MOST_TOLD])
        raise ValueError(f"{file}: {len(wrong)} of {count} vectors disagree:\n{told}")
    click.echo(f"{name}: all {count} vectors agree")
