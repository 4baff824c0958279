"""`unimodal eval`: measures a model or a tokenizer and keeps every prediction.

unimodal eval scenes --samples 200 --json scores.json --contact-sheet sheet.png
unimodal eval things --things runs/things --json things.json
unimodal eval tokenizer runs/tokenizer photos --json photos.json
unimodal eval geneval run drawn --prompts prompts.jsonl --json geneval.json
unimodal eval editing score drawn --edits edits
unimodal eval vqa --task nlvr --data shards/nlvr --predictions nlvr.jsonl
unimodal eval report scores.json geneval.json --output page.html
unimodal eval compare small.json large.json
unimodal eval arena drawn_a drawn_b --prompts prompts.jsonl
unimodal eval fidelity photos drawn --json fidelity.json
unimodal eval draw dpg drawn --prompts dpg_bench.csv
unimodal eval judged dpg --questions dpg_bench.csv --images drawn --judge Qwen3-VL-8B-Instruct
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .arena.command import arena_
from .bits_command import bits_
from .check import check_
from .editing.command import editing
from .fidelity.command import copies_, fidelity_, preference_
from .geneval.command import geneval
from .judged.command import draw_, judged_
from .options import (
    IN_PATH,
    check_device,
    model_options,
    option,
    outputs,
    sampling_of,
    training_option,
)
from .results.command import compare_, report_
from .score_command import score_
from .things_command import things_
from .tokenizer_command import tokenizer
from .vqa.command import vqa_

if TYPE_CHECKING:
    from unimodal.rectified_flow import Solver

WORLD_PARTS = ("drawing", "questions", "captions", "edits")
CANDIDATES = "Above 1: score drawings also as the best of so many, by the model's own judgement."
ALL_PARTS = (*WORLD_PARTS, "free", "counts", "refusals", "words", "chains")
PARTS = (*ALL_PARTS, "layout")


@click.group(name="eval")
def eval_() -> None:
    """Measure a model or a tokenizer, and keep every prediction."""


@eval_.command("scenes")
@click.option("--model", type=IN_PATH, help="A bundle's directory [default: the shipped one].")
@option("--samples", 100, "Requests of each task and kind.", click.IntRange(1))
@click.option(
    "--tasks",
    help=f"Comma-separated, out of {','.join(PARTS)}; or all, which leaves out layout (of models"
    " that take boxes) [default: first four].",
)
@click.option(
    "--max-objects",
    type=click.IntRange(2),
    help="The most objects in a scene [default: as many as the canvas holds].",
)
@option("--candidates", 1, CANDIDATES, click.IntRange(1, 8))
@training_option
@model_options
@outputs("Write a PNG of samples here.")
def scenes_(
    model: Path | None,
    samples: int,
    tasks: str | None,
    max_objects: int | None,
    candidates: int,
    training: tuple[str, ...],
    guidance: float | None,
    temperature: float | None,
    image_steps: int | None,
    image_solver: "Solver | None",
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
    unimodal eval scenes --samples 50 --tasks drawing --candidates 4
    """
    parts = _parts(tasks)
    check_device(device)
    import unimodal
    from unimodal.bundle import directory_of, save_bundle, url_of
    from unimodal.transcript import save_image

    from .report import contact_sheet as sheet_of
    from .report import with_scores
    from .results.shown import show
    from .scenes import evaluate

    loaded = unimodal.load(model, device)
    sampling = sampling_of(loaded, guidance, temperature, image_steps, image_solver)
    report, cells = evaluate(
        loaded, samples, seed, sampling, batch_size, parts, predictions, max_objects, candidates,
        training,
    )  # fmt: skip
    show("scenes", report, json, markdown)
    if contact_sheet:
        save_image(sheet_of(cells), contact_sheet)
    if card:
        hashes = {"prompts": "scores_recipe", "people_prompts": "people_scores_recipe"}
        recipes = [name for hash, name in hashes.items() if hash in report["recipe"]]
        told = with_scores(loaded.card, report, recipes)
        save_bundle(url_of(model) or directory_of(model), replace(loaded, card=told))


eval_.add_command(arena_)
eval_.add_command(bits_)
eval_.add_command(check_)
eval_.add_command(compare_)
eval_.add_command(copies_)
eval_.add_command(fidelity_)
eval_.add_command(preference_)
eval_.add_command(report_)
eval_.add_command(editing)
eval_.add_command(score_)
eval_.add_command(things_)
eval_.add_command(tokenizer)
eval_.add_command(geneval)
eval_.add_command(draw_)
eval_.add_command(judged_)
eval_.add_command(vqa_)


def _parts(tasks: str | None) -> tuple[str, ...]:
    """Return the parts named, in the order of PARTS; UsageError for others."""
    named = (
        WORLD_PARTS if tasks is None else ALL_PARTS if tasks == "all" else tuple(tasks.split(","))
    )
    unknown = [name for name in named if name not in PARTS]
    if unknown:
        raise click.UsageError(f"no tasks {', '.join(unknown)}: there are {', '.join(PARTS)}")
    return tuple(name for name in PARTS if name in named)
