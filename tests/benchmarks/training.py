"""Training against its bars and its peers: `python tests/benchmarks/training.py` prints a table.

    python tests/benchmarks/training.py [--only NAME]... [--threads N] [--quick]

The parts are `step`, `loss` and `save`, on CPUs, `zero`, whose bar holds on a GPU, and `gpu`, whose
lines are empty without one.
Contenders run in one process over the same inputs, in turns; a value is a median, with its range
in brackets. Timings mean something on a quiet machine only. The exit status is 1 when something is
not exact; a bar that is missed is said in the table.
"""

import platform
import sys
from pathlib import Path

import click
import torch

sys.path.extend(map(str, Path(__file__).resolve().parents[2:0:-1]))  # launched by its path

from benchmarks import gpus, heads, saves, steps, zeros
from benchmarks.measured import table
from benchmarks.steps import QUICK, Scale

from unimodal.train import heap
from unimodal.train.loop import LoopConfig, set_threads

PARTS = {
    "step": steps.lines,
    "loss": heads.lines,
    "save": saves.lines,
    "zero": zeros.lines,
    "gpu": gpus.lines,
}


@click.command()
@click.option("--only", type=click.Choice(list(PARTS)), multiple=True, help="A part; repeatable.")
@click.option("--threads", default=2, show_default=True, help="CPU threads.")
@click.option("--quick", is_flag=True, help="Small sizes: shows that it works, and no more.")
def main(only: tuple[str, ...], threads: int, quick: bool) -> None:
    """Print the table."""
    set_threads(LoopConfig(num_threads=threads))  # as a run does, for both contenders
    heap.keep_freed()
    found = []
    for name in only or PARTS:
        print(f"measuring {name}", file=sys.stderr)
        found += PARTS[name](QUICK if quick else Scale())
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    machine = platform.processor() or platform.machine()
    print(f"{machine}, {threads} threads, {device}, torch {torch.__version__}{', quick' * quick}\n")
    print(table(found))
    sys.exit(any(line.wrong for line in found))


if __name__ == "__main__":
    main()
