"""Run commands of unimodal one after the other, for benchmarks that take hours.

Each is a process of its own, as a user would start it, in one thread. What it prints goes to a log,
what it took of a processor to a file beside its run. Whoever calls asks first whether its output is
there, so that the same benchmark goes on where it was stopped.
"""

import fcntl
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def call(*words: object, log: Path, cpu: Path | None = None) -> None:
    """Run `unimodal` with these words, as `status_of` does; end this process with its exit status
    where that is not 0.
    """
    status = status_of(*words, log=log, cpu=cpu)
    if status:
        print(f"unimodal {words[0]} {words[1]} ended with {status}: see {log}")
        sys.exit(status)


def status_of(*words: object, log: Path, cpu: Path | None = None) -> int:
    """Run `unimodal` with these words in one thread and return its exit status; what it prints goes
    to the log, its time on processors to `cpu`.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    before = _children_s()
    with (
        log.open("a") as file,
        subprocess.Popen(
            [sys.executable, "-m", "unimodal", *map(str, words)], cwd=ROOT, stdout=file,
            stderr=file, env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "100"},
        ) as process,
    ):  # fmt: skip
        try:
            status = process.wait()
        except KeyboardInterrupt:  # it was interrupted too: it ends its step, saves and exits
            status = process.wait()
    if cpu is not None:
        cpu.parent.mkdir(parents=True, exist_ok=True)
        with cpu.open("a") as file:
            print(_children_s() - before, file=file)
    return status


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def cpu_file(run: Path) -> Path:
    """Return where the seconds of a run's processes are kept, one line for each start."""
    return run.parent / f"{run.name}.cpu_s.txt"


def cpu_minutes(run: Path) -> float:
    """Return what the training of a run took of processors, however busy the machine was."""
    return sum(map(float, cpu_file(run).read_text().split())) / 60


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Let one process at a time make what is at a path; the others wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def made(folder: Path) -> Iterator[Path | None]:
    """Yield a folder to fill, which then takes the name of this one; None where this is there."""
    with alone(folder):
        part = folder.with_name(f"{folder.name}.part")
        yield None if folder.exists() else part
        if not folder.exists():
            part.rename(folder)


def scenes(folder: Path, samples: int, seed: int, log: Path, *more: str) -> Path:
    """Write shards of scenes, unless they are there, and return their folder."""
    with made(folder) as part:
        if part is not None:
            call("data", "scenes", part, "--samples", samples, "--seed", seed, *more, log=log)
    return folder


def encoded(talks: Path, tokenizer: Path, folder: Path, log: Path) -> Path:
    """Encode the images of shards, unless that is done, and return the folder of the new ones."""
    with made(folder) as part:
        if part is not None:
            call("data", "encode", talks, part, "--tokenizer", tokenizer, log=log)
    return folder


def scored(
    run: Path, images: Path | None, file: Path, samples: int, log: Path, *more: str
) -> dict[str, Any]:
    """Return what `eval tokenizer` says of a run's tokenizer, measured once; of scenes without
    images.
    """
    if not file.exists():
        shown = () if images is None else (images,)
        words = ("--samples", samples, "--json", file, *more)
        call("eval", "tokenizer", run, *shown, *words, log=log)
    return json.loads(file.read_text())
