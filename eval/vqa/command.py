"""`unimodal eval vqa`: measures how a model answers the questions of a public benchmark."""

from pathlib import Path
from typing import Any

import click

from unimodal.finite_range import FiniteRange

from ..answerers.options import answerer_of, answerer_options
from ..options import (
    EVAL_SEED,
    IN_PATH,
    OUT_FILE,
    check_device,
    check_devices,
    files,
    option,
    training_option,
)
from .tasks import NAMES

DATA = click.Path(exists=True, path_type=Path)
DATA_OPTIONS = (
    click.option(
        "--images", type=click.Path(exists=True, file_okay=False, path_type=Path),
        help="The folder of images, which their names must not leave [default: that of --data].",
    ),
    click.option("--split", help="Of several in a folder of parquet files: the one to read."),
)  # fmt: skip


def source_options(required: bool):
    """Return a decorator that adds --data, --images and --split."""

    def add(command):
        words = "The official files: a file, their folder, or a dataset on disk."
        data = click.option("--data", type=DATA, required=required, help=words)
        for one in (*reversed(DATA_OPTIONS), data):
            command = one(command)
        return command

    return add


def source_of(data: Path, images: Path | None, split: str | None):
    """Return the source that the options name."""
    from .source import Source

    return Source(data, images or (data if data.is_dir() else data.parent), split)


@click.command("vqa")
@click.option("--task", type=click.Choice(list(NAMES)), required=True, help="The benchmark.")
@source_options(required=True)
@click.option(
    "--model", type=IN_PATH, help="A bundle or a published model [default: the shipped one]."
)
@click.option("--samples", type=click.IntRange(1), help="About how many items [default: all].")
@click.option("--prompt", help="With {question}, and {options} [default: the benchmark's own].")
@answerer_options
@click.option("--target-pixels", type=click.IntRange(1), help="Of an image [default: the model's].")
@click.option("--max-aspect-ratio", type=FiniteRange(1),
              help="Of an image, which is cropped to it; 1: squares [default: 4].")  # fmt: skip
@click.option("--predictions", type=OUT_FILE, help="Keep answers here as they come; resume. Rank 1"
              " of 3 keeps those of FILE.jsonl in FILE.1-of-3.jsonl.")  # fmt: skip
@click.option("--rank", envvar="RANK", default=0, help="Of this process [env RANK; default: 0].")
@click.option("--ranks", envvar="WORLD_SIZE", default=1, type=click.IntRange(1),
              help="Processes that share the work [env WORLD_SIZE; default: 1].")  # fmt: skip
@option("--seed", EVAL_SEED, "Of the choice of items, wrong images and drawn letters.",
        click.IntRange(0, 2**40))  # fmt: skip
@option("--batch-size", 32, "Questions at a time; answers do not depend on it.", click.IntRange(1))
@training_option
@files
def vqa_(
    task: str,
    data: Path,
    images: Path | None,
    split: str | None,
    model: Path | None,
    samples: int | None,
    prompt: str | None,
    target_pixels: int | None,
    max_aspect_ratio: float | None,
    predictions: Path | None,
    rank: int,
    ranks: int,
    seed: int,
    batch_size: int,
    training: tuple[str, ...],
    device: str,
    json: Path | None,
    markdown: Path | None,
    **others: Any,
) -> None:
    """Measure how a model answers a public benchmark, by its official rules.

    \b
    unimodal eval vqa --task nlvr --data shards/nlvr --predictions nlvr.jsonl --json nlvr.json
    unimodal eval vqa --task pope --data POPE/output/coco --images val2014 --samples 500
    unimodal eval vqa --task gqa --data gqa --transformers OWNER/NAME --device cuda
    unimodal eval score vqa nlvr.jsonl
    """
    if ranks > 1 and (json or markdown or training):
        raise click.UsageError("a rank of several has no scores to write: `eval score` has them")
    check_device(device) if any(others.values()) else check_devices(device)
    import unimodal

    from ..results.shown import show
    from .asking import BLIND, SHUFFLED
    from .evaluation import evaluate
    from .tasks import task_of

    benchmark = task_of(task)
    benchmark.check()
    loaded = answerer_of(model, device, **others) or unimodal.load(model, device)
    file = predictions if predictions is None or ranks == 1 else _of_rank(predictions, rank, ranks)
    report = evaluate(
        loaded, benchmark, source_of(data, images, split), seed, samples, prompt, target_pixels,
        max_aspect_ratio, batch_size, file, rank, ranks, training,
    )  # fmt: skip
    if report is None:
        click.echo(f"rank {rank} of {ranks} has answered: {file}; score all by `eval score vqa`")
        return
    passes = {one["pass"] for one in report["predictions"]}
    if BLIND in passes and SHUFFLED not in passes:
        told = "all questions have the same images, so that there are no wrong ones to show"
        click.echo(f"note: no rows `{SHUFFLED}`: {told}", err=True)
    show(f"vqa: {task}", report, json, markdown)


def _of_rank(file: Path, rank: int, ranks: int) -> Path:
    return file.with_name(f"{file.stem}.{rank}-of-{ranks}{file.suffix}")
