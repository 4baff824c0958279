"""`unimodal eval things`: measures how a model draws icons by name and names those it is shown."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .options import (
    IN_FOLDER,
    IN_PATH,
    check_device,
    model_options,
    option,
    outputs,
    sampling_of,
    training_option,
)

if TYPE_CHECKING:
    from unimodal.rectified_flow import Solver

PARTS = ("drawing", "questions")


@click.command("things")
@click.option(
    "--things", "table", type=IN_FOLDER, required=True,
    help="The folder of a table of icons (`unimodal data things`).",
)  # fmt: skip
@click.option("--model", type=IN_PATH, help="A bundle's directory [default: the shipped one].")
@option("--samples", 100, "Requests of each kind; a quarter more of what is held out.",
        click.IntRange(1))  # fmt: skip
@option("--tasks", "all", "drawing, questions, or all.", click.Choice([*PARTS, "all"]))
@training_option
@model_options
@outputs("Write a PNG of samples here.")
def things_(
    table: Path,
    model: Path | None,
    samples: int,
    tasks: str,
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
    """Measure how well a model draws things by name, and names and counts those that it is shown.

    \b
    unimodal data things runs/things
    unimodal eval things --things runs/things --json things.json --contact-sheet sheet.png
    unimodal eval things --things runs/things --model runs/bundle --tasks questions
    """
    check_device(device)
    import unimodal
    from unimodal.data.things.table import things_of

    from .report import contact_sheet as sheet_of
    from .results.shown import show
    from .things import evaluate

    things = things_of(table)
    loaded = unimodal.load(model, device)
    sampling = sampling_of(loaded, guidance, temperature, image_steps, image_solver)
    parts = PARTS if tasks == "all" else (tasks,)
    report, cells = evaluate(
        loaded, things, samples, seed, sampling, batch_size, parts, predictions, training
    )
    show("things", report, json, markdown)
    if contact_sheet:
        from unimodal.transcript import save_image

        save_image(sheet_of(cells), contact_sheet)
    if card:
        from unimodal.bundle import directory_of, save_bundle, url_of

        from .report import with_scores

        told = with_scores(loaded.card, report, ["things_scores_recipe"], before="things.")
        save_bundle(url_of(model) or directory_of(model), replace(loaded, card=told))
