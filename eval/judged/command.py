"""`unimodal eval draw` and `unimodal eval judged`: draw a benchmark's prompts, and ask a judge the
benchmark's questions about what was drawn.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..options import (
    EVAL_SEED,
    IN_FILE,
    IN_FOLDER,
    IN_PATH,
    OUT_FILE,
    check_device,
    files,
    option,
    sampling_of,
    training_option,
)
from .benchmarks import NAMES

if TYPE_CHECKING:
    from .benchmark import Benchmark
    from .judge import Judge


@click.command("draw")
@click.argument("benchmark", type=click.Choice(list(NAMES)))
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--prompts", type=click.Path(exists=True, path_type=Path), required=True,
              help="The official file of prompts or questions; dpg: or its folder.")  # fmt: skip
@click.option("--model", type=IN_PATH, help="A bundle's directory [default: the shipped].")
@click.option("--samples", type=click.IntRange(1), help="compbench: of each prompt [default: 10].")
@click.option("--cells", type=click.Choice(["4", "1"]), help="dpg: images in a file [default: 4].")
@click.option("--guidance", type=float, help="1 is off [default: the model's].")
@click.option("--temperature", type=float, help="Of drawing [default: the model's].")
@option("--seed", EVAL_SEED, "Of the noise.", click.IntRange(0, 2**40))
@option("--batch-size", 32, "Files at a time; images do not depend on it.", click.IntRange(1))
@option("--device", "cpu", "Where it runs: cpu, cuda, cuda:1 ...", click.STRING)
def draw_(
    benchmark: str,
    folder: Path,
    prompts: Path,
    model: Path | None,
    samples: int | None,
    cells: str | None,
    guidance: float | None,
    temperature: float | None,
    seed: int,
    batch_size: int,
    device: str,
) -> None:
    """Draw the prompts of a benchmark into FOLDER, as `eval judged` reads it; go on where it
    stopped.

    \b
    unimodal eval draw dpg drawn --prompts dpg_bench.csv
    unimodal eval judged dpg --questions dpg_bench.csv --images drawn --judge Qwen3-VL-8B-Instruct
    """
    check_device(device)
    from .benchmarks import benchmark_of
    from .drawing import draw

    asked = benchmark_of(benchmark)
    num_cells = _cells(asked, cells)
    if samples not in (None, 1) and asked.samples == 1:
        raise click.UsageError(f"--samples {samples}: {benchmark} has one file of each prompt")
    asked.prompts(prompts)  # what is wrong with the file is told before a model is loaded
    import unimodal

    loaded = unimodal.load(model, device)
    sampling = sampling_of(loaded, guidance, temperature)
    count = draw(
        loaded, asked, prompts, folder, samples or asked.samples, num_cells, seed, sampling,
        batch_size,
    )  # fmt: skip
    images = folder if asked.index is None else folder / asked.index
    click.echo(f"{folder}: {count} files; go on by `unimodal eval judged {benchmark} "
               f"--questions FILE --images {images}`")  # fmt: skip


@click.command("judged")
@click.argument("benchmark", type=click.Choice(list(NAMES)))
@click.option("--questions", type=IN_FILE, required=True, help="The official file of prompts.")
@click.option("--images", type=click.Path(exists=True, path_type=Path), required=True,
              help="A folder, or a JSON file {prompt or id: image}.")  # fmt: skip
@click.option("--judge", type=IN_FOLDER, help="A folder of an image-text-to-text model.")
@click.option("--server", metavar="URL", help="An OpenAI-compatible one: http://host:port/v1.")
@click.option("--server-model", metavar="NAME", help="The model that the server is asked for.")
@click.option("--top-tokens", type=click.IntRange(1), help="That --server tells [default: 20].")
@click.option("--cells", type=click.Choice(["4", "1"]), help="dpg: images in a file [default: 4].")
@click.option("--each-token-once", is_flag=True, help="geneval2: count no token twice.")
@click.option("--predictions", type=OUT_FILE, help="Keep answers here as they come; resume.")
@click.option("--rank", envvar="RANK", default=0, help="Of this process [env RANK; default: 0].")
@click.option("--ranks", envvar="WORLD_SIZE", default=1, type=click.IntRange(1),
              help="Processes that share the work [env WORLD_SIZE; default: 1].")  # fmt: skip
@option("--batch-size", 8, "Questions at a time.", click.IntRange(1))
@training_option
@files
def judged_(
    benchmark: str,
    questions: Path,
    images: Path,
    judge: Path | None,
    server: str | None,
    server_model: str | None,
    top_tokens: int | None,
    cells: str | None,
    each_token_once: bool,
    predictions: Path | None,
    rank: int,
    ranks: int,
    batch_size: int,
    training: tuple[str, ...],
    device: str,
    json: Path | None,
    markdown: Path | None,
) -> None:
    """Ask a judge the questions of a benchmark about images that were drawn of its prompts.

    \b
    unimodal eval judged dpg --questions dpg_bench.csv --images drawn --judge Qwen3-VL-8B-Instruct
    unimodal eval judged tifa --questions tifa.json --images drawn \\
        --server http://localhost:8000/v1 --server-model qwen3-vl --predictions tifa.jsonl
    unimodal eval score judged tifa.jsonl
    """
    if (judge is None) == (server is None) or (server is None) != (server_model is None):
        raise click.UsageError("give --judge, or --server with --server-model")
    if ranks > 1 and (json or markdown):
        raise click.UsageError("a rank of several has no scores to write: `eval score` has them")
    if not 0 <= rank < ranks:
        raise click.UsageError(f"--rank {rank} of {ranks}: ranks are 0 to {ranks - 1}")
    if ranks > 1 and training:
        raise click.UsageError("--training is of a run that scores: a rank of several only asks")
    if ranks > 1 and predictions is None:
        raise click.UsageError("a rank of several keeps its answers: give --predictions")
    if server is not None and device != "cpu":
        raise click.UsageError("--device is of --judge: a server has its own; leave it out")
    if server is None and top_tokens is not None:
        raise click.UsageError("--top-tokens is of --server: --judge tells all; leave it out")
    check_device(device)
    from ..geneval.folder import drawn_recipe
    from ..overlap import Probe, check_shards, overlap, with_overlap
    from ..results.shown import show
    from .benchmarks import benchmark_of
    from .evaluation import evaluate

    check_shards(training)

    asked = benchmark_of(benchmark)
    num_cells = _cells(asked, cells)
    if each_token_once and asked.once:
        raise click.UsageError(f"--each-token-once: {benchmark} always does; leave it out")
    made = asked.questions(questions, images, num_cells)
    judging = _judge(judge, server, server_model, top_tokens, device)
    file = predictions
    if predictions is not None and ranks > 1:
        file = predictions.with_name(f"{predictions.stem}.{rank}-of-{ranks}{predictions.suffix}")
    drawing = drawn_recipe(images, "drawing_")
    report = evaluate(judging, asked, made, each_token_once, batch_size, file, rank, ranks, drawing)
    if report is None:
        click.echo(f"rank {rank} of {ranks} has asked: {file}; score all by `eval score judged`")
        return
    probes = [Probe(item, words) for item, words in {one.item: one.prompt for one in made}.items()]
    found = overlap(probes, (), training) if training else None
    show(f"judged: {benchmark}", with_overlap(report, found), json, markdown)


def _cells(asked: "Benchmark", cells: str | None) -> int:
    """Return how many images a file holds; UsageError for a number that the benchmark has not."""
    if cells is not None and int(cells) not in asked.cells:
        raise click.UsageError(f"--cells is of dpg, not of {asked.name}: leave it out")
    return int(cells or asked.cells[0])


def _judge(
    folder: Path | None,
    server: str | None,
    server_model: str | None,
    top_tokens: int | None,
    device: str,
) -> "Judge":
    """Return the judge that the options name."""
    if folder is not None:
        from .local_judge import LocalJudge

        return LocalJudge(folder, device)
    from ..answerers.endpoint import Endpoint
    from ..answerers.options import KEY_VARIABLE
    from .server_judge import TOP, ServerJudge

    assert server is not None and server_model is not None, "they are given together"
    endpoint = Endpoint(server, os.environ.get(KEY_VARIABLE))
    return ServerJudge(endpoint, server_model, top_tokens or TOP)
