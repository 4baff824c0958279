"""`unimodal eval`: measures a model or a tokenizer and keeps every prediction.

unimodal eval scenes --samples 200 --json scores.json --contact-sheet sheet.png
unimodal eval tokenizer --tokenizer out/tokenizer --samples 1000 --json ceiling.json
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

EVAL_SEED = 1_000_003  # training takes its scenes from other seeds
NUM_SHEET_SCENES = 48
OUT_FILE = click.Path(dir_okay=False, path_type=Path)
IN_PATH = click.Path(path_type=Path)
PARTS = ("drawing", "questions", "captions", "edits")


def option(name: str, default: Any, words: str, kind: click.ParamType) -> Callable[..., Any]:
    """Return a click option that shows its default."""
    return click.option(name, default=default, show_default=True, help=words, type=kind)


def outputs(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say where results go, and those that all evaluations share."""
    for add in (
        click.option("--contact-sheet", type=OUT_FILE, help="Write a PNG of samples here."),
        click.option("--markdown", type=OUT_FILE, help="Write the table here."),
        click.option("--json", type=OUT_FILE, help="Write scores and every prediction here."),
        option("--device", "cpu", "Where it runs: cpu, cuda, cuda:1 ...", click.STRING),
        option("--batch-size", 32, "Requests or images at a time.", click.IntRange(1)),
        option("--seed", EVAL_SEED, "Of scenes, requests and noise.", click.IntRange(0, 2**40)),
    ):
        command = add(command)
    return command


@click.group(name="eval")
def eval_() -> None:
    """Measure a model or a tokenizer, and keep every prediction."""


@eval_.command("scenes")
@click.option("--model", type=IN_PATH, help="A bundle's directory [default: the shipped one].")
@option("--samples", 100, "Requests of each task and kind.", click.IntRange(1))
@click.option("--tasks", help=f"Comma-separated, out of {','.join(PARTS)} [default: all].")
@click.option("--guidance", type=float, help="Of drawing; 1 is off [default: the model's].")
@click.option("--temperature", type=float, help="Of drawing [default: the model's].")
@click.option("--predictions", type=OUT_FILE, help="Keep predictions here as they come; resume.")
@click.option("--card", is_flag=True, help="Also write the scores into the model's card.")
@outputs
def scenes_(
    model: Path | None,
    samples: int,
    tasks: str | None,
    guidance: float | None,
    temperature: float | None,
    predictions: Path | None,
    card: bool,
    seed: int,
    batch_size: int,
    device: str,
    json: Path | None,
    markdown: Path | None,
    contact_sheet: Path | None,
) -> None:
    """Measure how well a model draws, answers, captions and edits in the world of scenes.

    \b
    unimodal eval scenes --samples 200 --json scores.json
    unimodal eval scenes --samples 50 --tasks drawing --guidance 3 --contact-sheet sheet.png
    unimodal eval scenes --samples 1000 --predictions predictions.jsonl
    """
    parts = _parts(tasks)
    _check_device(device)
    import unimodal
    from unimodal.bundle import DEFAULT, save_bundle
    from unimodal.transcript import save_image

    from .report import card_scores, recipe_line, show
    from .report import contact_sheet as sheet_of
    from .scenes import evaluate

    loaded = unimodal.load(model, device)
    sampling = loaded.sampling
    if guidance is not None:
        sampling = replace(sampling, guidance=guidance)
    if temperature is not None:
        sampling = replace(sampling, image_temperature=temperature)
    report, cells = evaluate(loaded, samples, seed, sampling, batch_size, parts, predictions)
    show("scenes", report, json, markdown)
    if contact_sheet:
        save_image(sheet_of(cells), contact_sheet)
    if card:
        told = {
            "scores": card_scores(report["scores"]),
            "scores_recipe": recipe_line(report["recipe"]),
        }
        save_bundle(model or DEFAULT, replace(loaded, card=loaded.card | told))


@eval_.command("tokenizer")
@click.option("--model", type=IN_PATH, help="Measure this bundle's [default: the shipped one].")
@click.option("--tokenizer", "folder", type=IN_PATH, help="Measure the one in this directory.")
@option("--samples", 1000, "Held-out scenes.", click.IntRange(1))
@option("--canvas", 64, "Pixels a side.", click.IntRange(64, 512))
@outputs
def tokenizer_(
    model: Path | None,
    folder: Path | None,
    samples: int,
    canvas: int,
    seed: int,
    batch_size: int,
    device: str,
    json: Path | None,
    markdown: Path | None,
    contact_sheet: Path | None,
) -> None:
    """Measure what an image tokenizer keeps of held-out scenes."""
    if model is not None and folder is not None:
        raise click.UsageError("give --model or --tokenizer, not both")
    _check_device(device)
    import unimodal
    from unimodal.card import read_card
    from unimodal.tokenizer.autoencoder import ImageTokenizer
    from unimodal.transcript import save_image

    from .report import contact_sheet as sheet_of
    from .report import recipe_line, show
    from .score import recipe
    from .tokenizer import cells, refuse_training_seed, tokenizer_ceiling

    if folder:
        measured, card = ImageTokenizer.load(folder), read_card(folder)
    else:
        loaded = unimodal.load(model)
        measured, card = loaded.image_tokenizer, loaded.card
    refuse_training_seed(card, seed)
    measured.to(device)
    report = tokenizer_ceiling(measured, samples, seed, canvas, batch_size)
    report["recipe"] = recipe(
        evaluation="tokenizer",
        tokenizer=measured.hash,
        seed=seed,
        samples=samples,
        resolution=canvas,
    )
    show("tokenizer", report, json, markdown)
    click.echo(f"code usage: {recipe_line(report['usage'])}")
    if contact_sheet:
        first = report["predictions"][:NUM_SHEET_SCENES]
        save_image(sheet_of(cells(measured, first, seed, canvas)), contact_sheet)


def _parts(tasks: str | None) -> tuple[str, ...]:
    """Return the parts named, in the order of PARTS; UsageError for others."""
    named = PARTS if tasks is None else tuple(tasks.split(","))
    unknown = [name for name in named if name not in PARTS]
    if unknown:
        raise click.UsageError(f"no tasks {', '.join(unknown)}: there are {', '.join(PARTS)}")
    return tuple(name for name in PARTS if name in named)


def _check_device(name: str) -> None:
    """Raise UsageError unless torch knows the device and it is there."""
    import torch

    try:
        torch.empty(0, device=name)
    except (
        RuntimeError,
        AssertionError,
    ) as error:  # a wrong name, no such device, no CUDA in torch
        raise click.UsageError(f"--device {name}: {error}; cpu is always there") from error
