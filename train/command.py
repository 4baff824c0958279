"""The verb `unimodal train`."""

import os
from pathlib import Path

import click

from .plan.command import plan


@click.group()
def train() -> None:
    """Train an image tokenizer or a language model from shards.

    \b
    Examples:
      unimodal train tokenizer configs/scenes_tokenizer.yaml
      unimodal train lm configs/scenes_lm.yaml optimizer.lr=5e-4
      unimodal train plan configs/lm_1.7b.yaml --gpus 8 --memory-gb 80

    The same command goes on where a run was stopped.
    """


@train.command()
@click.argument("config", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("overrides", nargs=-1)
def tokenizer(config: Path, overrides: tuple[str, ...]) -> None:
    """Train an image tokenizer as CONFIG says, with OVERRIDES such as batch_images=64 on top."""
    from unimodal.config import load

    from .tokenizer import TokenizerRun, train

    click.echo(train(load(TokenizerRun, config, overrides)))


@train.command()
@click.argument("config", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("overrides", nargs=-1)
def lm(config: Path, overrides: tuple[str, ...]) -> None:
    """Train a language model as CONFIG says, with OVERRIDES such as schedule.num_steps=100 on
    top.
    """
    from unimodal.config import load

    from .lm import train
    from .run import LmRun

    finished = train(load(LmRun, config, overrides))
    if os.environ.get("RANK", "0") == "0":
        click.echo(finished)


train.add_command(plan)


@train.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--count", type=click.IntRange(1), default=12, show_default=True, help="Answers.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
def sample(run: Path, count: int, seed: int) -> None:
    """Let the newest checkpoint of RUN answer conversations of its data, beside its training.

    \b
    unimodal train sample runs/scenes_lm
    watch -n 600 unimodal train sample runs/scenes_lm --count 24

    Writes RUN/samples/step_N.png and .json: the question in blue, the reply in green, and the
    answer that the data has in black.
    """
    from .sample import sample as answered

    click.echo(answered(run, count, seed))
