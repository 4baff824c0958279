"""Say what a whole run takes on each of several numbers of GPUs: time, cost, and useful share.

The tokens of the run stay. A batch with fewer rows than there are GPUs, or groups of GPUs that
share rows, grows to one row for each, and the run has as many steps fewer; micro-batches shrink to
the rows that a GPU has.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

from ..run import LmRun
from .assumptions import USUAL, Assumptions
from .faults import HOUR_S, Faults, Job, Share
from .plan import GPUS, Plan, plan


@dataclass(frozen=True)
class Forecast:
    """Hold what a whole run takes on so many GPUs."""

    plan: Plan
    batch_rows: int
    num_steps: int
    saved: Share
    """With a checkpoint as often as the config says."""
    best: Share
    """With a checkpoint as often as keeps most."""
    usd_per_gpu_hour: float | None

    @property
    def hours(self) -> float:
        """Return the hours of the run, those that failures and stragglers take included."""
        steps_s = self.num_steps * self.plan.likely_s
        return steps_s / HOUR_S / self.saved.share if self.saved.share else math.inf

    @property
    def gpu_hours(self) -> float:
        """Return the hours of all GPUs."""
        return self.hours * self.plan.num_gpus

    @property
    def usd(self) -> float | None:
        """Return the price of all GPUs; None where none is said."""
        price = self.usd_per_gpu_hour
        return None if price is None else self.gpu_hours * price

    def as_json(self) -> dict[str, Any]:
        """Return all numbers, by name."""
        run = {
            "batch_rows": self.batch_rows,
            "num_steps": self.num_steps,
            "hours": self.hours,
            "gpu_hours": self.gpu_hours,
            "usd": self.usd,
            "saved": self.saved._asdict(),
            "best": self.best._asdict(),
        }
        return self.plan.as_json() | {"run": run}


def forecast(
    config: LmRun, made: Plan, assumed: Assumptions = USUAL, num_steps: int | None = None
) -> Forecast:
    """Return what the run of a config takes that is planned as `made`."""
    share_bytes = made.checkpoint_bytes / made.num_gpus
    job = Job(
        ranks=made.num_gpus,
        step_s=made.likely_s,
        stall_s=assumed.stall_s + share_bytes / GPUS[made.gpu].host_bytes,
        write_s=made.checkpoint_bytes / (assumed.write_gb_s * 1e9),
    )
    faults = Faults(job, assumed)
    num_steps = config.schedule.num_steps if num_steps is None else num_steps
    return Forecast(
        plan=made,
        batch_rows=config.loader.batch_rows,
        num_steps=num_steps,
        saved=faults.share(min(config.loop.save_every_steps, num_steps)),
        best=faults.best(num_steps),
        usd_per_gpu_hour=assumed.usd_per_gpu_hour,
    )


def at_scale(
    config: LmRun,
    gpus: list[int],
    memory_gb: float,
    gpu: str = "H100",
    num_ids: int | None = None,
    assumed: Assumptions = USUAL,
) -> tuple[list[Forecast], dict[int, str]]:
    """Return the forecasts by rising number of GPUs, and why there is none for some numbers.

    Raises ValueError where there is none for any.
    """
    found, refused = [], {}
    for count in sorted(set(gpus)):
        try:
            fitted = of_rows(config, count)
            made = plan(fitted, count, memory_gb, gpu, num_ids, assumed, suggest=False)
        except ValueError as error:
            refused[count] = str(error)
            continue
        rows = config.loader.batch_rows / fitted.loader.batch_rows
        steps = math.ceil(config.schedule.num_steps * rows)
        found.append(forecast(fitted, made, assumed, steps))
    if not found:
        raise ValueError("; ".join(f"{count} GPUs: {why}" for count, why in refused.items()))
    return found, refused


def of_rows(config: LmRun, gpus: int) -> LmRun:
    """Return the config with a row or more for each GPU, or for each group of GPUs that share rows,
    and no micro-batch of more rows.
    """
    groups = max(1, gpus // config.engine.sequence_parallel)
    batch_rows = max(config.loader.batch_rows, groups)
    rows = math.ceil(batch_rows / groups)
    micro_batch_rows = min(config.engine.micro_batch_rows or rows, rows)
    return replace(
        config,
        loader=replace(config.loader, batch_rows=batch_rows),
        engine=replace(config.engine, micro_batch_rows=micro_batch_rows),
    )
