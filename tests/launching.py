"""What tests that launch ranks share: a tiny run under ZeRO-3, and the environment of its ranks."""

import os
from dataclasses import replace
from pathlib import Path

from tiny_runs import recipe, write_conversations, write_tokenizer

from unimodal.config import load, save
from unimodal.train import lm
from unimodal.train.optimizer import OptimizerConfig
from unimodal.train.ranks import Ranks
from unimodal.train.run import LmRun
from unimodal.train.zero import EngineConfig

ROOT = Path(__file__).resolve().parents[1]


def tiny_run(folder: Path, num_steps: int) -> Path:
    """Write the config of a run under ZeRO-3 into `folder`, with its shards and image tokenizer."""
    shards = write_conversations(folder / "shards", samples=24, shard_samples=24)
    tokenizer = write_tokenizer(folder / "tokenizer")
    config = recipe(folder / "run", shards, tokenizer, num_steps, num_threads=1)
    config = replace(
        config,
        loader=replace(config.loader, sequence_length=512, batch_rows=2),
        optimizer=OptimizerConfig(lr=3e-3),
        engine=EngineConfig(deepspeed=ROOT / "configs" / "zero3.json", timeout_s=120),
    )
    save(config, folder / "config.yaml")
    return folder / "config.yaml"


def train(config: str, ranks: Ranks) -> None:
    """Train what a config file says, on ranks that are there."""
    lm.train(load(LmRun, config))


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a process that launches ranks on the CPU."""
    ours = {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "DS_ACCELERATOR": "cpu",
        "PYTHONWARNINGS": "ignore",
    }
    return {**os.environ, **ours, **more}
