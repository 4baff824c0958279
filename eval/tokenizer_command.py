"""`unimodal eval tokenizer`: what an image tokenizer keeps of scenes, or of images of your own."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unimodal.data import options as data_options
from unimodal.finite_range import FiniteRange

from .options import IN_PATH, check_device, option, outputs

if TYPE_CHECKING:
    from unimodal.image_tokenizers import FoundTokenizer
    from unimodal.tokenizer.saved import SavedTokenizer

    from .report import Cell
    from .round_trip import RoundTrip

NUM_SHEET_IMAGES = 48
COMPARED = ("frechet", "contact_sheet", "reconstructions")  # options that need what comes back
OF_SCENES, OF_IMAGES = ("canvas", "seed"), (
    "target_pixels", "max_aspect_ratio", "bad_share", "probe", "probe_apart",
)  # fmt: skip


def _moved(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value:
        raise click.UsageError(
            f"{parameter.opts[0]} is an argument now: unimodal eval tokenizer MODEL [IMAGES]..."
        )


def _was_option(name: str) -> Any:
    """Declare an option that became an argument: it is refused with what to write."""
    was = f"was_{name.lstrip('-')}"
    return click.option(
        name, was, hidden=True, multiple=True, expose_value=False, is_eager=True, callback=_moved
    )


@click.command("tokenizer")
@click.argument("model", type=IN_PATH, required=False)
@click.argument("images", type=IN_PATH, nargs=-1)
@_was_option("--model")
@_was_option("--tokenizer")
@_was_option("--images")
@option("--samples", 1000, "Held-out scenes, or the first images.", click.IntRange(1))
@option("--canvas", 64, "Pixels a side of scenes.", click.IntRange(64, 512))
@data_options.target_pixels("Resize and crop IMAGES to about so many pixels [default: as is].")
@data_options.max_aspect_ratio("With --target-pixels: the largest ratio of the sides [default: 1].")
@data_options.bad_share("Share of IMAGES that may be left out before the command stops.")
@click.option("--min-usage", type=FiniteRange(0, 1), help="Fail below this share of codes.")
@click.option(
    "--frechet", is_flag=True,
    help="The Frechet distance too, on features of EfficientNet-Lite0: about 20 images a second "
    "and core, twice each.",
)  # fmt: skip
@click.option(
    "--probe", metavar="KEY",
    help="Let a linear probe of the codes tell this key of each sample's .json (scenes are always "
    "probed).",
)  # fmt: skip
@click.option(
    "--probe-apart", metavar="KEY",
    help="With --probe: samples with equal values of this key are never on both sides of its "
    "cross-validation.",
)  # fmt: skip
@click.option(
    "--reconstructions", type=click.Path(file_okay=False, path_type=Path),
    help="Write all images into `originals` and `reconstructions` of this new folder, for "
    "`unimodal eval fidelity`.",
)  # fmt: skip
@outputs("Write a PNG of the worst reconstructions beside their originals here.")
@click.pass_context
def tokenizer(ctx: click.Context, **given: Any) -> None:
    """Measure what the image tokenizer of MODEL keeps of held-out scenes, or of IMAGES.

    MODEL is a bundle's folder, a run's, or `default`, the shipped one, which is taken without
    arguments too; of one without a decoder its codes alone are measured. IMAGES are files, folders
    of files or of shards, and shards.

    \b
    unimodal eval tokenizer default --samples 1000 --json ceiling.json
    unimodal eval tokenizer runs/tokenizer photos --target-pixels 65536 --contact-sheet worst.png
    unimodal eval tokenizer runs/tokenizer shards --min-usage 0.5 --frechet --probe category
    """
    asked = Asked(**given)
    _refuse_ignored(ctx, asked)
    check_device(asked.device)
    from unimodal.transcript import save_image

    from .report import contact_sheet, recipe_line
    from .results.shown import show

    report, trip, cells = _of_images(asked) if asked.images else _of_scenes(asked)
    if asked.frechet:
        from .frechet import frechet

        report["scores"]["frechet_efficientnet_lite0"] = frechet(
            trip.originals, trip.images, asked.device
        )
    report["speed"] = trip.speed()
    show("tokenizer", report, asked.json, asked.markdown)
    if "usage" in report:
        click.echo(f"code usage: {recipe_line(report['usage'])}")
    click.echo(_speed_line(report["speed"]))
    if asked.contact_sheet:
        save_image(contact_sheet(cells), asked.contact_sheet)
    if asked.reconstructions:
        trip.write(asked.reconstructions)
    if asked.min_usage is not None:
        _check_usage(report["usage"], asked.min_usage)


@dataclass(frozen=True)
class Asked:
    """Hold what the command line says."""

    model: Path | None
    images: tuple[Path, ...]
    samples: int
    canvas: int
    target_pixels: int | None
    max_aspect_ratio: float | None
    bad_share: float
    min_usage: float | None
    frechet: bool
    probe: str | None
    probe_apart: str | None
    reconstructions: Path | None
    contact_sheet: Path | None
    markdown: Path | None
    json: Path | None
    device: str
    batch_size: int
    seed: int

    @property
    def num_cells(self) -> int:
        """Return how many images the contact sheet has."""
        return NUM_SHEET_IMAGES if self.contact_sheet else 0


def _refuse_ignored(ctx: click.Context, asked: Asked) -> None:
    """Raise UsageError for options that say nothing about what is measured, and for what would be
    found only after the work.
    """
    for name in OF_SCENES if asked.images else OF_IMAGES:
        if ctx.get_parameter_source(name) != click.core.ParameterSource.DEFAULT:
            what = "scenes, not of IMAGES" if asked.images else "IMAGES, which are not given"
            raise click.UsageError(f"--{name.replace('_', '-')} is of {what}: leave it out")
    if asked.probe_apart and not asked.probe:
        raise click.UsageError("--probe-apart is of --probe, which is not given: leave it out")
    if asked.reconstructions is not None:
        from .round_trip import check_new

        check_new(asked.reconstructions)
    if asked.frechet:
        from unimodal.tokenizer.backbone import EFFICIENTNET, load

        load(EFFICIENTNET)


def _found(asked: Asked) -> "FoundTokenizer":
    """Return the tokenizer that is measured; ValueError where it lacks what was asked about."""
    from unimodal.image_tokenizers import find_tokenizer

    found = find_tokenizer(asked.model)
    if asked.min_usage is not None and found.tokenizer.latent_width:
        raise ValueError(
            f"--min-usage {asked.min_usage:g}: this image tokenizer has latents and no codes; "
            "leave it out"
        )
    _check_decodes(found.tokenizer, asked)
    return found


def _of_scenes(asked: Asked) -> "tuple[dict[str, Any], RoundTrip, list[Cell]]":
    """Measure a tokenizer on held-out scenes."""
    from .probe import scene_probe
    from .round_trip import round_trip
    from .score import recipe
    from .tokenizer import cells, held_out, refuse_training_seed, scene_report

    found = _found(asked)
    refuse_training_seed(found.card, asked.seed)
    scenes, originals = held_out(asked.samples, asked.seed, asked.canvas)
    trip = round_trip(found.tokenizer.to(asked.device), originals, asked.batch_size)
    report = scene_report(scenes, trip)
    report["scores"] |= scene_probe(trip, scenes)
    report["recipe"] = recipe(
        evaluation="tokenizer",
        tokenizer=found.tokenizer.hash,
        seed=asked.seed,
        samples=asked.samples,
        resolution=asked.canvas,
    )
    return report, trip, cells(trip, report["predictions"], asked.num_cells)


def _of_images(asked: Asked) -> "tuple[dict[str, Any], RoundTrip, list[Cell]]":
    """Measure a tokenizer on images of the user's own."""
    from unimodal.data.sizes import rule_of

    from .own_images import image_cells, image_report, read_images
    from .probe import classes_of
    from .round_trip import round_trip
    from .score import recipe

    found = _found(asked)
    rule = rule_of(asked.target_pixels, asked.max_aspect_ratio, found.tokenizer.geometry)
    keys = [key for key in (asked.probe, asked.probe_apart) if key]
    own = read_images(asked.images, asked.samples, rule, found.tokenizer, asked.bad_share, keys)
    click.echo(own.line(), err=True)
    if asked.probe:
        try:  # before all the work
            classes_of([one[asked.probe] for one in own.labels])
        except ValueError as error:
            raise ValueError(f"--probe {asked.probe}: {error}") from error
    trip = round_trip(found.tokenizer.to(asked.device), own.pixels, asked.batch_size)
    report = image_report(own.names, trip)
    if asked.probe:
        report["scores"] |= _probed(trip, own.labels, asked.probe, asked.probe_apart)
    report["recipe"] = recipe(
        evaluation="tokenizer",
        tokenizer=found.tokenizer.hash,
        images=own.digest,
        samples=len(own.pixels),
        target_pixels=asked.target_pixels,
        max_aspect_ratio=asked.max_aspect_ratio,
    )
    return report, trip, image_cells(trip, report["predictions"], asked.num_cells)


