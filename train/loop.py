"""Run the training loop, one for every model, on one rank or many.

    take a batch -> agree on norms and stops -> losses and update -> log -> checkpoint

The same command goes on where a run was stopped. Ctrl-C and SIGTERM on any rank end the step in
hand on all of them, write a checkpoint and exit with STOPPED.
"""

import math
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column
from torch import nn

from unimodal import remote
from unimodal.threads import is_small

from .engine import Engine
from .lock import Lock
from .metrics import metrics
from .mirror import sending
from .optimizer import whole_shape
from .profiling import ProfileConfig, profiling
from .ranks import Ranks
from .resuming import prepare as prepare
from .room import Room, state_bytes, steps_saved
from .saver import Saver
from .skipping import passing
from .spikes import BATCH, COUNT, SpikeConfig, Spikes, WentBack, left_out
from .steps import Steps
from .watch import Watch

T = TypeVar("T")
DIGEST = re.compile(r"[0-9a-f]{16}")
BAR_WIDTH = 20  # characters
STOPPED = (
    75  # exit status of a run that was asked to stop: run the same command again (EX_TEMPFAIL)
)
Measure = Callable[[int, float, Mapping[str, float]], Mapping[str, float]]
"""(steps done, seconds of the last one, its reports and norms) -> what else is logged."""


@dataclass(frozen=True)
class LoopConfig:
    """Configure what is saved, logged and watched beside training."""

    save_every_steps: int = 500
    keep_checkpoints: int = 2
    """How many of the newest checkpoints are kept."""
    keep_every_steps: int | None = None
    """Keep, beside those, the checkpoints of whole multiples of so many steps; None: no others."""
    hang_s: int | None = 1800
    """A step that takes longer ends the run, with the stacks of all threads in `stacks_R.txt` of
    rank R; None: never. What ranks wait for an upload to `mirror` does not count."""
    wandb: str | None = None
    """A project of Weights & Biases to log to as well (WANDB_MODE=offline needs no account)."""
    num_threads: int | None = None
    """Threads on the CPU; None: one where a step is small (see unimodal/threads.py), else all that
    torch has."""
    data_workers: int = 0
    """Processes of each rank that read data ahead; 0: a thread. What is learned does not depend on
    it. They encode images on the CPU, so that on a GPU it pays for shards of codes."""
    verify: Literal["headers", "all"] = "headers"
    """What is read of each shard at a start to tell it from one that was changed and has the same
    size and time: its tar headers, or all of it, as `--verify` has it."""
    skip_batches: tuple[str, ...] = ()
    """Digests of batches that are passed over, as a run that met no finite number names them."""
    spikes: SpikeConfig | None = None
    """What spikes of the loss are answered by going back; None: training goes on through them."""
    profile: ProfileConfig | None = None
    """Steps of which a trace is written, and on a GPU what holds its memory; None: of none."""
    mirror: str | None = None
    """A URL that fsspec opens (s3://, gs://, sftp://, ...), of this run alone: each checkpoint is
    copied there, and a start in a folder without one goes on from the newest. None: nowhere."""

    def problems(self) -> list[str]:
        """Return what is wrong with the values, one sentence each."""
        found = [
            f"{name} {value}: at least 1"
            for name, value in vars(self).items()
            if isinstance(value, int) and name != "data_workers" and value < 1
        ]
        if self.data_workers < 0:
            found.append(f"data_workers {self.data_workers}: at least 0")
        if self.mirror is not None and (said := remote.problem(self.mirror)):
            found.append(f"mirror: {said}")
        wrong = [digest for digest in self.skip_batches if not DIGEST.fullmatch(digest)]
        return [*found, *(f"skip_batches {digest!r}: 16 hex digits" for digest in wrong)]

    def obstacles(self) -> list[str]:
        """Return what this machine lacks, one sentence each."""
        found = [] if self.profile is None else self.profile.obstacles()
        if self.wandb is not None and find_spec("wandb") is None:
            found.append("loop.wandb: not installed; pip install 'unimodal[train]'")
        if self.mirror is not None and (said := remote.obstacle(self.mirror)):
            found.append(f"loop.mirror: {said}")
        return found

    def unreached(self, num_steps: int) -> list[str]:
        """Say which settings so many steps are too few for."""
        begins: dict[str, int] = {}
        if self.profile is not None:
            begins["profile.from_step"] = self.profile.from_step
        if self.spikes is not None:
            begins["spikes.window_steps"] = self.spikes.window_steps
        return [
            f"note: loop.{name} {step} is not reached: num_steps is {num_steps}"
            for name, step in begins.items()
            if step >= num_steps
        ]


class Stopped(SystemExit):
    """Say that the run was asked to stop and has written a checkpoint."""

    def __init__(self) -> None:
        super().__init__(STOPPED)


