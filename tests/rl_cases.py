"""Tiny runs of learning from rewards: their bundle, their recipe, their reward."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from unimodal.bundle import save_bundle
from unimodal.document import Document, Image, Part
from unimodal.model import Model
from unimodal.tokenizer.grid import Grid
from unimodal.train.checkpoint import Checkpoint
from unimodal.train.loop import LoopConfig
from unimodal.train.optimizer import OptimizerConfig
from unimodal.train.ranks import Ranks
from unimodal.train.rl.run import GrpoConfig, PromptsConfig, RewardConfig, RlRun, RolloutConfig
from unimodal.train.rl.train import read_given, train_on
from unimodal.train.schedule import ScheduleConfig
from unimodal.train.zero import EngineConfig

ZERO = {2: Path("configs/zero2.json"), 3: Path("configs/zero3.json")}


def low(document: Document, reply: tuple[Part, ...]) -> float:
    """Return the share of the codes of a reply's image that are in the lower half."""
    assert document.parts[-1].role == "user"
    (image,) = (part for part in reply if isinstance(part, Image))
    assert image.codes is not None and image.pixels is not None, "both can be judged"
    return float(np.mean(image.codes < 32))


def write_bundle(model: Model, folder: Path) -> Path:
    """Write a model that draws squares of 64 pixels and return its folder."""
    square = replace(model, grid=Grid(8, 8))
    card = {**model.card, "data_seeds": []}
    return save_bundle(folder, replace(square, card=card))


def recipe(output: Path, weights: Path, num_steps: int, lr: float = 3e-3, **rollout: int) -> RlRun:
    """Return the config of a run whose reward is `low`."""
    return RlRun(
        output=output,
        weights=weights,
        schedule=ScheduleConfig(num_steps, warmup_steps=0),
        prompts=PromptsConfig({"drawing": 1.0}),
        reward=RewardConfig(python="rl_cases:low"),
        rollout=RolloutConfig(**{"prompts": 2, "samples": 4, **rollout}, modality="image"),
        optimizer=OptimizerConfig(lr=lr),
        loop=LoopConfig(save_every_steps=1000),
        precision="fp32",
    )


def on_ranks(output: Path, weights: Path) -> RlRun:
    """Return the config of a run that two ranks share."""
    return replace(
        recipe(output, weights, 3, prompts=4, samples=2, minibatches=2),
        grpo=GrpoConfig(kl=0.1, entropy=0.01),
        engine=EngineConfig(micro_batch_rows=2),
    )


def run(output: str, weights: str, stage: int, ranks: Ranks) -> None:
    """Take the steps of `on_ranks` as one of two ranks."""
    config = on_ranks(Path(output), Path(weights))
    config = replace(config, engine=replace(config.engine, deepspeed=ZERO[stage]))
    train_on(config, read_given(config, ranks.world_size), ranks)


def whole(checkpoint: Checkpoint | None) -> dict[str, list[float]]:
    """Return all tensors of a checkpoint."""
    assert checkpoint is not None
    return {
        f"{name}/{kind}": checkpoint.read(name, kind).tolist()
        for name in checkpoint.shapes
        for kind in sorted(checkpoint.kinds[name])
    }
