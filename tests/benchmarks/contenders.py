"""The quantizers of an equal-budget table, and the run of each by `unimodal train tokenizer`.

What is there is not done again, and a run that was stopped goes on.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import click

from unimodal import config
from unimodal.tokenizer.autoencoder import TokenizerConfig
from unimodal.tokenizer.autoencoders.convolutions import ConvolutionsConfig
from unimodal.tokenizer.quantizers.config import (
    BsqConfig,
    FsqConfig,
    LfqConfig,
    QuantizerConfig,
    VqConfig,
)
from unimodal.train.loop import LoopConfig
from unimodal.train.optimizer import OptimizerConfig
from unimodal.train.schedule import ScheduleConfig
from unimodal.train.tokenizer import TokenizerRun

from .commands import call, cpu_file, cpu_minutes

LEVELS = {10: (8, 8, 4, 4), 14: (8, 8, 8, 8, 4), 16: (8, 8, 8, 8, 4, 4)}  # of FSQ, by bits
FSQ = {"FSQ": "equal_width", "iFSQ": "sigmoid", "equal-mass FSQ": "equal_mass"}
PROBES = (100, 400)  # steps of the short runs that tell what a step takes
KINDS = (*FSQ, "LFQ", "BSQ", "VQ-EMA")
SMALL = ConvolutionsConfig(widths=(32, 128), encoder_blocks=(1, 1), decoder_blocks=(1, 2))


@dataclass(frozen=True)
class Contender:
    """A quantizer and its number of codes."""

    kind: str
    bits: int = 14

    @property
    def name(self) -> str:
        """What files are called."""
        return f"{self.kind.lower().replace(' ', '-')}-{self.bits}"

    @property
    def quantizer(self) -> QuantizerConfig:
        """Its settings; of all that is not the codebook's size, the defaults."""
        if self.kind in FSQ:
            return QuantizerConfig(fsq=FsqConfig(LEVELS[self.bits], FSQ[self.kind]))
        if self.kind == "LFQ":
            return QuantizerConfig(lfq=LfqConfig(self.bits))
        if self.kind == "BSQ":
            return QuantizerConfig(bsq=BsqConfig(self.bits))
        return QuantizerConfig(vq=VqConfig(2**self.bits))


@dataclass(frozen=True)
class Budget:
    """What every contender gets."""

    num_steps: int
    batch_images: int
    precision: str = "bf16"
    lr: float = 1e-3

    def run(self, contender: Contender, shards: Path, output: Path) -> TokenizerRun:
        """The run of a contender."""
        warmup, decay = min(100, self.num_steps // 10), self.num_steps // 3
        return TokenizerRun(
            output=output,
            shards=str(shards),
            schedule=ScheduleConfig(self.num_steps, warmup, decay),
            batch_images=self.batch_images,
            min_usage=0.0,
            precision=self.precision,
            model=TokenizerConfig(contender.quantizer, convolutions=SMALL),
            optimizer=OptimizerConfig(lr=self.lr, beta2=0.99),
            loop=LoopConfig(
                save_every_steps=min(250, self.num_steps), keep_checkpoints=1, num_threads=1
            ),
        )


def trained(contender: Contender, budget: Budget, shards: Path, folder: Path) -> Path:
    """Train a contender, as far as it is not, and return its run's folder; UsageError where the
    folder has it with another budget.
    """
    output = folder / "runs" / contender.name
    run, recipe = (
        budget.run(contender, shards, output),
        folder / "recipes" / f"{contender.name}.yaml",
    )
    if recipe.exists():
        differing = list(config.changes(config.load(TokenizerRun, recipe), run))
        if differing:
            said = ", ".join(f"{name} {old} (now {new})" for name, old, new in differing)
            raise click.UsageError(f"{recipe} is of another budget: {said}; name another folder")
    if not (output / "tokenizer").exists():
        recipe.parent.mkdir(parents=True, exist_ok=True)
        config.save(run, recipe)
        log = folder / "logs" / f"{contender.name}.txt"
        call("train", "tokenizer", recipe, log=log, cpu=cpu_file(output))
    return output


def affordable(
    contender: Contender, minutes: float, budget: Budget, shards: Path, folder: Path
) -> Budget:
    """Return the budget with as many steps as take the contender these minutes of a processor, its
    start counted, by two short runs.
    """
    short, longer = (
        cpu_minutes(
            trained(contender, replace(budget, num_steps=steps), shards, folder / f"{steps}")
        )
        for steps in PROBES
    )
    step = (longer - short) / (PROBES[1] - PROBES[0])
    if step <= 0 or minutes <= short:
        raise click.UsageError(
            f"{contender.kind}: {PROBES[0]} steps took {short:.2f} minutes of a processor and "
            f"{PROBES[1]} took {longer:.2f}: give more --cpu-minutes than {minutes:g}"
        )
    return replace(budget, num_steps=PROBES[0] + round((minutes - short) / step))


def codes_needed(bits: int, codes_an_image: int) -> int:
    """How many images have ten times as many codes as there are."""
    return math.ceil(10 * 2**bits / codes_an_image)
