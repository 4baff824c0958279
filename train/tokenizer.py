"""Train an image tokenizer on the images of shards: `unimodal train tokenizer CONFIG`."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unimodal.data.lengths import shards_hash
from unimodal.data.order import generator
from unimodal.data.shards import Samples, find_shards
from unimodal.document import Image
from unimodal.tokenizer.autoencoder import ImageTokenizer, TokenizerConfig
from unimodal.tokenizer.pixels import to_tensor

from . import provenance
from .engine import Engine
from .learner import TokenizerLearner
from .loop import LoopConfig, prepare, run, set_threads
from .optimizer import OptimizerConfig, build
from .schedule import ScheduleConfig


@dataclass(frozen=True)
class TokenizerRun:
    """Configure a run of the image tokenizer."""

    output: Path
    """The run's directory; the trained tokenizer is written to `output/tokenizer`."""
    shards: Path
    """The directory of shards whose images are learned."""
    schedule: ScheduleConfig
    batch_images: int = 32
    seed: int = 0
    model: TokenizerConfig = field(default_factory=TokenizerConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)

    def problems(self) -> list[str]:
        """Return what is wrong with the values, one sentence each."""
        found = [] if self.batch_images > 0 else [f"batch_images {self.batch_images}: at least 1"]
        return found if self.seed >= 0 else [*found, f"seed {self.seed}: at least 0"]


def train(config: TokenizerRun) -> Path:
    """Train (or go on training) and return the directory of the finished tokenizer."""
    paths = find_shards(config.shards)
    samples = Samples(paths)
    if len(samples) < config.batch_images:
        raise ValueError(
            f"{len(samples)} samples do not fill a batch of {config.batch_images} images"
        )
    newest = prepare(config, config.output, {"shards": shards_hash(paths)})
    provenance.begin(config.output)
    set_threads(config.loop)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = ImageTokenizer(config.model, config.seed).to(device)
    learner = TokenizerLearner(model, device)
    engine = Engine(learner, build(model, config.optimizer), config.schedule, config.optimizer.clip)
    if newest is not None:
        engine.restore(newest)
    start = newest.step if newest else 0
    batches = images(samples, config.batch_images, config.seed, start)
    run(config.output, config.loop, engine, batches, start)
    finished = config.output / "tokenizer"
    finished.mkdir(exist_ok=True)
    model.cpu().save(finished)
    card = provenance.card(config, device, [config.shards], before={})
    (finished / provenance.CARD).write_text(json.dumps(card, indent=2) + "\n")
    return finished


def images(
    samples: Samples, batch_images: int, seed: int, start: int
) -> Iterator[tuple[torch.Tensor, dict[str, Any]]]:
    """Give batches of the samples' first images (B, 3, H, W) in [-1, 1], from batch `start` on,
    without end.

    Each pass over the samples has an order of its own, a pure function of (seed, pass).
    """
    per_pass = len(samples) // batch_images
    at = start
    while True:
        order = generator(seed, at // per_pass).permutation(len(samples))
        for batch in range(at % per_pass, per_pass):
            numbers = order[batch * batch_images : (batch + 1) * batch_images]
            at += 1
            yield to_tensor([_first_image(samples, int(number)) for number in numbers]), {}


def _first_image(samples: Samples, number: int) -> np.ndarray:
    for part in samples.document(number).parts:
        if isinstance(part, Image) and part.pixels is not None:
            return part.pixels
    raise ValueError(f"{samples.name(number)} has no image to learn from")
