"""`unimodal eval score`: scores kept predictions, or other programs' answers, without a model."""

from pathlib import Path

import click

from .options import EVAL_SEED, IN_FILE, OUT_FILE
from .vqa.command import source_of, source_options
from .vqa.tasks import NAMES

KEPT = "vqa"


@click.command("score")
@click.argument("name", type=click.Choice([KEPT, *NAMES]))
@click.argument("predictions", type=IN_FILE, nargs=-1, required=True)
@source_options(required=False)
@click.option(
    "--seed", type=click.IntRange(0, 2**40),
    help=f"Of letters drawn for other programs' answers [default: {EVAL_SEED}].",
)  # fmt: skip
@click.option("--json", type=OUT_FILE, help="Write scores and every prediction here.")
@click.option("--markdown", type=OUT_FILE, help="Write the table here.")
def score_(
    name: str,
    predictions: tuple[Path, ...],
    data: Path | None,
    images: Path | None,
    split: str | None,
    seed: int | None,
    json: Path | None,
    markdown: Path | None,
) -> None:
    """Score PREDICTIONS again: files that `eval vqa` kept (NAME is vqa), those of all ranks; or a
    file of another program's answers (NAME is the task, --data its official files), objects of
    question_id and answer.

    \b
    unimodal eval score vqa nlvr.jsonl
    unimodal eval score vqav2 answers.json --data vqav2
    """
    from .report import show
    from .vqa.evaluation import scored_again, scored_answers
    from .vqa.tasks import task_of

    if name == KEPT:
        if data or images or split or seed is not None:
            raise click.UsageError("predictions of `eval vqa` hold questions and seed: give files")
        report = scored_again(predictions)
    elif data is None or len(predictions) != 1:
        raise click.UsageError("for answers of another program give one file, and --data")
    else:
        source = source_of(data, images, split)
        report = scored_answers(
            task_of(name), source, predictions[0], EVAL_SEED if seed is None else seed
        )
    show(f"vqa: {report['recipe']['task']}", report, json, markdown)
