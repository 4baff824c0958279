"""`unimodal eval geneval`: draws, detects and scores, one after the other or each alone.

unimodal eval geneval prompts prompts.jsonl
unimodal eval geneval run drawn --prompts prompts.jsonl --json geneval.json
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..options import (
    EVAL_SEED,
    IN_FILE,
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
    from .detector import Detections, Detector
    from .drawing import Rewriting
    from .folder import Drawn
    from .prompts import Prompt

DETECTORS = ("scenes", "things", "mask2former")
OUT_FOLDER = click.Path(file_okay=False, path_type=Path)
NUM_SHOWN = 6  # images of each task on a contact sheet


@click.group("geneval")
def geneval() -> None:
    """Measure how well images show what was asked for, by GenEval's tasks and rules.

    \b
    unimodal eval geneval prompts prompts.jsonl
    unimodal eval geneval run drawn --prompts prompts.jsonl --contact-sheet sheet.png
    """


def drawing(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say what is drawn, and how."""
    for add in (
        option("--seed", EVAL_SEED, "Of the noise.", click.IntRange(0, 2**40)),
        click.option("--temperature", type=float, help="Of drawing [default: the model's]."),
        click.option("--guidance", type=float, help="1 is off [default: the model's]."),
        option("--batch-size", 32, "Images at a time.", click.IntRange(1)),
        option("--samples", 4, "Images of each prompt.", click.IntRange(1)),
        click.option(
            "--rewriter", help="Who wrote --rewritten; the numbers carry this name.", metavar="NAME"
        ),
        click.option("--rewritten", type=IN_FILE, help="The prompts in other words, to draw."),
        click.option(
            "--prompts", type=IN_FILE, required=True, help="As evaluation_metadata.jsonl."
        ),
        click.option("--model", type=IN_PATH, help="A bundle's directory [default: the shipped]."),
    ):
        command = add(command)
    return command


