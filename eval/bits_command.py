"""`unimodal eval bits`: how many bits a model needs for held-out text and images."""

from pathlib import Path

import click

from unimodal.finite_range import FiniteRange

from .options import IN_PATH, check_device, files, option


@click.command("bits")
@click.argument("documents", type=click.Path(exists=True, path_type=Path), nargs=-1, required=True)
@click.option("--model", type=IN_PATH, help="A bundle's directory [default: the shipped one].")
@click.option("--samples", type=click.IntRange(1), help="The first so many [default: all].")
@click.option("--target-pixels", type=click.IntRange(1), help="Of an image [default: the model's].")
@option("--max-aspect-ratio", 1.0, "Of an image, which is cropped to it; 1: squares.",
        FiniteRange(1))  # fmt: skip
@option("--batch-size", 8, "Documents at a time.", click.IntRange(1))
@files
def bits_(
    documents: tuple[Path, ...],
    model: Path | None,
    samples: int | None,
    target_pixels: int | None,
    max_aspect_ratio: float,
    batch_size: int,
    device: str,
    json: Path | None,
    markdown: Path | None,
) -> None:
    """Measure bits per byte of text and per image code of DOCUMENTS: shards, or files of text.

    \b
    unimodal eval bits shards/held_out --json bits.json
    unimodal eval bits book.txt --model runs/lm
    """
    check_device(device)
    from itertools import islice

    import unimodal
    from unimodal.data.sizes import of_canvas

    from .bits import bits, documents_of
    from .results.shown import show
    from .score import recipe

    loaded = unimodal.load(model, device)
    patch = loaded.image_tokenizer.geometry.patch
    rule = of_canvas(loaded.canvas, patch, target_pixels, max_aspect_ratio)
    report = bits(loaded, list(islice(documents_of(documents, rule), samples)), batch_size)
    report["recipe"] = recipe(
        evaluation="bits", model=loaded.hash, tokenizer=loaded.image_tokenizer.hash,
        target_pixels=rule.target_pixels, max_aspect_ratio=rule.max_aspect_ratio,
        **report.pop("settings"),
    )  # fmt: skip
    show("bits", report, json, markdown)
