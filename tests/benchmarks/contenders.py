"""The quantizers of an equal-budget table, and the run of each: trained, then measured.

Each runs `unimodal train tokenizer` and `unimodal eval tokenizer` as a user would, in processes of
their own; what is there is not done again, and a run that was stopped goes on.
"""

import json
import math
import os
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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

ROOT = Path(__file__).resolve().parents[2]
LEVELS = {10: (8, 8, 4, 4), 14: (8, 8, 8, 8, 4), 16: (8, 8, 8, 8, 4, 4)}  # of FSQ, by bits
FSQ = {"FSQ": "equal_width", "iFSQ": "sigmoid", "equal-mass FSQ": "equal_mass"}
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
    """Train a contender, as far as it is not, and return its run's folder."""
    output = folder / "runs" / contender.name
    if not (output / "tokenizer").exists():
        recipe = folder / "recipes" / f"{contender.name}.yaml"
        recipe.parent.mkdir(parents=True, exist_ok=True)
        config.save(budget.run(contender, shards, output), recipe)
        log = folder / "logs" / f"{contender.name}.txt"
        call("train", "tokenizer", recipe, log=log, cpu=cpu_file(output))
    return output


def scored(
    run: Path, images: Path | None, file: Path, samples: int, log: Path, *more: str
) -> dict[str, Any]:
    """What `eval tokenizer` says of a run's tokenizer, measured once; of scenes without images."""
    if not file.exists():
        shown = () if images is None else (images,)
        words = ("--samples", samples, "--json", file, *more)
        call("eval", "tokenizer", run, *shown, *words, log=log)
    return json.loads(file.read_text())


def cpu_file(run: Path) -> Path:
    """Where the seconds of a run's processes are kept, one line for each start."""
    return run.parent / f"{run.name}.cpu_s.txt"


def cpu_minutes(run: Path) -> float:
    """What the training of a run took of processors, however busy the machine was."""
    return sum(map(float, cpu_file(run).read_text().split())) / 60


def call(*words: object, log: Path, cpu: Path | None = None) -> None:
    """Run `unimodal` with these words in one thread; what it prints goes to the log, its time on
    processors to `cpu`. It ends this process with its exit status where that is not 0.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    before = _children_s()
    with log.open("a") as file:
        done = subprocess.run(
            [sys.executable, "-m", "unimodal", *map(str, words)], cwd=ROOT, stdout=file,
            stderr=file, env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "100"},
        )  # fmt: skip
    if cpu is not None:
        cpu.parent.mkdir(parents=True, exist_ok=True)
        with cpu.open("a") as file:
            print(_children_s() - before, file=file)
    if done.returncode:
        print(f"unimodal {words[0]} {words[1]} ended with {done.returncode}: see {log}")
        sys.exit(done.returncode)


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def codes_needed(bits: int, codes_an_image: int) -> int:
    """How many images have ten times as many codes as there are."""
    return math.ceil(10 * 2**bits / codes_an_image)
