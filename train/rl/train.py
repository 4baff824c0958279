"""Teach a model by rewards: `unimodal train rl CONFIG`."""

import resource
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from unimodal.architecture import Architecture
from unimodal.bundle import BundleContents, directory_of, read_contents
from unimodal.data.found import find
from unimodal.heads import head_class
from unimodal.manifest import MANIFEST
from unimodal.sampling import Sampling
from unimodal.tensors import find_tensors
from unimodal.unified import UnifiedModel

from .. import checkpoint, metrics, precision, provenance
from ..checkpoint import Checkpoint
from ..engine import Engine
from ..finish import Base, bundle_bytes, finish
from ..initial import from_bundle, from_checkpoint
from ..lock import Lock, held
from ..loop import fit_threads, prepare, run, set_threads
from ..mirror import send_finished
from ..ranks import Ranks, connect
from ..zero import Build, engine, sharded
from .actor import actor_of, filled
from .learner import DpoLearner, GrpoLearner, PolicyLearner
from .replay import Replay
from .report import means
from .rewards import Judge, judge_of
from .rollouts import Rollouts, sampling_of
from .run import GrpoConfig, RlRun
from .shard_prompts import prompts_of


@dataclass(frozen=True, eq=False)
class Given:
    """What a run is given, read and found to fit together."""

    weights: Path
    contents: BundleContents
    judge: Judge
    inputs: dict[str, Any]

    @property
    def base(self) -> Base:
        """Return where the weights lie that it begins from."""
        return find_tensors(self.weights)


def train(config: RlRun, accept_change: bool = False) -> Path:
    """Train (or go on training) and return the directory of the finished bundle.

    `accept_change`: settings that change what is learned may be others than at the last start.
    """
    ranks = connect(config.engine.timeout_s)
    config = precision.resolved(config, ranks)
    given = ranks.together(lambda: read_given(config, ranks.world_size))
    with held(config.output, ranks) as lock:
        return train_on(config, given, ranks, lock, accept_change)


