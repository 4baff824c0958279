"""`unimodal eval editing`: draws a benchmark's edits, checks a folder of them, judges scenes.

unimodal eval editing scenes edits
unimodal eval editing draw drawn --edits edits/edits.json --images edits
unimodal eval editing score drawn --edits edits
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unimodal.finite_range import FiniteRange

from ..options import (
    EVAL_SEED,
    IN_FOLDER,
    IN_PATH,
    OUT_FILE,
    check_device,
    option,
    sampling_of,
    training_option,
)

if TYPE_CHECKING:
    from ..report import Cell
    from ..vqa.source import Source
    from .folder import Edited

LAYOUTS = ("imgedit", "gedit")
IN_ANY = click.Path(exists=True, path_type=Path)
OUT_FOLDER = click.Path(file_okay=False, path_type=Path)
NUM_SHOWN = 6  # results of each kind on a contact sheet


@click.group("editing")
def editing() -> None:
    """Edit images as a benchmark asks, into folders that its own scripts read.

    \b
    unimodal eval editing draw out --layout imgedit --edits basic_edit.json --images singleturn
    unimodal eval editing check out --layout imgedit --edits basic_edit.json
    """


def edits_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say what was asked for."""
    for add in (
        click.option("--language", type=click.Choice(("en", "cn")), help="gedit: of instructions."),
        option("--layout", "imgedit", "Whose folders and files.", click.Choice(LAYOUTS)),
        click.option("--edits", type=IN_ANY, required=True, help="The benchmark's file."),
    ):
        command = add(command)
    return command


@editing.command("scenes")
@click.argument("folder", type=OUT_FOLDER)
@option("--samples", 10, "Edits of each kind.", click.IntRange(1))
@option("--canvas", 64, "Pixels a side.", click.IntRange(1))
@option("--seed", EVAL_SEED, "Of the scenes.", click.IntRange(0, 2**40))
def scenes_(folder: Path, samples: int, canvas: int, seed: int) -> None:
    """Write edits of scenes into FOLDER in ImgEdit's form, with the images before."""
    from .scenes import SceneEdits, write_scene_edits

    count = write_scene_edits(folder, SceneEdits(seed, samples, canvas))
    click.echo(f"{folder}: {count} edits")


@editing.command("draw")
@click.argument("folder", type=OUT_FOLDER)
@edits_options
@click.option("--images", type=IN_FOLDER, help="Of the images before [default: that of --edits].")
@click.option("--model", type=IN_PATH, help="A bundle's directory [default: the shipped].")
@click.option("--target-pixels", type=click.IntRange(1), help="Of an image [default: the model's].")
@option("--max-aspect-ratio", 1.0, "Of an image, which is cropped to it.", FiniteRange(1))
@option("--batch-size", 32, "Images at a time; results do not depend on it.", click.IntRange(1))
@click.option("--guidance", type=float, help="1 is off [default: the model's].")
@click.option("--temperature", type=float, help="Of drawing [default: the model's].")
@option("--seed", EVAL_SEED, "Of the noise.", click.IntRange(0, 2**40))
@option("--device", "cpu", "Where it runs: cpu, cuda, cuda:1 ...", click.STRING)
def draw_(
    folder: Path,
    edits: Path,
    layout: str,
    language: str | None,
    images: Path | None,
    model: Path | None,
    target_pixels: int | None,
    max_aspect_ratio: float,
    batch_size: int,
    guidance: float | None,
    temperature: float | None,
    seed: int,
    device: str,
) -> None:
    """Draw the results of edits into FOLDER, as the benchmark lays them out; go on from there."""
    from .edits import read_edits

    source = _source(edits, images)
    asked = read_edits(source, layout, language)
    check_device(device)
    import unimodal
    from unimodal.data.sizes import of_canvas

    from .drawing import draw

    loaded = unimodal.load(model, device)
    patch = loaded.image_tokenizer.geometry.patch
    rule = of_canvas(loaded.canvas, patch, target_pixels, max_aspect_ratio)
    sampling = sampling_of(loaded, guidance, temperature)
    draw(loaded, asked, source.images, rule, folder, layout, seed, sampling, batch_size)
    click.echo(f"{folder}: {len(asked)} images")


@editing.command("check")
@click.argument("folder", type=IN_FOLDER)
@edits_options
def check_(folder: Path, edits: Path, layout: str, language: str | None) -> None:
    """Say whether the results in FOLDER are complete, or what is missing, whoever drew them."""
    from .edits import read_edits
    from .folder import read_folder

    asked = read_edits(_source(edits, None), layout, language)
    found = read_folder(folder, asked, needs_sources=layout == "gedit")
    click.echo(f"{folder}: all {len(found.edits)} images are there; results {found.hash}")


@editing.command("score")
@click.argument("folder", type=IN_FOLDER)
@click.option("--edits", type=IN_FOLDER, required=True, help="What `editing scenes` wrote.")
@click.option("--edited-by", help="Who drew results that `editing draw` did not.")
@training_option
@click.option("--json", type=OUT_FILE, help="Write scores and every verdict here.")
@click.option("--markdown", type=OUT_FILE, help="Write the table here.")
@click.option("--contact-sheet", type=OUT_FILE, help="Write a PNG of some results here.")
def score_(
    folder: Path,
    edits: Path,
    edited_by: str | None,
    training: tuple[str, ...],
    json: Path | None,
    markdown: Path | None,
    contact_sheet: Path | None,
) -> None:
    """Judge results of edits of scenes, whoever drew them: done, and nothing else touched."""
    from unimodal.transcript import save_image

    from ..overlap import Probe, overlap, with_overlap
    from ..report import contact_sheet as sheet_of
    from ..results.shown import show
    from ..vqa.pictures import Pictures
    from .folder import read_folder
    from .scenes import read_scene_edits, report_of

    asked, requests = read_scene_edits(edits)
    edited = read_folder(folder, asked)
    if edited_by is not None and edited.recipe:
        raise click.UsageError(f"{folder} says itself who drew it: leave --edited-by out")
    found_again = None
    if training:
        probes = [Probe(one.id, one.instruction, (one.id,)) for one in asked]
        pictures = Pictures(edits, None)
        images = ((one.id, pictures.content(one.image)) for one in asked)
        found_again = overlap(probes, images, training)
    report = with_overlap(report_of(edited, requests, edited_by), found_again)
    show("editing", report, json, markdown)
    if contact_sheet is not None:
        save_image(sheet_of(_cells(edited, edits, report["predictions"])), contact_sheet)


def _source(edits: Path, images: Path | None) -> "Source":
    from ..vqa.command import source_of

    return source_of(edits, images, None)


def _cells(edited: "Edited", folder: Path, predictions: list[dict[str, Any]]) -> "list[Cell]":
    """Return cells of the first results of each kind, beside the images before."""
    from ..report import Cell
    from ..vqa.pictures import Pictures

    pictures, shown, cells = Pictures(folder, None), dict[str, int](), []
    for (edit, image), one in zip(edited.images(), predictions, strict=True):
        shown[edit.kind] = shown.get(edit.kind, 0) + 1
        if shown[edit.kind] <= NUM_SHOWN:
            images = pictures.whole(edit.image), image
            cells.append(Cell(images, edit.instruction, one["reason"], one["right"]))
    return cells