def detecting(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say who looks at the images."""
    for add in (
        option("--device", "cpu", "Where it runs: cpu, cuda, cuda:1 ...", click.STRING),
        click.option(
            "--photos", type=IN_FOLDER, help="scikit-image's photographs, if it is not installed."
        ),
        click.option("--clip", type=IN_FOLDER, help="mask2former: a folder of CLIP ViT-L/14."),
        click.option("--weights", type=IN_PATH, help="mask2former: mmdet's .pth, or a folder."),
        click.option("--things", type=IN_FOLDER, help="things: the folder of a table of icons."),
        option("--detector", "scenes", "Who looks at the images.", click.Choice(DETECTORS)),
    ):
        command = add(command)
    return command


def scoring(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say where the scores go, and what training data they are beside."""
    for add in (
        training_option,
        click.option("--contact-sheet", type=OUT_FILE, help="Write a PNG of some images here."),
        click.option("--markdown", type=OUT_FILE, help="Write the table here."),
        click.option("--json", type=OUT_FILE, help="Write scores and every verdict here."),
    ):
        command = add(command)
    return command


@geneval.command("prompts")
@click.argument("file", type=OUT_FILE)
@option("--number", 100, "Prompts of each task but the first.", click.IntRange(1))
@option("--seed", 43, "Of what is asked.", click.IntRange(0))
@click.option("--names", type=IN_FILE, help="Class names, one a line [default: the shapes].")
def prompts_(file: Path, number: int, seed: int, names: Path | None) -> None:
    """Write prompts of the six tasks over class names into FILE, by the official maker's rules."""
    import json

    from unimodal.atomic import write_bytes
    from unimodal.data.scenes.world import SHAPES

    from .prompts import make_prompts

    classes = SHAPES if names is None else names.read_text(encoding="utf-8").split("\n")
    made = make_prompts([name for name in classes if name], number, seed)
    lines = "".join(f"{json.dumps(prompt.json())}\n" for prompt in made)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(file, lines.encode())
    click.echo(f"{file}: {len(made)} prompts")


@geneval.command("draw")
@click.argument("folder", type=OUT_FOLDER)
@drawing
@option("--device", "cpu", "Where it runs: cpu, cuda, cuda:1 ...", click.STRING)
def draw_(folder: Path, **options: Any) -> None:
    """Draw the images of prompts into FOLDER, as GenEval lays it out; go on where it stopped."""
    asked = _draw(folder, **options)
    click.echo(f"{folder}: {options['samples']} images of each of {len(asked)} prompts")


@geneval.command("draw-served")
@click.argument("folder", type=OUT_FOLDER)
@click.option("--server", metavar="URL", required=True, help="Of OpenAI's image generations.")
@click.option("--served-model", metavar="NAME", required=True, help="The model's name there.")
@click.option("--key-variable", metavar="NAME", help="Where the key is [default: OPENAI_API_KEY].")
@click.option("--base64", is_flag=True, help="Ask for base64, which older servers need.")
@option("--size", "1024x1024", "Of an image, as the server wants it.", click.STRING)
@click.option("--prompts", type=IN_FILE, required=True, help="As evaluation_metadata.jsonl.")
@click.option("--rewritten", type=IN_FILE, help="The prompts in other words, to draw.")
@click.option("--rewriter", metavar="NAME", help="Who wrote --rewritten.")
@option("--samples", 4, "Images of each prompt.", click.IntRange(1))
@option("--batch-size", 4, "Images at a time.", click.IntRange(1))
def draw_served_(
    folder: Path,
    server: str,
    served_model: str,
    key_variable: str | None,
    base64: bool,
    size: str,
    prompts: Path,
    rewritten: Path | None,
    rewriter: str | None,
    samples: int,
    batch_size: int,
) -> None:
    """Draw into FOLDER with a model behind a server; go on where it stopped."""
    from ..answerers.options import endpoint_of
    from .prompts import read_prompts
    from .served import Painter, draw_served

    asked = read_prompts(prompts)
    rewriting = _rewriting(rewritten, rewriter, asked)
    endpoint, name = endpoint_of(server, served_model, key_variable)
    draw_served(
        Painter(endpoint, name, size, base64), asked, folder, samples, rewriting, batch_size
    )
    click.echo(f"{folder}: {samples} images of each of {len(asked)} prompts")


@geneval.command("detect")
@click.argument("folder", type=IN_FOLDER)
@click.argument("file", type=OUT_FILE)
@click.option("--drawn-by", metavar="NAME", help="Who drew images that were drawn elsewhere.")
@click.option("--drawn-revision", metavar="NAME", help="--drawn-by: which version of it.")
@click.option("--rewriter", help="Who rewrote the prompts of images that were drawn elsewhere.")
@detecting
def detect_(
    folder: Path,
    file: Path,
    drawn_by: str | None,
    drawn_revision: str | None,
    rewriter: str | None,
    **options: Any,
) -> None:
    """Write what a detector finds in the images of FOLDER into FILE; go on where it stopped.

    FOLDER is of GenEval's layout, whoever drew it.
    """
    from .folder import images_hash, read_folder

    given = {"model": drawn_by, "revision": drawn_revision, "rewriter": rewriter}
    settings = {name: value for name, value in given.items() if value is not None}
    drawn = read_folder(folder)
    if settings and drawn.recipe:
        raise click.UsageError(
            f"{folder} says itself who drew it and rewrote its prompts: leave --drawn-by, "
            "--drawn-revision and --rewriter out"
        )
    if drawn_revision is not None and drawn_by is None:
        raise click.UsageError("--drawn-revision belongs to --drawn-by")
    if not drawn.recipe:
        settings["images"] = images_hash(drawn)
    _detect(drawn, file, settings, **options)
    click.echo(f"{file}: {drawn.samples} images of each of {len(drawn.prompts)} prompts")


@geneval.command("score")
@click.argument("file", type=IN_FILE)
@click.option("--prompts", type=IN_FILE, help="Refuse detections of other prompts.")
@click.option(
    "--images", type=IN_FOLDER, help="The folder that was looked at, for --contact-sheet."
)
@scoring
def score_(
    file: Path,
    prompts: Path | None,
    images: Path | None,
    json: Path | None,
    markdown: Path | None,
    contact_sheet: Path | None,
    training: tuple[str, ...],
) -> None:
    """Score the detections in FILE, whoever recorded them; no image and no model is needed."""
    from .detector import check_images, read_detections
    from .folder import read_folder
    from .prompts import read_prompts

    if (images is None) != (contact_sheet is None):
        raise click.UsageError("--images and --contact-sheet need each other")
    asked = None if prompts is None else read_prompts(prompts)
    found = read_detections(file, asked)
    if images is not None:
        check_images(found, read_folder(images))
    _score(found, images, json, markdown, contact_sheet, training)


@geneval.command("run")
@click.argument("folder", type=OUT_FOLDER)
@drawing
@detecting
@scoring
def run_(
    folder: Path,
    json: Path | None,
    markdown: Path | None,
    contact_sheet: Path | None,
    training: tuple[str, ...],
    **options: Any,
) -> None:
    """Draw into FOLDER, detect and score; each goes on where it stopped."""
    from ..overlap import check_shards
    from .detector import check_asked, read_detections
    from .folder import read_folder
    from .prompts import read_prompts

    check_shards(training)
    names = ("detector", "things", "weights", "clip", "photos")
    looking = {name: options.pop(name) for name in names}
    detector = _detector(device=options["device"], **looking)
    check_asked(detector, read_prompts(options["prompts"]))  # before anything is drawn for it
    asked = _draw(folder, **options)
    drawn = read_folder(folder, asked)
    file = folder / f"detections_{detector.name}.jsonl"
    _detect_with(detector, drawn, file, {})
    _score(read_detections(file, asked), folder, json, markdown, contact_sheet, training)


def _draw(
    folder: Path,
    prompts: Path,
    rewritten: Path | None,
    rewriter: str | None,
    model: Path | None,
    samples: int,
    seed: int,
    guidance: float | None,
    temperature: float | None,
    batch_size: int,
    device: str,
) -> "list[Prompt]":
    """Draw what is missing in the folder; return the prompts."""
    check_device(device)
    from .drawing import draw
    from .prompts import read_prompts

    asked = read_prompts(prompts)
    rewriting = _rewriting(rewritten, rewriter, asked)
    import unimodal

    loaded = unimodal.load(model, device)
    sampling = sampling_of(loaded, guidance, temperature)
    draw(loaded, asked, folder, samples, seed, sampling, rewriting, batch_size)
    return asked


def _rewriting(
    rewritten: Path | None, rewriter: str | None, asked: "list[Prompt]"
) -> "Rewriting | None":
    """Return the prompts in other words; UsageError where nobody is said to have written them."""
    from .drawing import Rewriting
    from .prompts import read_rewritten

    if (rewritten is None) != (rewriter is None):
        raise click.UsageError("--rewritten and --rewriter need each other")
    if rewritten is None or rewriter is None:
        return None
    return Rewriting(rewriter, tuple(read_rewritten(rewritten, asked)))


def _detect(drawn: "Drawn", file: Path, settings: dict[str, Any], **options: Any) -> None:
    _detect_with(_detector(**options), drawn, file, settings)


def _detect_with(
    detector: "Detector", drawn: "Drawn", file: Path, settings: dict[str, Any]
) -> None:
    from .detector import detect

    detect(drawn, detector, file, settings)


def _detector(
    detector: str,
    things: Path | None,
    weights: Path | None,
    clip: Path | None,
    photos: Path | None,
    device: str,
) -> "Detector":
    """Return the detector that is asked for; UsageError for an option that it would ignore."""
    check_device(device)
    given = {"things": things, "weights": weights, "clip": clip, "photos": photos}
    needed = {"scenes": (), "things": ("things",), "mask2former": ("weights", "clip")}[detector]
    taken = (*needed, "photos") if detector == "mask2former" else needed
    missing = [f"--{name}" for name in needed if given[name] is None]
    ignored = [f"--{name}" for name in given if given[name] is not None and name not in taken]
    if missing or ignored:
        told = [f"needs {', '.join(missing)}"] * bool(missing)
        told += [f"takes no {', '.join(ignored)}"] * bool(ignored)
        raise click.UsageError(f"--detector {detector} {' and '.join(told)}")
    from .scene_detector import SceneDetector, ThingDetector

    if detector == "scenes":
        return SceneDetector()
    if things is not None:
        from unimodal.data.things.table import things_of

        return ThingDetector(things_of(things))
    assert weights is not None and clip is not None, "they are needed"
    from .clip_colours import ClipColours
    from .mask2former import Mask2FormerDetector, load_mask2former

    network, digest = load_mask2former(weights, device)
    return Mask2FormerDetector(network, digest, ClipColours(clip, device), photos)


def _score(
    found: "Detections",
    images: Path | None,
    json: Path | None,
    markdown: Path | None,
    contact_sheet: Path | None,
    training: tuple[str, ...],
) -> None:
    from unimodal.transcript import save_image

    from ..overlap import Probe, overlap, with_overlap
    from ..report import contact_sheet as sheet_of
    from ..results.shown import show
    from .scoring import report_of

    asked = {id.partition("/")[0]: prompt.text for id, (prompt, _) in found.images.items()}
    probes = [Probe(number, text) for number, text in asked.items()]
    found_again = overlap(probes, (), training) if training else None
    report = with_overlap(report_of(found), found_again)
    show("geneval", report, json, markdown)
    if contact_sheet is not None and images is not None:
        save_image(sheet_of(cells_of(report["predictions"], images)), contact_sheet)


def cells_of(predictions: list[dict[str, Any]], images: Path) -> "list[Cell]":
    """Return cells of the first images of each task, with their verdicts."""
    from ..report import Cell
    from .folder import read_folder, read_image

    files = {id: file for id, _, file in read_folder(images).images()}
    tags = dict.fromkeys(one["kind"] for one in predictions)
    shown = [
        one for tag in tags for one in [p for p in predictions if p["kind"] == tag][:NUM_SHOWN]
    ]
    return [
        Cell(
            (read_image(files[one["id"]]),),
            one["prompt"],
            one["note"] or one["reason"].replace("\n", "; "),
            one["right"],
        )
        for one in shown
    ]
