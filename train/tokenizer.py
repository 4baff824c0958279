"""Train an image tokenizer on the images of shards: `unimodal train tokenizer CONFIG`.

Several processes (`torchrun --nproc-per-node 2 -m unimodal.train tokenizer CONFIG`) take the same
steps, each with its part of the images.
"""

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unimodal.card import TOKENIZER_HASH
from unimodal.data.found import FoundShards, Place, find
from unimodal.data.image_batches import SOURCE, ImageBatches
from unimodal.data.image_folder import IMAGE_FINDER
from unimodal.data.image_index import ImageIndex, ImageMeasure, images_of
from unimodal.data.joined import Together
from unimodal.data.peers import cache_mates
from unimodal.data.quarantine import Quarantine
from unimodal.data.seen import Seen
from unimodal.tokenizer.autoencoder import ImageTokenizer
from unimodal.tokenizer.pixels import to_tensor
from unimodal.tokenizer.quantizers import ranks as quantizer_ranks
from unimodal.tokenizer.quantizers.quantizer import Quantized

from . import heap, metrics, precision, provenance
from .checkpoint import Checkpoint
from .code_usage import CodeUsage
from .learner import TokenizerLearner
from .lock import Lock, held
from .loop import fit_threads, prepare, run, set_threads
from .mirror import send_finished
from .optimizer import OptimizerConfig, build
from .parallel import ParallelEngine
from .parent_tokenizer import begin_with, directory_of, parent_of
from .ranks import Ranks, connect
from .reconstructions import averaged, write_sheet
from .spikes import going_back
from .tokenizer_run import TokenizerRun as TokenizerRun

FINISHED = "tokenizer"  # the folder that the run ends with
TIMEOUT_S = 1800.0  # that processes wait for one another
SHOWN = 16  # images of a sheet
MEASURED = 4096  # images by which latents are scaled, once they are learned


def train(config: TokenizerRun, accept_change: bool = False) -> Path:
    """Train (or go on training) and return the directory of the finished tokenizer.

    All processes that were launched together call it. `accept_change`: see changes.py.
    """
    ranks = connect(TIMEOUT_S)
    ranks.together(lambda: _check(config, ranks))
    crew = Together(ranks, cache_mates(ranks), config.output, ranks.workers)
    place, reread = Place(config.shards, config.index), config.loop.verify == "all"
    shards = find({"shards": place}, ranks, crew.mates, ranks.workers, reread, IMAGE_FINDER)[place]
    parent = ranks.together(lambda: _parent(config))
    inputs = {"shards": shards.hash, "weights": parent.hash if parent is not None else None}

    def begin(lock: Lock | None) -> Path:
        newest = prepare(config, config.output, inputs, ranks, accept_change)
        if config.model.pixels is not None:
            return _measure_pixels(config, shards, crew, ranks)
        return _train(config, shards, crew, newest, ranks, lock)

    with held(config.output, ranks) as lock:
        return going_back(lambda: begin(lock))


def _check(config: TokenizerRun, ranks: Ranks) -> None:
    """Raise ValueError with all that is wrong with a config, or lacks here."""
    problems = [*config.problems(), *config.loop.obstacles(), *precision.obstacles(config)]
    if config.batch_images < ranks.world_size:
        problems.append(f"batch_images {config.batch_images}: at least one for each of the "
                        f"{ranks.world_size} processes")  # fmt: skip
    if problems:
        raise ValueError("; ".join(problems))


def _train(
    config: TokenizerRun, shards: FoundShards, crew: Together, newest: Checkpoint | None,
    ranks: Ranks, lock: Lock | None,
) -> Path:  # fmt: skip
    ranks.together(lambda: provenance.begin(config.output) if ranks.is_first else None)
    set_threads(config.loop)
    heap.keep_freed()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    first = _first_batch(newest)
    learner = ranks.in_turn(lambda: _learner(config, device))
    images = _images(config, shards, learner.model, crew, ranks)
    for width, height in {min(images.sizes), min(images.sizes, key=lambda size: size[1])}:
        learner.loss.check(height, width)
    found = images.index.images
    num_patches = float(np.mean(found["width"] * found["height"])) / config.model.patch**2
    share = config.batch_images / ranks.world_size
    fit_threads(config.loop, learner.model, round(share * num_patches))
    engine = _engine(config, learner, ranks)
    if newest is not None:
        engine.restore(newest)
    usage = _watched(learner.model)
    before = metrics.last(config.output, newest.step if newest else 0)
    tokenizer_bytes = sum(one.nbytes for one in learner.model.state_dict().values())
    run(
        config.output, config.loop, engine, _batches(images, first, ranks),
        newest.step if newest else 0, _measure(config, images, usage, before, engine), lock=lock,
        bundle_bytes=tokenizer_bytes,
    )  # fmt: skip
    parts = ranks.all_gather(json.dumps(images.seen.plain()))
    told = Seen.of(map(json.loads, parts)).lines({SOURCE: len(images.index.images)}, "of them")
    told += [usage.problem(config.min_usage) or usage.line()] if usage.reports() else []
    if ranks.is_first:
        print(*told, sep="\n", file=sys.stderr)
    ranks.together(lambda: _finish(config, engine, images, device) if ranks.is_first else None)
    return config.output / FINISHED


