"""The learning rate over a run: a warm-up, a plateau, a decay to zero.

A plateau can be prolonged from any of its checkpoints, because nothing on it depends on the run's
length.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class ScheduleConfig:
    """Lengths in optimizer steps."""

    num_steps: int
    warmup_steps: int = 100
    decay_steps: int = 0
    """Steps of the linear decay to zero at the end."""

    def problems(self) -> list[str]:
        """What is wrong with the values, one sentence each."""
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
        return found

    def factor(self, step: int) -> float:
        """What to multiply every learning rate by in step 0 .. num_steps - 1, in (0, 1]."""
        rise = (step + 1) / (self.warmup_steps + 1)
        fall = (self.num_steps - step) / (self.decay_steps + 1)
        return min(1.0, rise, fall)
