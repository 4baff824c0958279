"""The benchmarks by their names, each imported when it is asked for."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .benchmark import Benchmark

NAMES = {"geneval2": "GenEval2", "dpg": "Dpg", "tifa": "Tifa", "compbench": "CompBench"}


def benchmark_of(name: str) -> "Benchmark":
    """Return the benchmark of a name; ValueError where there is none."""
    if name not in NAMES:
        raise ValueError(f"no benchmark {name!r}: there are {', '.join(NAMES)}")
    return getattr(import_module(f".{name}", __package__), NAMES[name])()
