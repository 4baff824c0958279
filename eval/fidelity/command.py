"""`unimodal eval fidelity`, `copies` and `preference`: images beside others, and beside prompts."""

from pathlib import Path
from typing import Any

import click

from unimodal.finite_range import FiniteRange

from ..options import IN_FILE, IN_FOLDER, IN_PATH, OUT_FILE, check_device, files, option

DATA = click.Path(exists=True, path_type=Path)
DEFAULT = "facebook/dinov2-large"
BACKBONE = "A Hugging Face vision model by name or path, or efficientnet-lite0"
PREFERENCES = ("pickscore", "hpsv2", "imagereward")
NUM_SHOWN = 24


@click.command("fidelity")
@click.argument("reference", type=DATA)
@click.argument("images", type=DATA)
@click.option(
    "--backbone", help=f"{BACKBONE} [default: {DEFAULT}, where nothing else is measured].",
)  # fmt: skip
@click.option("--resize", type=click.IntRange(8), help="Side in pixels it sees [default: 224].")
@click.option("--kid-size", type=click.IntRange(2), help="Images of a subset [default: 1000, or "
              "half of the smaller set].")  # fmt: skip
@click.option(
    "--lpips-weights", nargs=2, type=IN_FILE, metavar="VGG LINEAR",
    help="LPIPS of pairs, with torchvision's vgg16-397923af.pth and LPIPS' own v0.1/vgg.pth.",
)  # fmt: skip
@click.option(
    "--inception-weights", type=IN_FILE, metavar="FILE",
    help="FID and Inception Score (extra `metrics`), with torch-fidelity's "
    "weights-inception-2015-12-05-6726825d.pth.",
)  # fmt: skip
@files
def fidelity_(
    reference: Path,
    images: Path,
    backbone: str | None,
    resize: int | None,
    kid_size: int | None,
    lpips_weights: tuple[Path, Path] | None,
    inception_weights: Path | None,
    device: str,
    json: Path | None,
    markdown: Path | None,
) -> None:
    """Measure how far IMAGES are from a REFERENCE: Frechet distance, KID, precision and recall;
    FID, Inception Score and LPIPS where their weights are given.

    \b
    unimodal eval fidelity photos drawn --backbone efficientnet-lite0
    unimodal eval fidelity out/originals out/reconstructions --lpips-weights vgg16.pth vgg.pth
    """
    if backbone is None and lpips_weights is None and inception_weights is None:
        backbone = DEFAULT
    ignored = [name for name, value in (("--resize", resize), ("--kid-size", kid_size)) if value]
    if backbone is None and ignored:
        raise click.UsageError(f"{' and '.join(ignored)}: of --backbone, which is not given")
    check_device(device)
    from ..geneval.folder import drawn_recipe
    from ..overlap import with_overlap
    from ..results.shown import show
    from ..score import recipe

    # What is missing is told before anything is computed.
    steps = [
        *([_lpips(reference, images, lpips_weights, device)] if lpips_weights else []),
        *([_by_backbone(backbone, resize, kid_size, device)] if backbone else []),
        *([_by_inception(inception_weights, device)] if inception_weights else []),
    ]
    settings = {
        "evaluation": "fidelity", "device": device, "precision": "float32",
        **drawn_recipe(reference, "reference_drawing_"), **drawn_recipe(images, "drawing_"),
    }  # fmt: skip
    report: dict[str, Any] = {"scores": {}, "predictions": []}
    for one in [step(reference, images) for step in steps]:
        report["scores"] |= one["scores"]
        report["predictions"] += one.get("predictions", [])
        settings |= one["settings"]
    report["recipe"] = recipe(**settings)
    show("fidelity", with_overlap(report, None), json, markdown)


def _lpips(reference: Path, images: Path, weights: tuple[Path, Path], device: str):
    """Return a function that measures LPIPS of pairs."""
    from ..intervals import mean
    from ..lpips import Lpips
    from .pairs import lpips_of, pairs_of

    pairs, lpips = pairs_of(reference, images), Lpips(*weights).to(device)

    def measure(*_: Path) -> dict[str, Any]:
        found = lpips_of(pairs, lpips, device)
        score = mean([one["lpips"] for one in found])
        name = f"lpips_vgg16_n{len(found)}_reference_{reference.resolve().name}"
        return {"scores": {name: score}, "predictions": found, "settings": {"lpips": "0.1, vgg16"}}

    return measure


def _by_backbone(backbone: str, resize: int | None, kid_size: int | None, device: str):
    """Return a function that compares two sets as a vision model sees them."""
    from .embedder import SIDE, features_of, load
    from .images import ImageSet
    from .sets import IN_BOTH, compare

    embedder = load(backbone, resize or SIDE, device)

    def measure(*paths: Path) -> dict[str, Any]:
        first, second = (features_of(embedder, ImageSet.of(path)) for path in paths)
        scores, settings = compare(embedder, first, second, kid_size)
        if shared := settings[IN_BOTH]:
            told = "of sets that were not drawn apart KID comes out too low, often below 0"
            click.echo(f"note: {shared} images are in both sets: {told}", err=True)
        return {"scores": scores, "settings": settings}

    return measure


