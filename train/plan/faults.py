"""Simulate a run on GPUs that are late, slow or fail: which share of its time it keeps.

A run goes on from its newest whole checkpoint after each failure, and starts again where it fails
while it starts. A failure of any GPU ends it, and failures know nothing of each other. Every step
waits for the last of all GPUs.

Letters: C cycles, from one failure to the next; R ranks; S steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .assumptions import Assumptions

CYCLES = 20_000
NOISY_STEPS = 256
TRIED = 60  # intervals between checkpoints
HOUR_S = 3600


@dataclass(frozen=True)
class Job:
    """Say what is simulated."""

    ranks: int
    step_s: float
    """Seconds of a step in which no GPU is late."""
    stall_s: float
    """Seconds that all stand still for a checkpoint."""
    write_s: float
    """Seconds from then on until it is whole on the disk; the next one waits for it."""


class Share(NamedTuple):
    """Hold the share of its time that a run keeps, with a checkpoint every so many steps.

    What it keeps are steps that need not be repeated, each counted as if no GPU were late.
    """

    every_steps: int
    share: float
    error: float
    """The standard error of the simulated mean."""


class Faults:
    """Hold the simulated failures of a job: the same ones for each interval between checkpoints."""

    def __init__(self, job: Job, assumed: Assumptions, seed: int = 0, cycles: int = CYCLES) -> None:
        """Simulate so many failures; equal seeds give equal ones."""
        generator = np.random.default_rng(seed)
        self.job = job
        self.mean_s = assumed.mtbf_h * HOUR_S / job.ranks
        self.between_C = generator.exponential(self.mean_s, cycles)
        self.runs_C = self.between_C - assumed.restart_s  # below 0: it failed while it started
        late_SR = generator.exponential(1.0, (NOISY_STEPS, job.ranks)) * assumed.noise
        self.noise = 1 + late_SR.max(axis=1).mean()
        is_slow_C = generator.binomial(job.ranks, assumed.slow_share, cycles) > 0
        self.step_s_C = job.step_s * (self.noise + assumed.slow_by * is_slow_C)

    def share(self, every_steps: int) -> Share:
        """Return what is kept with a checkpoint every so many steps."""
        period_s_C = np.maximum(every_steps * self.step_s_C + self.job.stall_s, self.job.write_s)
        whole_C = np.maximum(self.runs_C - self.job.write_s, 0) // period_s_C
        kept_s_C = whole_C * every_steps * self.job.step_s
        # Of a renewal process: kept over passed, each in the mean of a cycle.
        share = kept_s_C.sum() / self.between_C.sum()
        error = np.std(kept_s_C - share * self.between_C) / self.between_C.mean()
        return Share(every_steps, float(share), float(error / np.sqrt(len(kept_s_C))))

    def best(self, num_steps: int | None = None) -> Share:
        """Return the interval that keeps most, of those tried between a step and a failure, or the
        end of a run of so many steps.
        """
        least = max(1, round(self.job.write_s / self.job.step_s))
        most = max(least + 1, round(self.mean_s / self.job.step_s))
        if num_steps is not None:
            least, most = min(least, num_steps), min(most, num_steps)
        tried = np.unique(np.geomspace(least, most, TRIED).round().astype(int))
        return self.most_of([int(every) for every in tried])

    def most_of(self, intervals: Sequence[int]) -> Share:
        """Return that one of some intervals which keeps most."""
        return max((self.share(every) for every in intervals), key=lambda found: found.share)
