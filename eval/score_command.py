"""`unimodal eval score`: scores kept predictions, or other programs' answers, without a model."""

from pathlib import Path
from typing import Any

import click

from .options import EVAL_SEED, IN_FILE, OUT_FILE
from .vqa.command import source_of, source_options
from .vqa.tasks import NAMES

KEPT = ("vqa", "judged")  # whose predictions hold all that scores need


@click.command("score")
@click.argument("name", type=click.Choice([*KEPT, *NAMES]))
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
    """Score PREDICTIONS again: files that `eval vqa` or `eval judged` kept (NAME is vqa or judged),
    those of all ranks; or a file of another program's answers (NAME is the task, --data its
    official files), objects of question_id and answer.

    \b
    unimodal eval score vqa nlvr.jsonl
    unimodal eval score judged dpg.jsonl
    unimodal eval score vqav2 answers.json --data vqav2
    """
    from .overlap import with_overlap
    from .results.shown import show

    if name in KEPT:
        if data or images or split or seed is not None:
            raise click.UsageError(
                f"predictions of `eval {name}` hold all that it takes: give files"
            )
        report = _again(name, predictions)
    elif data is None or len(predictions) != 1:
        raise click.UsageError("for answers of another program give one file, and --data")
    else:
        from .vqa.evaluation import scored_answers
        from .vqa.tasks import task_of

        source = source_of(data, images, split)
        report = scored_answers(
            task_of(name), source, predictions[0], EVAL_SEED if seed is None else seed
        )
    report = with_overlap(report, None)  # the shards are not looked at here
    recipe = report["recipe"]
    show(f"{recipe['evaluation']}: {recipe['task']}", report, json, markdown)


def _again(name: str, predictions: tuple[Path, ...]) -> dict[str, Any]:
    """Return the report of kept predictions."""
    if name == "judged":
        from .judged.evaluation import scored_again

        return scored_again(predictions)
    from .vqa import evaluation

    return evaluation.scored_again(predictions)
