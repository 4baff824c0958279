"""Run the training loop, one for every model, on one rank or many.

    take a batch -> agree on norms and stops -> losses and update -> log -> checkpoint

The same command goes on where a run was stopped. Ctrl-C and SIGTERM on any rank end the step in
hand on all of them, write a checkpoint and exit with STOPPED.
"""

import ctypes
import faulthandler
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from unimodal import config as configuration

from . import checkpoint
from .checkpoint import Checkpoint, Saver, check_room
from .engine import Engine, NotFinite
from .metrics import METRICS, metrics
from .ranks import PeerFailure, Ranks

T = TypeVar("T")
# What a run writes before its first step.
BEGUN = (
    "text.json", "commits.txt", "sources.json", "quarantine.jsonl", "before.json", "inputs.json"
)  # fmt: skip
STOPPED = (
    75  # exit status of a run that was asked to stop: run the same command again (EX_TEMPFAIL)
)
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
FREE = ("output", "schedule", "loop", "sampling", "engine")  # what a resumed run may have otherwise
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
    rank R; None: never."""
    wandb: str | None = None
    """A project of Weights & Biases to log to as well (WANDB_MODE=offline needs no account)."""
    num_threads: int | None = None
    """Threads on the CPU; None: torch chooses."""

    def problems(self) -> list[str]:
        """Return what is wrong with the values, one sentence each."""
        return [
            f"{name} {value}: at least 1"
            for name, value in vars(self).items()
            if isinstance(value, int) and value < 1
        ]

    def obstacles(self) -> list[str]:
        """Return what this machine lacks, one sentence each."""
        if self.wandb is not None and find_spec("wandb") is None:
            return ["loop.wandb: not installed; pip install 'unimodal[train]'"]
        return []


class Stopped(SystemExit):
    """Say that the run was asked to stop and has written a checkpoint."""

    def __init__(self) -> None:
        super().__init__(STOPPED)


def prepare(config: Any, output: Path, inputs: dict[str, Any]) -> Checkpoint | None:
    """Open the run's directory and return its newest checkpoint; None for a new run.

    Raises ValueError when the directory holds a run of another config, of which `FREE` alone may
    differ, when `inputs` (hashes of what the run reads, by name) are not those that it began with,
    and when the run is beyond the schedule's end.
    """
    saved, noted = output / "config.yaml", output / "inputs.json"
    if not (output / METRICS).exists() and not checkpoint.found(output):
        # No step was taken: a mistake may be put right.
        for name in BEGUN if noted.exists() else ():  # nothing of a directory that is no run's
            (output / name).unlink(missing_ok=True)
    elif saved.exists():
        old = configuration.load(type(config), saved)
        changed = [
            name
            for name in vars(config)
            if name not in FREE and getattr(old, name) != getattr(config, name)
        ]
        if changed:
            raise ValueError(
                f"{output} holds a run with another {', '.join(changed)}: "
                "give another output, or remove it"
            )
    try:
        output.mkdir(parents=True, exist_ok=True)
        _same_inputs(noted, inputs)
        configuration.save(config, saved)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(output)) from error  # a write names none
    checkpoint.sweep(output)
    newest = checkpoint.newest(output)
    if newest is not None and newest.step > config.schedule.num_steps:
        raise ValueError(
            f"schedule.num_steps {config.schedule.num_steps}: {output} has taken {newest.step} "
            "steps; give more, or another output"
        )
    return newest


def _same_inputs(noted: Path, now: dict[str, Any]) -> None:
    """Note what a new run reads, or compare it with what the run in this directory began with."""
    if not noted.exists():
        noted.write_text(json.dumps(now, indent=1) + "\n")
        return
    before = json.loads(noted.read_text())
    changed = [name for name in now | before if now.get(name) != before.get(name)]
    if changed:
        raise ValueError(
            f"{', '.join(changed[:3])}: not what {noted.parent} began with; "
            "put it back, or give another output"
        )


def run(
    output: Path,
    config: LoopConfig,
    engine: Engine,
    batches: Iterator[tuple[T, dict[str, Any]]],
    start: int,
    measure: Measure = lambda done, step_s, counts: {},
    micro_batch_rows: int | None = None,
) -> None:
    """Train from step `start` to the schedule's end.

    `batches` begins at the batch of step `start` with this rank's rows, of which `micro_batch_rows`
    (None: all) go through the model at once, and gives beside each the data's state after it.
    Raises NotFinite with the rows and the state of the batch that did it, and Stopped when asked to
    stop.
    """
    ranks, learner, num_steps = engine.ranks, engine.learner, engine.schedule.num_steps
    ranks.together(
        lambda: check_room(
            output, engine.parameter_shards(), config.keep_checkpoints, engine.ema_decay is not None
        )
    )
    saver = Saver(output, ranks, config.keep_checkpoints, config.keep_every_steps, config.hang_s)
    done, stop = start, False
    watched = _watch(config.hang_s, output / f"stacks_{ranks.rank}.txt")
    logging = metrics(output, start, config.wandb) if ranks.is_first else nullcontext(_nowhere)
    with _bar(ranks) as bar, _stop_request() as asked, watched as alive, logging as log:
        task = bar.add_task(output.name, total=num_steps, completed=start, numbers="")
        for step in range(start, num_steps):
            alive()
            began = time.perf_counter()
            batch, state = next(batches)
            waited_s = time.perf_counter() - began
            norms, stop, failed = _agreed(ranks, learner.norms(batch), asked(), saver.has_failed)
            if failed:
                saver.wait()
            try:
                micro_batches = learner.micro_batches(batch, micro_batch_rows or sys.maxsize)
                reports, norm = engine.step(step, micro_batches, norms)
            except NotFinite as error:
                rows = " ".join(ranks.all_gather(" ".join(learner.digests(batch))))
                saver.wait()
                if not ranks.is_first:
                    raise PeerFailure(2) from error  # every rank knows, and one says it
                raise NotFinite(f"{error}\nits rows: {rows}\nits data: {state}") from error
            factor, step_s = engine.schedule.factor(step), time.perf_counter() - began
            log({"step": step, **reports, "gradient_norm": norm, "lr_factor": factor,
                 "data_wait_s": waited_s, "step_s": step_s,
                 **measure(step + 1, step_s, reports | norms)})  # fmt: skip
            bar.update(task, completed=step + 1, numbers=_numbers(reports))
            done = step + 1
            if stop or done == num_steps or done % config.save_every_steps == 0:
                saver.save(done, {"data": state}, engine.parameter_shards())
            if stop and done < num_steps:
                break
        saver.wait()
    if stop and done < num_steps:
        if ranks.is_first:
            print(f"stopped after step {done} of {num_steps}; the same command goes on from there",
                  file=sys.stderr)  # fmt: skip
        raise Stopped


def _nowhere(values: Mapping[str, Any]) -> None:
    """Log nothing: rank 0 logs for all."""


def _agreed(
    ranks: Ranks, norms: dict[str, float], stop: bool, failed: bool
) -> tuple[dict[str, float], bool, bool]:
    """Return the norms of the global batch, and whether any rank was asked to stop, or failed to
    save.
    """
    values = torch.tensor([float(stop), float(failed), *norms.values()], dtype=torch.float64)
    stops, failures, *summed = ranks.all_reduce_sum(values).tolist()
    return dict(zip(norms, summed, strict=True)), stops > 0, failures > 0


@contextmanager
def _watch(hang_s: int | None, path: Path) -> Iterator[Callable[[], None]]:
    """Give a function that must be called every `hang_s` seconds, or the process ends with its
    stacks in a file.

    A C thread looks at the clock, so a process that waits for another rank is caught too.
    """
    if hang_s is None:
        yield lambda: None
        return
    with path.open("w") as file:
        try:
            yield lambda: faulthandler.dump_traceback_later(hang_s, exit=True, file=file)
        finally:
            faulthandler.cancel_dump_traceback_later()
            path.unlink()


def _bar(ranks: Ranks) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[numbers]}"),
        console=Console(stderr=True),
        disable=not ranks.is_first,
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


def set_threads(config: LoopConfig) -> None:
    """Apply the number of CPU threads, and let the process keep the memory that it frees.

    glibc gives large buffers back to the system after each use, and every page of them must be
    faulted in again: without that a training step on two CPU threads took 13 % less time.
    """
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # not in other C libraries
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