def _measure_pixels(
    config: TokenizerRun, shards: FoundShards, crew: Together, ranks: Ranks
) -> Path:
    """Write the tokenizer of pixels, whose statistics are all that there is to find."""
    model = ImageTokenizer(config.model, config.seed)
    images = _images(config, shards, model, crew, ranks)

    def write() -> None:
        provenance.begin(config.output)
        some = images.some(config.schedule.num_steps * config.batch_images)
        model.measure_latents(_tensors(some, "cpu"))
        _write(config, model, _card(config, "cpu"))

    ranks.together(lambda: write() if ranks.is_first else None)
    return config.output / FINISHED


def _parent(config: TokenizerRun) -> ImageTokenizer | None:
    """Return the tokenizer that training begins with, if there is one."""
    if config.weights is None:
        return None
    return parent_of(config.weights, config.model, config.freeze_codes)


def _learner(config: TokenizerRun, device: str) -> TokenizerLearner:
    model = ImageTokenizer(config.model, config.seed, decodes=config.loss.sees_pixels)
    if (parent := _parent(config)) is not None:
        begin_with(parent, model)
    bf16 = config.precision == "bf16"
    return TokenizerLearner(
        model.to(device), config.loss, device, bf16, config.seed, config.freeze_codes
    )


def _engine(config: TokenizerRun, learner: TokenizerLearner, ranks: Ranks) -> ParallelEngine:
    """Return the engine, with an optimizer for each network that learns."""
    optimizers = build(learner.model, config.optimizer)
    for name, network in learner.loss.trained():
        own = replace(config.optimizer, lr_scale={})
        if name == "discriminator" and config.loss.adversarial is not None:
            lr, moments = config.loss.adversarial.lr, config.optimizer.moments
            own = OptimizerConfig(lr=lr, beta1=0.5, beta2=0.9, moments=moments)
        optimizers += build(network, own)
    clip, ema_decay = config.optimizer.clip, config.optimizer.ema_decay
    return ParallelEngine(learner, optimizers, config.schedule, clip, ema_decay, ranks)


def _images(
    config: TokenizerRun, shards: FoundShards, model: ImageTokenizer, crew: Together, ranks: Ranks
) -> ImageBatches:
    """Find the images of the shards, and let the first rank try some before the first step."""
    index = images_of(shards, ImageMeasure(config.images, model.geometry), crew)
    return ranks.together(lambda: _batches_of(config, index, ranks))


def _batches_of(config: TokenizerRun, index: ImageIndex, ranks: Ranks) -> ImageBatches:
    name = "quarantine.jsonl" if ranks.is_first else f"quarantine_{ranks.rank}.jsonl"
    images = ImageBatches(
        index, config.images, config.seed, config.batch_images,
        Quarantine(config.output / name, config.bad_share), ranks.rank, ranks.world_size,
        config.loop.data_workers,
    )  # fmt: skip
    if ranks.is_first:
        print(images.given_line(), file=sys.stderr)
        images.check()
        adversarial, num_steps = config.loss.adversarial, config.schedule.num_steps
        if adversarial is not None and adversarial.start_step >= num_steps:
            print(f"note: loss.adversarial.start_step {adversarial.start_step} is not reached in "
                  f"{num_steps} steps", file=sys.stderr)  # fmt: skip
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


