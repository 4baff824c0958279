"""The training loop: one for every model.

    take a batch -> loss -> stop if not finite -> update -> log -> checkpoint

The same command goes on where a run was stopped. Ctrl-C and SIGTERM end the step in hand, write a
checkpoint and stop.
"""

import ctypes
import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from unimodal import config as configuration

from . import checkpoint
from .engine import Engine
from .objectives import Losses

T = TypeVar("T")
METRICS = "metrics.jsonl"
# What a run writes before its first step.
BEGUN = ("text.json", "commits.txt", "sources.json", "quarantine.jsonl", "inputs.json")
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
FREE = ("output", "schedule", "loop", "sampling")  # what a resumed run may have otherwise


@dataclass(frozen=True)
class LoopConfig:
    """How a run is kept."""

    save_every_steps: int = 500
    keep_checkpoints: int = 2
    num_threads: int | None = None
    """CPU threads; None: torch's choice."""

    def problems(self) -> list[str]:
        """What is wrong with the values, one sentence each."""
        return [
            f"{name} {value}: at least 1"
            for name, value in vars(self).items()
            if value is not None and value < 1
        ]


class Stopped(SystemExit):
    """The run was asked to stop and has written a checkpoint."""


def prepare(config: Any, output: Path, inputs: dict[str, Any]) -> dict[str, Any] | None:
    """Open the run's directory; the state of its newest checkpoint, None for a new run.

    ValueError when the directory holds a run of another config, of which `FREE` alone may differ,
    when `inputs` (hashes of what the run reads, by name) are not those that it began with, and when
    the run is beyond the schedule's end.
    """
    saved, noted = output / "config.yaml", output / "inputs.json"
    if not (output / METRICS).exists():  # no step was taken: a mistake may be put right
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
    checkpoints = checkpoint.found(output)
    state = checkpoint.read_state(checkpoints[-1]) if checkpoints else None
    if state is not None and state["step"] > config.schedule.num_steps:
        raise ValueError(
            f"schedule.num_steps {config.schedule.num_steps}: {output} has taken {state['step']} "
            "steps; give more, or another output"
        )
    return state


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
    objective: Callable[[T], Losses],
    start: int,
    measure: Callable[[int], dict[str, float]] = lambda done: {},
) -> None:
    """Train from step `start` to the schedule's end; `batches` begins at the batch of step
    `start`. What `measure` gives after so many steps is logged with the step.
    """
    if start:
        engine.load(str(checkpoint.found(output)[-1]))
    num_steps = engine.schedule.num_steps
    log = _metrics(output / METRICS, start)
    with _bar() as bar, _stop_request() as asked:
        task = bar.add_task(output.name, total=num_steps, completed=start, numbers="")
        for step in range(start, num_steps):
            began = time.perf_counter()
            batch, state = next(batches)
            waited_s = time.perf_counter() - began
            losses = objective(batch)
            norm = engine.step(losses.total, step)
            factor = engine.schedule.factor(step)
            step_s = time.perf_counter() - began
            log({"step": step, **losses.reports, "gradient_norm": norm, "lr_factor": factor,
                 "data_wait_s": waited_s, "step_s": step_s, **measure(step + 1)})  # fmt: skip
            bar.update(task, completed=step + 1, numbers=_numbers(losses.reports))
            done = step + 1
            if asked() or done == num_steps or done % config.save_every_steps == 0:
                checkpoint.save(output, done, {"data": state}, engine.save, config.keep_checkpoints)
            if asked() and done < num_steps:
                raise Stopped(
                    f"stopped after step {done} of {num_steps}; the same command goes on from there"
                )


def hours(output: Path) -> float:
    """What the steps of a run have taken; 0 where there is no run."""
    path = output / METRICS
    lines = path.read_text().splitlines() if path.exists() else []
    return sum(json.loads(line)["step_s"] for line in lines) / 3600


def _metrics(path: Path, start: int) -> Callable[[dict[str, Any]], None]:
    """Append one JSON line a step, after dropping lines of steps that are done again."""
    if path.exists():
        lines = path.read_text().splitlines(keepends=True)
        whole = [line for line in lines if line.endswith("\n")]  # a full disk may cut the last one
        part = path.with_name(path.name + ".part")
        part.write_text("".join(line for line in whole if json.loads(line)["step"] < start))
        part.replace(path)

    def log(values: dict[str, Any]) -> None:
        try:
            with path.open("a") as file:
                print(json.dumps(values), file=file)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error

    return log


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[numbers]}"),
        console=Console(stderr=True),
    )


def _numbers(reports: dict[str, float]) -> str:
    return " ".join(
        f"{name} {value:.4g}"
        for name, value in reports.items()
        if not name.startswith(("targets", "weight"))
    )


@contextmanager
def _stop_request() -> Iterator[Callable[[], bool]]:
    """Tells whether Ctrl-C or SIGTERM came; a second Ctrl-C stops at once."""
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
