"""`unimodal eval check`: compares our scorers with outputs of the official programs.

A scorer joins by a line in NAMES: its module has `check`, from the path of a file of vectors to the
disagreements in words, which raises ValueError where the file holds no vectors.
"""

from importlib import import_module
from pathlib import Path

import click

from .options import IN_FILE

NAMES = {"geneval": ".geneval.check", "vqa": ".vqa.check"}
MOST_TOLD = 20


@click.command("check")
@click.argument("name", type=click.Choice(list(NAMES)))
@click.argument("file", type=IN_FILE)
def check_(name: str, file: Path) -> None:
    """Run FILE, golden vectors for the scorer NAME, and fail on any disagreement.

    \b
    unimodal eval check vqa golden_vectors.json
    """
    wrong = import_module(NAMES[name], __package__).check(file)
    if wrong:
        told = "\n".join(wrong[:MOST_TOLD])
        raise ValueError(f"{file}: {len(wrong)} disagreements with {name}:\n{told}")
    click.echo(f"{name}: agrees with every vector of {file}")