def _batches(
    images: ImageBatches, first: int, ranks: Ranks
) -> Iterator[tuple[Tensor, dict[str, Any]]]:
    """Yield batches (B, 3, H, W) in [-1, 1] from number `first` on, with the data's state after.

    Those of which no process has an image are passed over, as one process does.
    """
    for pixels_BHWC, after in images.batches(first):
        if not ranks.all_reduce_sum(torch.tensor([len(pixels_BHWC)], dtype=torch.float64)):
            continue
        none = torch.zeros(0, 3, *pixels_BHWC.shape[1:3])
        yield to_tensor(list(pixels_BHWC)) if len(pixels_BHWC) else none, {"batch": after}


def _watched(model: ImageTokenizer) -> CodeUsage:
    """Return the usage of the codes that the model makes from now on, while it is trained."""
    usage = CodeUsage(model.num_codes, model.num_groups)

    def add(module: torch.nn.Module, given: Any, made: Quantized) -> None:
        # Sheets are made in inference mode, and a rank without images has no codes of its own.
        if not torch.is_inference_mode_enabled() and not quantizer_ranks.is_left_out():
            usage.add(made.codes)

    if not model.config.is_continuous:
        model.quantizer.register_forward_hook(add)
    return usage


def _measure(
    config: TokenizerRun, images: ImageBatches, usage: CodeUsage, before: Mapping[str, Any],
    engine: ParallelEngine,
) -> Any:  # fmt: skip
    """Return what is logged beside the losses of a step; a warning comes once, and a sheet of
    reconstructions at every checkpoint.
    """
    warned: list[str] = []
    shown = images.some(SHOWN) if engine.ranks.is_first else []

    def measure(done: int, step_s: float, counts: Mapping[str, float]) -> dict[str, float]:
        problem = usage.problem(config.min_usage)
        if problem and not warned and engine.ranks.is_first:
            print(problem, file=sys.stderr)
            warned.append(problem)
        if done % config.loop.save_every_steps == 0 or done == config.schedule.num_steps:
            if engine.ranks.is_first and engine.learner.model.decodes:
                with averaged(engine) as model:
                    write_sheet(config.output / "samples" / f"step_{done:08d}.png", model, shown)
        mine = [images.seen.documents, images.seen.bad.total()]
        summed = engine.ranks.all_reduce_sum(torch.tensor(mine, dtype=torch.float64)).tolist()
        seen = dict(zip(("images", "bad_images"), map(int, summed), strict=True))
        squared = counts.get("squared", 0.0)  # there is none without a decoder
        psnr = {"psnr_db": 10 * math.log10(4 / squared)} if squared else {}
        return {n: before.get(n, 0) + count for n, count in seen.items()} | psnr | usage.reports()

    return measure


def _finish(
    config: TokenizerRun, engine: ParallelEngine, images: ImageBatches, device: str
) -> None:
    """Write the trained tokenizer, its averaged weights where there are some, and its card.

    Latents are scaled by what they are now, but for those that were not to change.
    """
    card = _card(config, device)
    with averaged(engine) as model:
        if config.model.is_continuous and not config.freeze_codes:
            model.measure_latents(_tensors(images.some(MEASURED), device))
        if config.decoder_storage == "bf16" and model.decoder is not None:
            round_to_bfloat16(model.decoder)
        _write(config, model, card)


@torch.no_grad()
def round_to_bfloat16(module: nn.Module) -> None:
    """Round a module's parameters to numbers that bfloat16 holds, so that they are stored in it."""
    for parameter in module.parameters():
        parameter.copy_(parameter.bfloat16())


def _tensors(images: Sequence[np.ndarray], device: str) -> Iterator[Tensor]:
    """Yield images of any mix of sizes, uint8 (H, W, 3), each as a batch (1, 3, H, W)."""
    return (to_tensor([image]).to(device) for image in images)


def _card(config: TokenizerRun, device: str) -> dict[str, Any]:
    place = Path(config.shards)
    folder = place.parent if place.suffix == ".tar" else place
    before = {} if config.weights is None else provenance.read(directory_of(config.weights))
    return provenance.card(config, device, [folder], before)


def _write(config: TokenizerRun, model: ImageTokenizer, card: dict[str, Any]) -> None:
    """Write a finished tokenizer and its card."""
    finished = config.output / FINISHED
    finished.mkdir(exist_ok=True)
    model.save(finished)
    card[TOKENIZER_HASH] = model.hash
    (finished / provenance.CARD).write_text(json.dumps(card, indent=2) + "\n")
    send_finished(config.loop.mirror, finished, provenance.CARD)