def _check_decodes(tokenizer: "SavedTokenizer", asked: Asked) -> None:
    """Raise ValueError for what compares images, where a tokenizer has no decoder to make them."""
    named = [name for name in COMPARED if getattr(asked, name)]
    if named and not tokenizer.decodes:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in named)
        raise ValueError(
            f"{options}: this image tokenizer has no decoder, so nothing comes back to be compared:"
            " leave it out, or give one that decodes"
        )


def _probed(
    trip: "RoundTrip", labels: Sequence[dict[str, str | None]], key: str, apart: str | None
) -> dict[str, Any]:
    """Return the scores of a probe that tells a key of the images' samples."""
    from .probe import label_probe

    parts = [
        str(number) if apart is None or one[apart] is None else str(one[apart])
        for number, one in enumerate(labels)
    ]
    found = label_probe(trip, [one[key] for one in labels], parts)
    return {"probe": {key: found["probe"]}, "probe_constant": {key: found["constant"]}}


def _speed_line(speed: dict[str, Any]) -> str:
    parts = []
    for name, rate in speed.items():
        ends = "" if rate.low is None else f" ({rate.low:.1f} to {rate.high:.1f})"
        value = "not measured" if rate.value is None else f"{rate.value:.1f}"
        parts.append(f"{name.partition('_')[0]} {value}{ends}")
    n = next(iter(speed.values())).n
    return f"images a second: {', '.join(parts)}, of {n} images"


def _check_usage(usage: dict[str, Any], least: float) -> None:
    """Raise ValueError where less than this share of the codes is used."""
    if usage["share"] < least:
        raise ValueError(
            f"code usage {usage['share']:.3f} is below --min-usage {least:g}: of "
            f"{usage['num_codes']:,} codes {usage['distinct']:,} occur in {usage['drawn']:,}; "
            "measure more --samples, or train with fewer levels or more varied images"
        )
