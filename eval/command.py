"""`unimodal eval`: the scores of a model, with every prediction kept.

unimodal eval scenes --samples 200 --json scores.json --contact-sheet sheet.png
unimodal eval tokenizer --tokenizer out/tokenizer --samples 1000 --json ceiling.json
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

EVAL_SEED = 1_000_003  # training takes its scenes from other seeds
NUM_SHEET_SCENES = 48
OUT_FILE = click.Path(dir_okay=False, path_type=Path)
IN_PATH = click.Path(path_type=Path)


def option(name: str, default: object, words: str, kind: click.ParamType | type | None = None):
    """A click option that shows its default."""
    return click.option(name, default=default, show_default=True, help=words, type=kind)


@contextmanager
def user_errors() -> Iterator[None]:
    """Show what is the user's to mend (wrong value, missing file, full disk) in one line."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error


@click.group(name="eval")
def eval_() -> None:
    """Measure a model; every prediction is kept."""


@eval_.command("tokenizer")
@click.option(
    "--model", type=IN_PATH, help="Measure this bundle's tokenizer [default: the shipped one]."
)
@click.option("--tokenizer", "folder", type=IN_PATH, help="Measure the tokenizer in this folder.")
@option("--samples", 1000, "Held-out scenes.", click.IntRange(1))
@option("--seed", EVAL_SEED, "Seed of the scenes.", click.IntRange(0))
@option("--canvas", 64, "Pixels a side.", click.IntRange(64, 512))
@option("--batch-size", 32, "Pictures at a time.", click.IntRange(1))
@click.option("--json", "json_file", type=OUT_FILE, help="Write scores and predictions here.")
@click.option("--markdown", type=OUT_FILE, help="Write the table here.")
@click.option(
    "--contact-sheet", type=OUT_FILE, help="Write a PNG of originals and reconstructions here."
)
def tokenizer_(
    model: Path | None,
    folder: Path | None,
    samples: int,
    seed: int,
    canvas: int,
    batch_size: int,
    json_file: Path | None,
    markdown: Path | None,
    contact_sheet: Path | None,
) -> None:
    """What an image tokenizer keeps of held-out scenes."""
    if model is not None and folder is not None:
        raise click.UsageError("give --model or --tokenizer, not both")
    import unimodal
    from unimodal.tokenizer.autoencoder import ImageTokenizer

    from . import report, score
    from .tokenizer import cells, tokenizer_ceiling

    with user_errors():
        tokenizer = ImageTokenizer.load(folder) if folder else unimodal.load(model).tokenizer
        result = tokenizer_ceiling(tokenizer, samples, seed, canvas, batch_size)
        result["recipe"] = score.recipe(
            evaluation="tokenizer",
            tokenizer=tokenizer.hash,
            seed=seed,
            samples=samples,
            resolution=canvas,
        )
        report.show("tokenizer", result, json_file, markdown)
        if contact_sheet:
            shown = cells(tokenizer, result["predictions"][:NUM_SHEET_SCENES], seed, canvas)
            report.save_sheet(report.contact_sheet(shown), contact_sheet)
