"""The verb `unimodal train teach`."""

from pathlib import Path

import click

from unimodal.finite_range import FiniteRange

MOST_MINUTES = 7 * 24 * 60  # a week: more is a slip of the keys


@click.command()
@click.argument("pictures", type=click.Path(path_type=Path))
@click.option(
    "--output", type=click.Path(path_type=Path, file_okay=False), required=True,
    help="The folder of the finished bundle and its report; the same one goes on.",
)  # fmt: skip
@click.option(
    "--bundle", default="default", show_default=True,
    help="The bundle that learns: a directory, or `default`, the shipped one.",
)  # fmt: skip
@click.option("--steps", type=click.IntRange(1), help="Steps [default: about 60 passes].")
@click.option(
    "--minutes", type=FiniteRange(0, MOST_MINUTES, min_open=True),
    help="Of training, in place of --steps; steps are timed first.",
)  # fmt: skip
@click.option(
    "--replay", type=FiniteRange(0, 1, max_open=True),
    help="The share of tokens that are conversations of the world of scenes, so that old skills "
    "stay [default: 0.5 where the bundle has learned scenes].",
)  # fmt: skip
@click.option(
    "--mix", metavar="NAME=NUMBER", multiple=True,
    help="The mix of the replayed conversations, as in `data scenes`: people, draw=0.5, ...",
)  # fmt: skip
@click.option(
    "--things", type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="The folder of icons (`data things`) that replay is about too, for a bundle that knows "
    "them.",
)  # fmt: skip
@click.option(
    "--all-weights/--adapters", default=None,
    help="Train all weights, or adapters (LoRA) beside them and the rows of image codes, which "
    "leave the rows of words as they are [default: adapters from 100 million weights on].",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(0, 2**40), default=0, show_default=True)
@click.option(
    "--hold-out", type=click.IntRange(0), default=0, show_default=True,
    help="Images that are not taught, but examined.",
)  # fmt: skip
@click.option(
    "--exam", type=click.IntRange(0),
    help="Samples of each kind in the exam of scenes, before and after; 0: none "
    "[default: 10 where the bundle has learned scenes].",
)  # fmt: skip
@click.option("--skip-bad", is_flag=True, help="Go on without the images that cannot be used.")
def teach(
    pictures: Path,
    output: Path,
    bundle: str,
    steps: int | None,
    minutes: float | None,
    replay: float | None,
    mix: tuple[str, ...],
    things: Path | None,
    all_weights: bool | None,
    seed: int,
    hold_out: int,
    exam: int | None,
    skip_bad: bool,
) -> None:
    """Teach a bundle the captioned images in the folder PICTURES: to draw each by its caption, and
    to name it.

    A caption is a .txt beside its image, or stands in captions.csv (image,caption) or
    metadata.jsonl. The folder is checked, and what will happen is said, before time is spent; the
    same command goes on where it was stopped.

    \b
    unimodal train teach my_pictures --output runs/mine
    unimodal train teach my_pictures --output runs/mine --minutes 5 --hold-out 4
    unimodal train teach my_pictures --output runs/more --bundle runs/mine/bundle --seed 1
    unimodal chat --model runs/mine/bundle

    Writes OUTPUT/bundle, OUTPUT/before_after.png (each image: the original, through the image
    tokenizer, drawn before and after) and OUTPUT/report.md with the scores of your images and of
    old skills, before and after.
    """
    from unimodal.bundle import directory_of

    from .lesson import Lesson
    from .teach import teach as taught

    lesson = Lesson(
        pictures, output, directory_of(bundle), steps, minutes, replay, mix, things, all_weights,
        seed, hold_out, exam, skip_bad,
    )  # fmt: skip
    for line in taught(lesson, lambda line: click.echo(line, err=True)):
        click.echo(line)
