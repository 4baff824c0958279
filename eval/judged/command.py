"""`unimodal eval judged`: asks a judge the questions of a benchmark about drawn images."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..options import IN_FILE, IN_FOLDER, OUT_FILE, check_device, files, option
from .benchmarks import NAMES

if TYPE_CHECKING:
    from .judge import Judge


@click.command("judged")
@click.argument("benchmark", type=click.Choice(list(NAMES)))
@click.option("--questions", type=IN_FILE, required=True, help="The official file of prompts.")
@click.option("--images", type=click.Path(exists=True, path_type=Path), required=True,
              help="A folder, or a JSON file {prompt or id: image}.")  # fmt: skip
@click.option("--judge", type=IN_FOLDER, help="A folder of an image-text-to-text model.")
@click.option("--server", metavar="URL", help="An OpenAI-compatible one: http://host:port/v1.")
@click.option("--server-model", metavar="NAME", help="The model that the server is asked for.")
@click.option("--cells", type=click.Choice(["4", "1"]), help="dpg: images in a file [default: 4].")
@click.option("--each-token-once", is_flag=True, help="geneval2: count no token twice.")
@click.option("--predictions", type=OUT_FILE, help="Keep answers here as they come; resume.")
@click.option("--rank", envvar="RANK", default=0, help="Of this process [env RANK; default: 0].")
@click.option("--ranks", envvar="WORLD_SIZE", default=1, type=click.IntRange(1),
              help="Processes that share the work [env WORLD_SIZE; default: 1].")  # fmt: skip
@option("--batch-size", 8, "Questions at a time.", click.IntRange(1))
@files
def judged_(
    benchmark: str,
    questions: Path,
    images: Path,
    judge: Path | None,
    server: str | None,
    server_model: str | None,
    cells: str | None,
    each_token_once: bool,
    predictions: Path | None,
    rank: int,
    ranks: int,
    batch_size: int,
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
    if ranks > 1 and predictions is None:
        raise click.UsageError("a rank of several keeps its answers: give --predictions")
    if server is not None and device != "cpu":
        raise click.UsageError("--device is of --judge: a server has its own; leave it out")
    check_device(device)
    from ..report import show
    from .benchmarks import benchmark_of
    from .evaluation import evaluate

    asked = benchmark_of(benchmark)
    if cells is not None and int(cells) not in asked.cells:
        raise click.UsageError(f"--cells is of dpg, not of {benchmark}: leave it out")
    if each_token_once and asked.once:
        raise click.UsageError(f"--each-token-once: {benchmark} always does; leave it out")
    made = asked.questions(questions, images, int(cells or asked.cells[0]))
    judging = _judge(judge, server, server_model, device)
    file = predictions
    if predictions is not None and ranks > 1:
        file = predictions.with_name(f"{predictions.stem}.{rank}-of-{ranks}{predictions.suffix}")
    report = evaluate(judging, asked, made, each_token_once, batch_size, file, rank, ranks)
    if report is None:
        click.echo(f"rank {rank} of {ranks} has asked: {file}; score all by `eval score judged`")
        return
    show(f"judged: {benchmark}", report, json, markdown)


def _judge(
    folder: Path | None, server: str | None, server_model: str | None, device: str
) -> "Judge":
    """Return the judge that the options name."""
    if folder is not None:
        from .local_judge import LocalJudge

        return LocalJudge(folder, device)
    from ..answerers.endpoint import Endpoint
    from ..answerers.options import KEY_VARIABLE
    from .server_judge import ServerJudge

    assert server is not None and server_model is not None, "they are given together"
    return ServerJudge(Endpoint(server, os.environ.get(KEY_VARIABLE)), server_model)