def run(
    output: Path,
    config: LoopConfig,
    engine: Engine,
    batches: Iterator[tuple[T, dict[str, Any]]],
    start: int,
    measure: Measure = lambda done, step_s, counts: {},
    micro_batch_rows: int | None = None,
    lock: Lock | None = None,
    bundle_bytes: int = 0,
) -> None:
    """Train from step `start` to the schedule's end.

    `batches` begins at the batch of step `start` with this rank's rows, of which `micro_batch_rows`
    (None: all) go through the model at once, and gives beside each the data's state after it.
    `lock`: the first rank's, without which it stops; `bundle_bytes`: what is written at the end.
    Raises NotFinite with the digests and the state of the batch that did it, Stopped when asked to
    stop, and WentBack where the run is to begin again (spikes.py).
    """
    ranks, num_steps = engine.ranks, engine.schedule.num_steps
    _check_room(output, config, engine, start, bundle_bytes)
    for line in config.unreached(num_steps) if ranks.is_first else ():
        print(line, file=sys.stderr)
    watch = Watch(config.hang_s, output / f"stacks_{ranks.rank}.txt")
    saver = _saver(output, config, ranks, lock, watch)
    spikes = None if config.spikes is None else Spikes(config.spikes, output, ranks, start)
    answer = partial(_answer, spikes, saver)
    skip = config.skip_batches + left_out(output, ranks)
    kept = passing(batches, engine.learner, skip, ranks, output, start, spikes is not None)
    steps = Steps(engine, kept, saver, lock, answer, micro_batch_rows)
    done, stop = start, False
    logging = metrics(output, start, config.wandb) if ranks.is_first else nullcontext(_nowhere)
    with (_bar(ranks) as bar, _stop_request() as asked, watch, logging as log,
          closing(saver), profiling(config.profile, output, ranks.rank) as profile):  # fmt: skip
        task = bar.add_task(output.name, total=num_steps, completed=start, numbers="")
        for step in range(start, num_steps):
            watch.alive()
            profile(step)
            taken = steps.take(step, asked)
            reports, stop, step_s = taken.reports, taken.stop, taken.step_s
            log({"step": step, **reports, **taken.about,
                 **({} if spikes is None else {BATCH: taken.digest, COUNT: spikes.count}),
                 **measure(step + 1, step_s, reports | taken.norms)})  # fmt: skip
            bar.update(task, completed=step + 1, numbers=_numbers(reports))
            answer(stop, step, reports["loss"], taken.digest)
            done = step + 1
            if stop or done == num_steps or done % config.save_every_steps == 0:
                saver.save(done, {"data": taken.state}, engine.parameter_shards())
            if stop and done < num_steps:
                break
        saver.wait()
    if stop and done < num_steps:
        if ranks.is_first:
            print(f"stopped after step {done} of {num_steps}; the same command goes on from there",
                  file=sys.stderr)  # fmt: skip
        raise Stopped


def _saver(
    output: Path, config: LoopConfig, ranks: Ranks, lock: Lock | None, watch: Watch
) -> Saver:
    """Return what saves the run here and at its mirror, whose uploads may take longer than a step:
    nobody hangs meanwhile.
    """
    keep = config.keep_checkpoints, config.keep_every_steps
    ours = lock.check if lock is not None else _nothing
    copy_out = sending(config.mirror, output, *keep)
    return Saver(output, ranks, *keep, config.hang_s, ours, copy_out, watch.resting)


def _answer(
    spikes: Spikes | None, saver: Saver, stop: bool, step: int, loss: float | None, digest: str
) -> None:
    """Go back where a loss (None: not finite) is a spike that can be answered: raises WentBack, or
    Stopped where that was asked for.
    """
    if spikes is not None and (spike := spikes.met(step, loss, digest)) is not None:
        saver.wait()
        spikes.go_back(spike)
        saver.copy_again()  # or a start elsewhere would go on behind the batches
        raise Stopped if stop else WentBack


def _check_room(
    output: Path, config: LoopConfig, engine: Engine, start: int, bundle_bytes: int
) -> None:
    """Raise OSError where the disk lacks room for what all ranks will write."""
    mine = state_bytes(engine.parameter_shards(), engine.ema_decay is not None)
    every = engine.ranks.all_reduce_sum(torch.tensor([mine], dtype=torch.float64))
    room = Room(int(every), bundle_bytes, config.keep_checkpoints, config.keep_every_steps)
    coming = steps_saved(start, engine.schedule.num_steps, config.save_every_steps)
    engine.ranks.together(lambda: room.check(output, coming) if engine.ranks.is_first else None)


def _nowhere(values: Mapping[str, Any]) -> None:
    """Log nothing: rank 0 logs for all."""


def _nothing() -> None:
    """Have no lock: rank 0 has it for all."""


def _bar(ranks: Ranks) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(BAR_WIDTH),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        # Of many losses as many as there is room for; or else they would push the others away.
        TextColumn("{task.fields[numbers]}", table_column=Column(ratio=1, no_wrap=True)),
        console=Console(stderr=True),
        disable=not ranks.is_first,
        expand=True,
    )


def _numbers(reports: dict[str, float]) -> str:
    return " ".join(
        f"{name} {value:.4g}"
        for name, value in reports.items()
        if not name.startswith(("targets", "weight")) and "/" not in name
    )


@contextmanager
def _stop_request() -> Iterator[Callable[[], bool]]:
    """Give a function that tells whether Ctrl-C or SIGTERM came; a second Ctrl-C stops at once."""
    came: list[int] = []

    def note(number: int, frame: object) -> None:
        if came and number == signal.SIGINT:
            raise KeyboardInterrupt
        came.append(number)

    old = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def fit_threads(config: LoopConfig, model: nn.Module, num_tokens: int) -> None:
    """Compute with one CPU thread from now on where a step over so many tokens at once is small,
    unless the config or the environment says how many.

    A step takes six operations for each weight and token: two forward, four backward.
    """
    num_weights = sum(math.prod(whole_shape(one)) for one in model.parameters())
    if config.num_threads is None and is_small(6 * num_weights * num_tokens):
        torch.set_num_threads(1)


def set_threads(config: LoopConfig) -> None:
    """Apply the number of CPU threads that the config has."""
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