def _by_inception(weights: Path, device: str):
    """Return a function that measures FID and Inception Score."""
    from .embedder import features_of
    from .images import ImageSet
    from .inception import inception_embedder, load_inception
    from .sets import compare_by_inception

    embedder = inception_embedder(load_inception(weights).to(device))

    def measure(*paths: Path) -> dict[str, Any]:
        first, second = (features_of(embedder, ImageSet.of(path)) for path in paths)
        scores, settings = compare_by_inception(embedder, first, second)
        return {"scores": scores, "settings": settings}

    return measure


@click.command("copies")
@click.argument("images", type=DATA)
@click.argument("training", type=DATA)
@option("--backbone", DEFAULT, f"{BACKBONE}.", click.STRING)
@option("--resize", 224, "Side in pixels that it sees.", click.IntRange(8))
@option("--alpha", 0.5, "A copy is nearer than this times the mean of the nearest.",
        FiniteRange(0, 1, min_open=True, max_open=True))  # fmt: skip
@option("--neighbours", 50, "How many nearest training images that mean is of.", click.IntRange(2))
@click.option("--contact-sheet", type=OUT_FILE, help="Write a PNG of the nearest pairs here.")
@files
def copies_(
    images: Path,
    training: Path,
    backbone: str,
    resize: int,
    alpha: float,
    neighbours: int,
    contact_sheet: Path | None,
    device: str,
    json: Path | None,
    markdown: Path | None,
) -> None:
    """Count which IMAGES are copies of TRAINING images, a folder or shards; show the nearest.

    \b
    unimodal eval copies drawn shards/train --contact-sheet nearest.png --json copies.json
    """
    check_device(device)
    from unimodal.transcript import save_image

    from ..geneval.folder import drawn_recipe
    from ..report import contact_sheet as sheet_of
    from ..results.shown import show
    from ..score import recipe
    from .copies import CopyRule, cells, copies
    from .embedder import features_of, load
    from .images import ImageSet

    how = drawn_recipe(images, "drawing_") | drawn_recipe(training, "training_drawing_")
    embedder = load(backbone, resize, device)
    drawn, known = ImageSet.of(images), ImageSet.of(training)
    mine, theirs = features_of(embedder, drawn), features_of(embedder, known)
    report = copies(embedder, mine, theirs, CopyRule(alpha, neighbours))
    settings = {"device": device, "precision": "float32", **how, **report.pop("settings")}
    report["recipe"] = recipe(evaluation="copies", **settings)
    show("copies", report, json, markdown)
    if contact_sheet:
        shown = cells(report["predictions"], drawn, known, NUM_SHOWN)
        save_image(sheet_of(shown, columns=6, scale=1), contact_sheet)


@click.command("preference")
@click.argument("images", type=DATA)
@click.option("--by", type=click.Choice(PREFERENCES), default="pickscore", show_default=True,
              help="The model of preference.")  # fmt: skip
@click.option("--weights", type=IN_PATH, required=True, help="Its file or folder.")
@click.option("--processor", type=IN_FOLDER, help="pickscore: where its processor is.")
@files
def preference_(
    images: Path,
    by: str,
    weights: Path,
    processor: Path | None,
    device: str,
    json: Path | None,
    markdown: Path | None,
) -> None:
    """Score IMAGES by a model of preference: GenEval's folder, files named <prompt>_000000.png, or
    a JSON file {prompt: image}.

    \b
    unimodal eval preference drawn --weights PickScore_v1 --processor CLIP-ViT-H-14
    """
    if processor is not None and by != "pickscore":
        raise click.UsageError(f"--processor is of pickscore, not of {by}: leave it out")
    check_device(device)
    from ..geneval.folder import drawn_recipe
    from ..overlap import with_overlap
    from ..results.shown import show
    from ..score import recipe
    from .preference import Hpsv2, ImageReward, PickScore, preference_report
    from .prompted import prompted_images

    asked, how = prompted_images(images), drawn_recipe(images, "drawing_")
    model = (
        PickScore(weights, processor, device) if by == "pickscore"
        else Hpsv2(weights, device) if by == "hpsv2"
        else ImageReward(weights, device)
    )  # fmt: skip
    report = preference_report(model, asked)
    settings = {"device": device, "precision": "float32", **how, **report.pop("settings")}
    report["recipe"] = recipe(evaluation="preference", **settings)
    show(f"preference: {by}", with_overlap(report, None), json, markdown)
