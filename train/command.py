"""The verb `unimodal train`."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from .lesson.command import teach
from .plan.command import plan


@click.group()
def train() -> None:
    """Train an image tokenizer or a language model from shards.

    \b
    Examples:
      unimodal train tokenizer scenes_tokenizer
      unimodal train lm scenes_lm optimizer.lr=5e-4
      unimodal train rl scenes_rl
      unimodal train select scenes_own
      unimodal train plan lm_1.7b --gpus 8 --memory-gb 80
      unimodal train teach my_pictures --output runs/mine

    CONFIG is a YAML file, or the name of a recipe that is shipped. The same command goes on where a
    run was stopped.
    """


def resuming(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the arguments and options of a run that can be stopped."""
    for add in (
        click.option(
            "--verify", is_flag=True,
            help="Read all shards to the last byte: loop.verify=all, for this start.",
        ),
        click.option(
            "--accept-change", is_flag=True,
            help="Go on with a run though settings or shards that change what is learned are not "
            "what they were (docs/resuming.md).",
        ),
        click.argument("overrides", nargs=-1),
        click.argument("config"),
    ):  # fmt: skip
        command = add(command)
    return command


@train.command()
@resuming
def tokenizer(config: str, overrides: tuple[str, ...], accept_change: bool, verify: bool) -> None:
    """Train an image tokenizer as CONFIG says, with OVERRIDES such as batch_images=64 on top."""
    from unimodal.config import load

    from .tokenizer import TokenizerRun, train

    more = ("loop.verify=all",) if verify else ()
    finished = train(load(TokenizerRun, config, overrides + more), accept_change)
    if os.environ.get("RANK", "0") == "0":
        click.echo(finished)


@train.command()
@resuming
def lm(config: str, overrides: tuple[str, ...], accept_change: bool, verify: bool) -> None:
    """Train a language model as CONFIG says, with OVERRIDES such as schedule.num_steps=100 on
    top.
    """
    from unimodal.config import load

    from .lm import train
    from .run import LmRun

    more = ("loop.verify=all",) if verify else ()
    finished = train(load(LmRun, config, overrides + more), accept_change)
    if os.environ.get("RANK", "0") == "0":
        click.echo(finished)


@train.command()
@resuming
def rl(config: str, overrides: tuple[str, ...], accept_change: bool, verify: bool) -> None:
    """Teach a model by rewards as CONFIG says, with OVERRIDES such as rollout.prompts=16 on top."""
    from unimodal.config import load

    from .rl.run import RlRun
    from .rl.train import train

    more = ("loop.verify=all",) if verify else ()
    finished = train(load(RlRun, config, overrides + more), accept_change)
    if os.environ.get("RANK", "0") == "0":
        click.echo(finished)


@train.command()
@click.argument("config")
@click.argument("overrides", nargs=-1)
def select(config: str, overrides: tuple[str, ...]) -> None:
    """Let a bundle answer as CONFIG says, and keep the replies that are right, as shards to train
    on.

    \b
    unimodal train select scenes_own
    unimodal train select scenes_own weights=runs/mine/bundle output=runs/own replies=1000

    The same command goes on where it was stopped.
    """
    from unimodal.config import load

    from .rl.selection import SelectionRun
    from .rl.selection import select as selected

    run = load(SelectionRun, config, overrides)
    note = selected(run)
    click.echo(f"{run.output}: {note.kept:,} replies of {note.asked:,}")


train.add_command(plan)
train.add_command(teach)


@train.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--count", type=click.IntRange(1), default=12, show_default=True, help="Answers.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
def sample(run: Path, count: int, seed: int) -> None:
    """Let the newest checkpoint of RUN answer conversations of its data, and go on with documents
    that are none, beside its training.

    \b
    unimodal train sample runs/scenes_lm
    watch -n 600 unimodal train sample runs/scenes_lm --count 24

    Writes RUN/samples/step_N.png and .json: the question, or the beginning of a document, in blue,
    the reply in green, and what the data has in black.
    """
    from .sample import sample as answered

    click.echo(answered(run, count, seed))