def read_given(config: RlRun, world_size: int) -> Given:
    """Read what a run is given. ValueError with what does not fit, before anything is written."""
    lacking = [*config.engine.obstacles(), *config.loop.obstacles(), *precision.obstacles(config)]
    lacking += config.problems() or config.rank_problems(world_size)
    if world_size > 1 and config.engine.deepspeed is None:
        lacking.append(
            f"{world_size} ranks were launched, and engine.deepspeed does not say how they share "
            "the model: set it, such as engine.deepspeed=configs/zero3.json"
        )
    if lacking:
        raise ValueError("\n  ".join(lacking))
    config.engine.zero(config.replies // world_size, config.optimizer.clip, False)
    weights = directory_of(config.weights)
    contents = read_contents(weights)
    _check_head(contents.config.architecture, config.sampling)
    judge = judge_of(config.reward)
    inputs: dict[str, Any] = {"weights": contents.hash}
    places = {name: source.place for name, source in config.prompts.sources.items()}
    found = find(places, reread=config.loop.verify == "all")
    inputs |= {f"shards of {name}": found[place].hash for name, place in places.items()}
    return Given(weights, contents, judge, inputs)


def _check_head(shape: Architecture, sampling: Sampling | None) -> None:
    """ValueError where the image head's drawings have no probability, or it has not the settings
    that the bundle is to have.
    """
    with torch.device("meta"):
        head = head_class(shape.image.head)(shape)
    if not head.has_log_probability:
        raise ValueError(
            f"the image head {shape.image.head} does not say how likely an image is "
            "(log_probability), so it cannot be taught by rewards; next_code, independent_levels "
            "and causal_levels do"
        )
    if sampling is not None:
        sampling.check(head.follows, shape.image.head)


def train_on(
    config: RlRun,
    given: Given,
    ranks: Ranks,
    lock: Lock | None = None,
    accept_change: bool = False,
) -> Path:
    """Train on these ranks, of which the first one holds the lock; otherwise as `train`."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
    actor = actor_of(given.contents, device, dtype)
    replay = Replay(actor, sampling_of(config), config.rollout.modality)
    # What one rank measures of shards the others find.
    prompts = ranks.in_turn(
        lambda: prompts_of(config.prompts, actor, config.rollout.modality, config.seed)
    )
    newest = prepare(config, config.output, given.inputs, ranks, accept_change)
    ranks.together(lambda: provenance.begin(config.output) if ranks.is_first else None)
    set_threads(config.loop)
    trained = _engine(config, given, replay, prompts.kinds, newest, device, ranks)
    if newest is not None:
        trained.restore(newest)
    fit_threads(config.loop, trained.learner.model, config.replies * actor.grid.size)
    rollouts = Rollouts(
        config, prompts, given.judge, actor, replay, trained,
        _start(config, given, replay, device), ranks,
    )  # fmt: skip
    step = newest.step if newest is not None else 0
    run(
        config.output,
        config.loop,
        trained,
        rollouts.batches(newest.state["data"] if newest is not None else None),
        step,
        lambda done, step_s, counts: means(counts) | _speed(counts, step_s),
        config.engine.micro_batch_rows,
        lock,
        bundle_bytes(given.contents.config.architecture, given.base),
    )
    ranks.together(lambda: _finish(config, given, device) if ranks.is_first else None)
    return config.output / "bundle"


def _learner(config: RlRun) -> Callable[..., PolicyLearner]:
    if config.dpo is not None:
        return partial(DpoLearner, config.dpo)
    return partial(GrpoLearner, config.grpo or GrpoConfig())


def _engine(
    config: RlRun, given: Given, replay: Replay, kinds: tuple[str, ...],
    newest: Checkpoint | None, device: str, ranks: Ranks,
) -> Engine:  # fmt: skip
    """Return the engine of the policy: the weights of the bundle, or of a checkpoint."""
    shape = given.contents.config.architecture
    bf16 = config.precision == "bf16"
    settings = config.engine.zero(config.replies // ranks.world_size, config.optimizer.clip, bf16)
    fill = from_bundle(given.weights, given.contents, None).fill
    if newest is not None:
        fill = from_checkpoint(newest, fill)

    def make() -> UnifiedModel:
        return UnifiedModel(shape, 0, config.engine.recompute)

    model = sharded(Build(make, fill), settings, device, ranks)
    kind = _learner(config)
    learner = kind(
        model, replay.masks, kinds, device, autocast=bf16 and settings is None,
        attention=config.engine.attention,
    )  # fmt: skip
    return engine(learner, config.optimizer, config.schedule, ranks, settings, config.engine, bf16)


def _start(config: RlRun, given: Given, replay: Replay, device: str) -> PolicyLearner | None:
    """Return what scores by the starting model, which each rank holds whole."""
    if not config.needs_start:
        return None
    fill = from_bundle(given.weights, given.contents, None).fill
    model = filled(given.contents.config.architecture, fill, device)
    return PolicyLearner(
        model, replay.masks, (), device, autocast=config.precision == "bf16",
        attention=config.engine.attention,
    )  # fmt: skip


def _speed(counts: Mapping[str, float], step_s: float) -> dict[str, float]:
    """Return tokens learned from a second, of all ranks, and the memory of this one."""
    if torch.cuda.is_available():
        memory_bytes = torch.cuda.max_memory_allocated()
    else:
        memory_bytes = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"tokens_per_s": counts["tokens"] / step_s, "memory_gb": memory_bytes / 1e9}


def _finish(config: RlRun, given: Given, device: str) -> None:
    """Write the bundle of the last checkpoint, and say how the reward went."""
    last = checkpoint.newest(config.output)
    assert last is not None, "the last step was saved"
    folders = [source.folder for source in config.prompts.sources.values()]
    card = provenance.card(config, device, folders, provenance.read(given.weights))
    if config.prompts.mix:  # scenes of this seed are no exam any more
        card["data_seeds"] = sorted({*card["data_seeds"], config.prompts.seed})
    contents = given.contents
    stored = replace(contents.config, sampling=config.sampling or contents.config.sampling)
    finish(
        config.output / "bundle", last,
        replace(contents, config=stored, image_tokenizer=contents.image_tokenizer.cpu(), card=card),
        given.base,
    )  # fmt: skip
    send_finished(config.loop.mirror, config.output / "bundle", MANIFEST)
    rewards = [line["reward"] for line in metrics.read(config.output)]
    if rewards:
        few = max(1, len(rewards) // 10)
        first, final = (sum(some) / few for some in (rewards[:few], rewards[-few:]))
        print(f"reward: {first:.3f} in the first tenth of the steps, {final:.3f} in the last",
              file=sys.stderr)  # fmt: skip
