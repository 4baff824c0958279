"""`unimodal eval`: measures a model or a tokenizer and keeps every prediction.

unimodal eval scenes --samples 200 --json scores.json --contact-sheet sheet.png
unimodal eval tokenizer --tokenizer out/tokenizer --samples 1000 --json ceiling.json
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unimodal.data import options

if TYPE_CHECKING:
    from unimodal.image_tokenizers import FoundTokenizer

    from .report import Cell

EVAL_SEED = 1_000_003  # training takes its scenes from other seeds
NUM_SHEET_SCENES = 48
OUT_FILE = click.Path(dir_okay=False, path_type=Path)
IN_PATH = click.Path(path_type=Path)
WORLD_PARTS = ("drawing", "questions", "captions", "edits")
PARTS = (*WORLD_PARTS, "free", "counts", "refusals", "words", "chains")


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
@click.option(
    "--tasks", help=f"Comma-separated, out of {','.join(PARTS)}; or all [default: first four]."
)
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
    unimodal eval scenes --samples 50 --tasks free,counts,refusals,words,chains
    """
    parts = _parts(tasks)
    _check_device(device)
    import unimodal
    from unimodal.bundle import directory_of, save_bundle
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
        save_bundle(directory_of(model), replace(loaded, card=loaded.card | told))


@eval_.command("tokenizer")
@click.option(
    "--model", type=IN_PATH, help="A bundle's directory, or a run's [default: the shipped one]."
)
@click.option("--tokenizer", "folder", type=IN_PATH, help="Measure the one in this directory.")
@click.option(
    "--images", type=IN_PATH, multiple=True,
    help="Images of your own instead of scenes: a file, a folder of files or of shards, a shard; "
    "repeatable.",
)  # fmt: skip
@option("--samples", 1000, "Held-out scenes, or the first images.", click.IntRange(1))
@option("--canvas", 64, "Pixels a side of scenes.", click.IntRange(64, 512))
@options.target_pixels("Resize and crop --images to about so many pixels [default: as they are].")
@options.max_aspect_ratio("With --target-pixels: the largest ratio of the sides [default: 1].")
@options.bad_share("Share of --images that may be left out before the command stops.")
@click.option("--min-usage", type=click.FloatRange(0, 1), help="Fail below this share of codes.")
@outputs
@click.pass_context
def tokenizer_(
    ctx: click.Context,
    model: Path | None,
    folder: Path | None,
    images: tuple[Path, ...],
    min_usage: float | None,
    json: Path | None,
    markdown: Path | None,
    contact_sheet: Path | None,
    device: str,
    **settings: Any,
) -> None:
    """Measure what an image tokenizer keeps of held-out scenes, or of images of your own.

    \b
    unimodal eval tokenizer --samples 1000 --json ceiling.json
    unimodal eval tokenizer --model runs/tokenizer --images photos --target-pixels 65536
    unimodal eval tokenizer --model runs/tokenizer --images shards --min-usage 0.5
    """
    if model is not None and folder is not None:
        raise click.UsageError("give --model or --tokenizer, not both")
    _refuse_ignored(ctx, bool(images))
    _check_device(device)
    from unimodal.image_tokenizers import find_tokenizer
    from unimodal.transcript import save_image

    from .report import contact_sheet as sheet_of
    from .report import recipe_line, show

    found = find_tokenizer(folder or model)
    found.tokenizer.to(device)
    measure = _of_images if images else _of_scenes
    report, cells = measure(found, images, NUM_SHEET_SCENES if contact_sheet else 0, **settings)
    show("tokenizer", report, json, markdown)
    click.echo(f"code usage: {recipe_line(report['usage'])}")
    if contact_sheet:
        save_image(sheet_of(cells), contact_sheet)
    share = report["usage"]["share"]
    if min_usage is not None and share < min_usage:
        raise ValueError(
            f"code usage {share:.3f} is below --min-usage {min_usage:g}: of "
            f"{report['usage']['num_codes']:,} codes {report['usage']['distinct']:,} occur in "
            f"{report['usage']['drawn']:,}; measure more --samples, or train with fewer levels or "
            "more varied images"
        )


def _refuse_ignored(ctx: click.Context, has_images: bool) -> None:
    """Raise UsageError for options that say nothing about what is measured."""
    ignored = (
        ("canvas", "seed") if has_images else ("target_pixels", "max_aspect_ratio", "bad_share")
    )
    for name in ignored:
        if ctx.get_parameter_source(name) != click.core.ParameterSource.DEFAULT:
            what = "scenes, not of --images" if has_images else "--images, which are not given"
            raise click.UsageError(f"--{name.replace('_', '-')} is of {what}: leave it out")


def _of_scenes(
    found: "FoundTokenizer", images: tuple[Path, ...], num_cells: int, samples: int, canvas: int,
    seed: int, batch_size: int, **others: Any,
) -> "tuple[dict[str, Any], list[Cell]]":  # fmt: skip
    """Measure a tokenizer on held-out scenes."""
    from .score import recipe
    from .tokenizer import cells, refuse_training_seed, tokenizer_ceiling

    refuse_training_seed(found.card, seed)
    report = tokenizer_ceiling(found.tokenizer, samples, seed, canvas, batch_size)
    report["recipe"] = recipe(
        evaluation="tokenizer",
        tokenizer=found.tokenizer.hash,
        seed=seed,
        samples=samples,
        resolution=canvas,
    )
    shown = report["predictions"][:num_cells]
    return report, cells(found.tokenizer, shown, seed, canvas) if shown else []


def _of_images(
    found: "FoundTokenizer", images: tuple[Path, ...], num_cells: int, samples: int,
    batch_size: int, target_pixels: int | None, max_aspect_ratio: float | None, bad_share: float,
    **others: Any,
) -> "tuple[dict[str, Any], list[Cell]]":  # fmt: skip
    """Measure a tokenizer on images of the user's own."""
    from unimodal.data.sizes import rule_of

    from .own_images import image_cells, image_scores, read_images
    from .score import recipe

    rule = rule_of(target_pixels, max_aspect_ratio, found.tokenizer.geometry.patch)
    own = read_images(images, samples, rule, found.tokenizer, bad_share)
    click.echo(own.line(), err=True)
    report = image_scores(found.tokenizer, own, batch_size)
    report["recipe"] = recipe(
        evaluation="tokenizer",
        tokenizer=found.tokenizer.hash,
        images=own.digest,
        samples=len(own.pixels),
        target_pixels=target_pixels,
        max_aspect_ratio=max_aspect_ratio,
    )
    return report, image_cells(found.tokenizer, own, num_cells) if num_cells else []


def _parts(tasks: str | None) -> tuple[str, ...]:
    """Return the parts named, in the order of PARTS; UsageError for others."""
    named = WORLD_PARTS if tasks is None else PARTS if tasks == "all" else tuple(tasks.split(","))
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
