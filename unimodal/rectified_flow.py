"""Rectified flow carries noise to data along straight lines (Liu et al., arXiv:2209.03003).

    x_t = (1 - t) noise + t data,     dx_t / dt = v = data - noise,     t from 0 to 1    (eq. 1)

A model learns v from (x_t, t) by the squared error, and what it has learned is the velocity of an
ordinary differential equation that is solved from noise at t = 0 to data at t = 1.

Arrays are float32 (n, d): n vectors of d numbers.
"""

import math
from collections.abc import Generator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

Solver = Literal["euler", "heun"]


@dataclass(frozen=True)
class FlowConfig:
    """Configure how latents become tokens, and at which times they are learned."""

    patch: int = 1
    """A token stands for patch x patch latents."""
    time_mean: float = 0.0
    time_std: float = 1.0
    """Mean and standard deviation of logit(t) in training: above 0 there is less noise."""
    base_latents: int | None = None
    """The number of latents of an image whose times are what they are; those of larger images, of
    which the same noise hides less, are shifted to noisier ones. None: of none."""

    def problems(self) -> list[str]:
        """Return what is wrong with the values, one sentence each."""
        found = [] if self.patch >= 1 else [f"patch {self.patch}: at least 1"]
        if not math.isfinite(self.time_mean):
            found.append(f"time_mean {self.time_mean}: a finite number")
        if not 0 < self.time_std < math.inf:
            found.append(f"time_std {self.time_std}: above 0")
        if self.base_latents is not None and self.base_latents < 1:
            found.append(f"base_latents {self.base_latents}: at least 1")
        return found

    def shifted(self, time: float, num_latents: int) -> float:
        """Return the time that an image of so many latents has in the place of `time`."""
        if self.base_latents is None:
            return time
        # Esser et al., arXiv:2403.03206, eq. 23, s' = a s / (1 + (a - 1) s) with a = sqrt(m / n),
        # for their time s = 1 - t, which is 1 where all is noise.
        a = math.sqrt(num_latents / self.base_latents)
        return time / (a - (a - 1) * time)

    def noised(
        self, key: tuple[int, ...], num_latents: int, shape: tuple[int, int]
    ) -> tuple[float, np.ndarray]:
        """Return the time at which an image is learned, and its noise, float32 of `shape`.

        Both are a function of the key.
        """
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
        # Logit-normal times (arXiv:2403.03206, eq. 19): logit(t) ~ N(mean, std^2).
        logit = self.time_mean + self.time_std * float(rng.standard_normal())
        time = 1 / (1 + math.exp(-logit))
        return self.shifted(time, num_latents), rng.standard_normal(shape, dtype=np.float32)

    def times(self, num_steps: int, num_latents: int) -> list[float]:
        """Return the times between which a drawing takes its steps, from 0 to 1."""
        return [self.shifted(step / num_steps, num_latents) for step in range(num_steps + 1)]


def mixed(noise_nd: np.ndarray, data_nd: np.ndarray, time: float) -> np.ndarray:
    """Return x_t."""
    t = np.float32(time)
    return (1 - t) * noise_nd + t * data_nd  # arXiv:2209.03003, eq. 1


def solve(
    x_nd: np.ndarray, times: list[float], solver: Solver
) -> Generator[tuple[np.ndarray, float], np.ndarray, np.ndarray]:
    """Solve dx/dt = v(x, t) from the first time to the last one: yield (x, t), be sent v(x, t),
    and return x at the end.

    euler: x <- x + h v(x, t), whose error falls as the steps' number N. heun: the mean of the
    velocities at both ends of a step, x <- x + h (v(x, t) + v(x + h v(x, t), t + h)) / 2, whose
    error falls as N^2, at twice the evaluations (Karras et al., arXiv:2206.00364, alg. 1). As
    there, the last step is one of Euler's, so that no velocity is asked for where all is data.
    """
    for time, after in pairwise(times):
        step = np.float32(after - time)
        v_nd = yield x_nd, time
        if solver == "heun" and after != times[-1]:
            v_nd = (v_nd + (yield x_nd + step * v_nd, after)) / 2
        x_nd = x_nd + step * v_nd
    return x_nd
