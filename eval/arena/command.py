"""`unimodal eval arena`: people choose between the images of two models, and who wins."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..options import EVAL_SEED, IN_FILE, IN_PATH, OUT_FILE, check_device, option, sampling_of

if TYPE_CHECKING:
    from ..geneval.prompts import Prompt

SERVING = ("prompts", "drawn", "votes", "port", "seed")
DRAWING = ("samples", "guidance", "temperature", "batch_size", "device")


@click.command("arena")
@click.argument("a", type=IN_PATH, required=False)
@click.argument("b", type=IN_PATH, required=False)
@click.option("--prompts", type=IN_FILE, help="As evaluation_metadata.jsonl.")
@option("--votes", "votes.jsonl", "Votes are kept here; go on from them.", OUT_FILE)
@option("--port", 8765, "Of the page on this machine; 0 is any.", click.IntRange(0, 65_535))
@option("--seed", EVAL_SEED, "Of order and sides, and of the noise.", click.IntRange(0, 2**40))
@click.option(
    "--drawn", type=click.Path(file_okay=False, path_type=Path),
    help="Where A and B draw, if they are bundles: into folders a and b.",
)  # fmt: skip
@option("--samples", 1, "Bundles: images of each prompt.", click.IntRange(1))
@click.option("--guidance", type=float, help="Bundles: 1 is off [default: the model's].")
@click.option("--temperature", type=float, help="Bundles: of drawing [default: the model's].")
@option("--batch-size", 32, "Bundles: images at a time.", click.IntRange(1))
@option("--device", "cpu", "Bundles: cpu, cuda, cuda:1 ...", click.STRING)
@click.option("--score", type=IN_FILE, help="Print the win rates of these votes, and serve none.")
@click.option("--json", type=OUT_FILE, help="Write win rates and every vote here.")
@click.option("--markdown", type=OUT_FILE, help="Write the table here.")
@click.pass_context
def arena_(
    ctx: click.Context,
    a: Path | None,
    b: Path | None,
    prompts: Path | None,
    votes: Path,
    port: int,
    seed: int,
    drawn: Path | None,
    score: Path | None,
    json: Path | None,
    markdown: Path | None,
    **drawing: Any,
) -> None:
    """Serve a page on which people choose between images of A and of B, without knowing whose they
    are; keys 1, 2 and 0 are left, right and equally good. Ctrl-C ends it and prints the win rates.

    A and B are folders that `eval geneval draw` wrote, or bundles, which draw first.

    \b
    unimodal eval arena drawn_a drawn_b --prompts prompts.jsonl
    unimodal eval arena --score votes.jsonl --json arena.json
    """
    if score is not None:
        _refuse_given(ctx, (*SERVING, *DRAWING), "--score serves nothing")
        if a is not None:
            raise click.UsageError("--score reads a file of votes: leave A and B out")
        _score(score, json, markdown)
        return
    if a is None or b is None or prompts is None:
        raise click.UsageError("give A, B and --prompts; or --score FILE")
    from ..geneval.prompts import read_prompts

    asked = read_prompts(prompts)
    folders = _folders(ctx, (a, b), drawn, asked, seed, drawing)
    _serve((a, b), folders, asked, votes, seed, port)
    _score(votes, json, markdown)


def _refuse_given(ctx: click.Context, names: tuple[str, ...], why: str) -> None:
    """Raise UsageError where options were given that would be ignored."""
    default = click.core.ParameterSource.DEFAULT
    given = [name for name in names if ctx.get_parameter_source(name) != default]
    if given:
        told = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise click.UsageError(f"{why}: leave {told} out")


def _folders(
    ctx: click.Context,
    sides: tuple[Path, Path],
    drawn: Path | None,
    asked: "list[Prompt]",
    seed: int,
    drawing: dict[str, Any],
) -> tuple[Path, Path]:
    """Return the folders of images, having let bundles draw theirs."""
    from unimodal.bundle import CONFIG, directory_of

    are_bundles = [(directory_of(side) / CONFIG).is_file() for side in sides]
    if not any(are_bundles):
        _refuse_given(ctx, (*DRAWING, "drawn"), "A and B are folders of images")
    elif drawn is None:
        raise click.UsageError("A or B is a bundle: say by --drawn FOLDER where it may draw")
    if directory_of(sides[0]).resolve() == directory_of(sides[1]).resolve():
        raise ValueError(f"{sides[0]} is given twice: choose between images of two models")
    for side, is_bundle in zip(sides, are_bundles, strict=True):
        if not is_bundle:
            _check_drawn(side, asked, drawing["samples"] if any(are_bundles) else None)
    first, second = (
        _draw(side, drawn / name, asked, seed, **drawing) if is_bundle and drawn else side
        for side, is_bundle, name in zip(sides, are_bundles, "ab", strict=True)
    )
    return first, second


def _check_drawn(folder: Path, asked: "list[Prompt]", samples: int | None) -> None:
    """Raise ValueError, before anything is drawn, where a folder lacks images or has others than
    those that the other side will have: so many of each prompt, if that is known.
    """
    from ..geneval.folder import read_folder

    if not folder.is_dir():
        raise ValueError(f"{folder} is neither a folder of images nor a bundle")
    there = read_folder(folder, asked).samples
    if samples not in (None, there):
        raise ValueError(f"{folder} has {there} images of each prompt: give --samples {there}")


def _draw(
    bundle: Path,
    folder: Path,
    asked: "list[Prompt]",
    seed: int,
    samples: int,
    guidance: float | None,
    temperature: float | None,
    batch_size: int,
    device: str,
) -> Path:
    """Let a bundle draw what is missing in a folder; return the folder."""
    check_device(device)
    import unimodal

    from ..geneval.drawing import draw

    loaded = unimodal.load(bundle, device)
    sampling = sampling_of(loaded, guidance, temperature)
    draw(loaded, asked, folder, samples, seed, sampling, batch=batch_size)
    return folder


def _serve(
    sides: tuple[Path, Path],
    folders: tuple[Path, Path],
    asked: "list[Prompt]",
    votes: Path,
    seed: int,
    port: int,
) -> None:
    """Serve the page until Ctrl-C."""
    from ..results.stored import names_of
    from .arena import Arena
    from .pairs import read_pairs
    from .server import Server
    from .votes import VotesFile

    first, second = names_of(list(sides))
    pairs = read_pairs(*folders, (first, second), asked, seed)
    votes.parent.mkdir(parents=True, exist_ok=True)
    with VotesFile(votes, pairs.recipe) as kept, Server(Arena(pairs, seed, kept), port) as server:
        click.echo(f"{server.url} shows {len(pairs.pairs)} pairs; {len(kept)} votes are there")
        click.echo("Ctrl-C ends it and prints the win rates")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            click.echo("")


def _score(votes: Path, json: Path | None, markdown: Path | None) -> None:
    """Print the win rates of votes."""
    from ..results.shown import show
    from .votes import read_votes, report_of

    report = report_of(*read_votes(votes))
    show("arena", report, json, markdown)
    for line in report["words"]:
        click.echo(line)
