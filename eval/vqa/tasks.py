"""The benchmarks by their names, each imported when it is asked for."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .task import Task

NAMES = {
    "vqav2": "VqaV2",
    "gqa": "Gqa",
    "textvqa": "TextVqa",
    "pope": "Pope",
    "mme": "Mme",
    "mmbench": "MmBench",
    "seedbench": "SeedBench",
    "mmmu": "Mmmu",
    "nlvr": "Nlvr",
    "captions": "Captions",
}


def task_of(name: str) -> "Task":
    """Return the benchmark of a name; ValueError where there is none."""
    if name not in NAMES:
        raise ValueError(f"no task {name!r}: there are {', '.join(NAMES)}")
    return getattr(import_module(f".{name}", __package__), NAMES[name])()
