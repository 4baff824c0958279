"""Runs of 50 steps of each head with a loss or an order of its own, trained once for all tests."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import flow_cases
import scale_models
from tiny_runs import recipe, write_tokenizer

from unimodal.heads.mask_schedule import MaskSchedule
from unimodal.train.run import LmRun

SCHEDULE = MaskSchedule(steps=4)


def masked(run: LmRun, **changes: object) -> LmRun:
    """Return a run with the head `masked` in place of its own."""
    assert run.model is not None
    own = {"head": "masked", "masked": SCHEDULE}
    return replace(run, model=replace(run.model, **(own | changes)))


def masked_recipe(output: Path, shards: Path, tokenizer: Path, num_steps: int) -> LmRun:
    """Return the config of a run that draws in passes, with averaged weights."""
    run = masked(recipe(output, shards, tokenizer, num_steps))
    return replace(run, optimizer=replace(run.optimizer, ema_decay=0.9))


@dataclass(frozen=True)
class HeadRun:
    """How the run of a head is made: its image tokenizer, then its recipe."""

    tokenizer: Callable[[Path], Path]
    recipe: Callable[..., LmRun]


HEAD_RUNS = {
    "masked": HeadRun(write_tokenizer, masked_recipe),
    "scale": HeadRun(scale_models.write_scale_tokenizer, scale_models.scale_recipe),
    "flow": HeadRun(flow_cases.write_latent_tokenizer, flow_cases.flow_recipe),
}
