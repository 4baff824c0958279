"""Profile some steps of a run: what ran when, and on a GPU who held its memory.

profile/steps_00000010_rank_00000.json.gz    a trace, for chrome://tracing or ui.perfetto.dev
profile/memory_00000010_rank_00000.html      allocations over time with their stacks, a page
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.cuda import _memory_viz
from torch.profiler import ProfilerActivity, profile, record_function

FOLDER = "profile"


@dataclass(frozen=True)
class ProfileConfig:
    """Configure which steps are profiled, on every rank; they take longer than others."""

    from_step: int = 10
    """The first of them, counted from 0: one after those in which kernels are compiled."""
    steps: int = 3
    memory: bool = False
    """Whether the GPU's allocations are recorded too."""

    def problems(self) -> list[str]:
        """Return what is wrong with the values, one sentence each."""
        found = [] if self.from_step >= 0 else [f"from_step {self.from_step}: at least 0"]
        return found if self.steps >= 1 else [*found, f"steps {self.steps}: at least 1"]

    def obstacles(self) -> list[str]:
        """Return what this machine lacks, one sentence each."""
        if self.memory and not torch.cuda.is_available():
            return ["loop.profile.memory: it records a GPU's allocations, and here is none"]
        return []


@contextmanager
def profiling(
    config: ProfileConfig | None, output: Path, rank: int
) -> Iterator[Callable[[int], None]]:
    """Give a function that is to be called with the number of each step before it is taken, and
    write what was profiled into the run's folder `output`.
    """
    if config is None:
        yield lambda step: None
        return
    chosen = range(config.from_step, config.from_step + config.steps)
    going: list[Profile] = []

    def note(step: int) -> None:
        if step in chosen and not going:
            going.append(Profile(config, output / FOLDER, step, rank))
        elif step not in chosen and going:
            going.pop().write()
        for one in going:
            one.begin(step)

    try:
        yield note
    finally:
        for one in going:  # the last step was among them
            one.write()


class Profile:
    """What is being profiled from a step on."""

    def __init__(self, config: ProfileConfig, folder: Path, step: int, rank: int) -> None:
        """Begin to record, into files that are named after a step and a rank."""
        self.memory = config.memory
        self.folder, self._name = folder, f"{step:08d}_rank_{rank:05d}"
        gpu = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
        self._trace = profile(activities=[ProfilerActivity.CPU, *gpu], record_shapes=True)
        if self.memory:
            torch.cuda.memory._record_memory_history()
        self._trace.start()
        self._steps = ExitStack()

    def begin(self, step: int) -> None:
        """Mark the beginning of a step, and the end of the one before."""
        self._steps.close()
        self._steps.enter_context(record_function(f"step {step}"))

    def write(self) -> None:
        """End, and write the files."""
        self._steps.close()
        self._trace.stop()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._trace.export_chrome_trace(str(self.folder / f"steps_{self._name}.json.gz"))
        if self.memory:
            snapshot = torch.cuda.memory._snapshot()
            torch.cuda.memory._record_memory_history(enabled=None)
            page = _memory_viz.trace_plot(snapshot)
            (self.folder / f"memory_{self._name}.html").write_text(page)
