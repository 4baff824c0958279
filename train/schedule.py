"""Schedule the learning rate over a run: warm-up, plateau, linear decay to zero, factors by stage.

A plateau can be prolonged from any of its checkpoints, because nothing on it depends on the run's
length. It is the warm-up, stable, decay schedule of Hu et al. (arXiv:2404.06395, section 4.2).
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Rate:
    """Change the learning rate from a step on."""

    from_step: int
    lr: float
    """A factor on every learning rate, until the next Rate's step."""

    def problems(self) -> list[str]:
        """Return what is wrong with the values, one sentence each."""
        found = [] if self.from_step > 0 else [f"from_step {self.from_step}: at least 1"]
        return found if 0 < self.lr < math.inf else [*found, f"lr {self.lr}: above 0"]


@dataclass(frozen=True)
class ScheduleConfig:
    """Configure the schedule; lengths are optimizer steps."""

    num_steps: int
    warmup_steps: int = 100
    decay_steps: int = 0
    """Steps of the linear decay to zero at the end."""
    stages: tuple[Rate, ...] = ()
    """Factors on the learning rate, as where the loader's stages change what is learned."""

    def problems(self) -> list[str]:
        """Return what is wrong with the values, one sentence each."""
        found = []
        if self.num_steps < 1:
            found.append(f"num_steps {self.num_steps}: at least 1")
        if self.warmup_steps < 0 or self.decay_steps < 0:
            found.append("warmup_steps and decay_steps cannot be negative")
        if self.warmup_steps + self.decay_steps > self.num_steps:
            found.append(
                f"warmup_steps {self.warmup_steps} and decay_steps {self.decay_steps} "
                f"do not fit in num_steps {self.num_steps}"
            )
        begins = [stage.from_step for stage in self.stages]
        if begins != sorted(set(begins)) or max(begins, default=0) >= self.num_steps:
            found.append(
                f"stages from steps {begins}: rising, and below num_steps {self.num_steps}"
            )
        return found

    def factor(self, step: int) -> float:
        """Return what to multiply every learning rate by in step s = 0 .. num_steps - 1.

        It is min(1, (s + 1) / (W + 1), (S - s) / (D + 1)), with W warm-up, D decay and S steps in
        all, times the factor of the stage. The +1 keep the first and the last step above zero.
        """
        rise = (step + 1) / (self.warmup_steps + 1)
        fall = (self.num_steps - step) / (self.decay_steps + 1)
        begun = [stage.lr for stage in self.stages if stage.from_step <= step]
        return min(1.0, rise, fall) * (begun[-1] if begun else 1.0)
