"""The data path against its bars and its peers: `python tests/benchmarks/data.py` prints a table.

    python tests/benchmarks/data.py [--only NAME]... [--skip NAME]... [--quick] [--real FOLDER]

The parts are `packing`, `reading`, `resume`, `memory`, `wait` (trains for a minute) and `jpeg`.
Contenders run in one process over the same inputs, in turns; a value is a median, with its range
in brackets. Timings mean something on a quiet machine only. The exit status is 1 when something is
not exact; a bar that is missed is said in the table.
"""

import platform
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import click
import torch

sys.path.extend(map(str, Path(__file__).resolve().parents[2:0:-1]))  # launched by its path

from benchmarks import inputs, jpegs, plans, processes, readers
from benchmarks.inputs import QUICK, REAL, Sizes
from benchmarks.measured import Line, table

PARTS = ("packing", "reading", "resume", "memory", "wait", "jpeg")
ROW_LENGTHS = (1024, 2048)


@click.command()
@click.option("--only", type=click.Choice(PARTS), multiple=True, help="A part; repeatable.")
@click.option("--skip", type=click.Choice(PARTS), multiple=True, help="A part; repeatable.")
@click.option("--quick", is_flag=True, help="Small sizes: shows that it works, and no more.")
@click.option(
    "--real", type=click.Path(path_type=Path), default=REAL, help="The folder of the real sets."
)
def main(only: tuple[str, ...], skip: tuple[str, ...], quick: bool, real: Path) -> None:
    """Print the table."""
    names = [name for name in only or PARTS if name not in skip]
    with tempfile.TemporaryDirectory() as scratch:
        found = list(measured(names, QUICK if quick else Sizes(), real, Path(scratch)))
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, "
          f"Python {platform.python_version()}{', quick' * quick}\n")  # fmt: skip
    print(table(found))
    sys.exit(any(line.wrong for line in found))


def measured(names: list[str], sizes: Sizes, real: Path, scratch: Path) -> Iterator[Line]:
    """The lines of these parts."""
    scenes = inputs.write_scenes(scratch / "scenes", sizes.samples)
    parts = {
        "packing": partial(packing, scenes, sizes, real),
        "reading": partial(reading, scenes, sizes, real),
        "resume": partial(processes.resume, scenes, sizes),
        "memory": partial(processes.memory, scenes, scratch, sizes),
        "wait": partial(processes.wait, scenes, scratch, sizes),
        "jpeg": partial(jpeg, sizes, real),
    }
    for name in names:
        print(f"measuring {name}", file=sys.stderr)
        yield from parts[name]()


def packing(scenes: Path, sizes: Sizes, real: Path) -> Iterator[Line]:
    """Scenes, and the mixture of the real sets."""
    for length in ROW_LENGTHS:
        yield from plans.lines("scenes", inputs.scenes(scenes), None, length, sizes)
    try:
        sources = inputs.real(real)
    except FileNotFoundError as error:
        yield skipped("packing, real sets", error)
        return
    for length in ROW_LENGTHS:
        yield from plans.lines("real sets", sources, inputs.RULE, length, sizes)


def reading(scenes: Path, sizes: Sizes, real: Path) -> Iterator[Line]:
    """Scenes, and real questions about images."""
    yield from readers.lines("scenes", scenes, None, sizes)
    try:
        inputs.real(real)
    except FileNotFoundError as error:
        yield skipped("reading, real questions", error)
        return
    yield from readers.lines("NLVR", real / "nlvr", inputs.RULE, sizes)


def jpeg(sizes: Sizes, real: Path) -> Iterator[Line]:
    """Figures of textbooks."""
    try:
        inputs.real(real)
    except FileNotFoundError as error:
        yield skipped("JPEG", error)
        return
    yield from jpegs.lines(real / "openstax", sizes)


def skipped(what: str, why: Exception) -> Line:
    """A line in the place of a part that cannot be measured here."""
    return Line(what, f"skipped: {why}")


if __name__ == "__main__":
    main()
