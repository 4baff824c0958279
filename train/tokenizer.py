"""Train an image tokenizer on the images of shards: `unimodal train tokenizer CONFIG`."""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unimodal.card import TOKENIZER_HASH
from unimodal.data.image_batches import SOURCE, ImageBatches
from unimodal.data.image_index import ImageMeasure, index_images
from unimodal.data.lengths import shards_hash
from unimodal.data.quarantine import Quarantine
from unimodal.data.remote import local_shards
from unimodal.data.sizes import ImageRule, patch_problems
from unimodal.tokenizer.autoencoder import ImageTokenizer, TokenizerConfig
from unimodal.tokenizer.pixels import to_tensor

from . import metrics, provenance
from .checkpoint import Checkpoint
from .code_usage import CodeUsage
from .engine import Engine
from .learner import TokenizerLearner
from .lock import Lock, held
from .loop import LoopConfig, prepare, run, set_threads
from .optimizer import OptimizerConfig, build
from .ranks import Ranks
from .schedule import ScheduleConfig


@dataclass(frozen=True)
class TokenizerRun:
    """Configure a run of the image tokenizer."""

    output: Path
    """The run's directory; the trained tokenizer is written to `output/tokenizer`."""
    shards: str
    """The shards whose images are learned, all images of each sample: a folder of .tar files, one
    .tar file, a URL, or `pipe:` and a command."""
    schedule: ScheduleConfig
    images: ImageRule | None = None
    """How images are resized; None: not at all, and their sides are multiples of the patch."""
    batch_images: int = 32
    """Images of a batch, all of one size."""
    bad_share: float = 0.01
    """Share of samples that cannot be used (0 to 1) above which the run stops."""
    min_usage: float = 0.3
    """Share of the codes that are to be in use (0 to 1): below it the run warns."""
    seed: int = 0
    model: TokenizerConfig = field(default_factory=TokenizerConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)

    def problems(self) -> list[str]:
        """Return what is wrong with the values, one sentence each."""
        found = [] if self.batch_images > 0 else [f"batch_images {self.batch_images}: at least 1"]
        found += [
            f"{name} {getattr(self, name)}: from 0 to 1"
            for name in ("bad_share", "min_usage")
            if not 0 <= getattr(self, name) <= 1
        ]
        if self.model.patch > 0:
            found += patch_problems(self.images, self.model.patch)
        return found if self.seed >= 0 else [*found, f"seed {self.seed}: at least 0"]


def train(config: TokenizerRun, accept_change: bool = False) -> Path:
    """Train (or go on training) and return the directory of the finished tokenizer.

    `accept_change`: see changes.py.
    """
    if problems := config.problems():
        raise ValueError("; ".join(problems))
    paths = local_shards(config.shards)
    inputs = {"shards": shards_hash(paths, reread=config.loop.verify == "all")}
    with held(config.output, Ranks()) as lock:
        newest = prepare(config, config.output, inputs, accept_change=accept_change)
        return _train(config, paths, newest, lock)


def _train(
    config: TokenizerRun, paths: list[Path], newest: Checkpoint | None, lock: Lock | None
) -> Path:
    provenance.begin(config.output)
    set_threads(config.loop)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = ImageTokenizer(config.model, config.seed).to(device)
    first = _first_batch(newest)
    images = _images(config, paths, model)
    learner = TokenizerLearner(model, device)
    engine = Engine(learner, build(model, config.optimizer), config.schedule, config.optimizer.clip)
    if newest is not None:
        engine.restore(newest)
    usage = _watched(model)
    before = metrics.last(config.output, newest.step if newest else 0)
    tokenizer_bytes = sum(one.nbytes for one in model.state_dict().values())
    run(
        config.output, config.loop, engine, _batches(images, first), newest.step if newest else 0,
        _measure(config, images, usage, before), lock=lock, bundle_bytes=tokenizer_bytes,
    )  # fmt: skip
    told = images.seen.lines({SOURCE: len(images.index.images)}, "of them")
    told += [usage.problem(config.min_usage) or usage.line()] if usage.reports() else []
    print(*told, sep="\n", file=sys.stderr)
    return _finish(config, model, device)


def _images(config: TokenizerRun, paths: list[Path], model: ImageTokenizer) -> ImageBatches:
    """Find the images of the shards, and try some of them before the first step."""
    index = index_images(paths, ImageMeasure(config.images, model.geometry), os.cpu_count() or 1)
    quarantine = Quarantine(config.output / "quarantine.jsonl", config.bad_share)
    images = ImageBatches(index, config.images, config.seed, config.batch_images, quarantine)
    print(images.given_line(), file=sys.stderr)
    images.check()
    return images


def _first_batch(newest: Checkpoint | None) -> int:
    """Return the number of the batch that comes next."""
    if newest is None:
        return 0
    if "batch" not in newest.state["data"]:
        raise ValueError(
            f"{newest.directory} is of an older version, which took images in another order: go on "
            "with that version, or give another output"
        )
    return newest.state["data"]["batch"]


def _batches(images: ImageBatches, first: int) -> Iterator[tuple[Tensor, dict[str, Any]]]:
    """Yield batches (B, 3, H, W) in [-1, 1] from number `first` on, with the data's state after."""
    for pixels_BHWC, after in images.batches(first):
        yield to_tensor(list(pixels_BHWC)), {"batch": after}


def _watched(model: ImageTokenizer) -> CodeUsage:
    """Return the usage of the codes that the model makes from now on."""
    usage = CodeUsage(model.num_codes)
    model.quantizer.register_forward_hook(lambda module, given, made: usage.add(made[1]))
    return usage


def _measure(
    config: TokenizerRun, images: ImageBatches, usage: CodeUsage, before: Mapping[str, Any]
) -> Any:
    """Return what is logged beside the losses of a step; a warning comes once."""
    warned: list[str] = []

    def measure(done: int, step_s: float, counts: Mapping[str, float]) -> dict[str, float]:
        problem = usage.problem(config.min_usage)
        if problem and not warned:
            print(problem, file=sys.stderr)
            warned.append(problem)
        seen = {"images": images.seen.documents, "bad_images": images.seen.bad.total()}
        return {n: before.get(n, 0) + count for n, count in seen.items()} | usage.reports()

    return measure


def _finish(config: TokenizerRun, model: ImageTokenizer, device: str) -> Path:
    """Write the trained tokenizer, and its card beside it."""
    finished = config.output / "tokenizer"
    finished.mkdir(exist_ok=True)
    model.cpu().save(finished)
    place = Path(config.shards)
    folder = place.parent if place.suffix == ".tar" else place
    card = provenance.card(config, device, [folder], before={})
    card[TOKENIZER_HASH] = model.hash
    (finished / provenance.CARD).write_text(json.dumps(card, indent=2) + "\n")
    return finished
