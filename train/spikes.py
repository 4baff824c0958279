"""Answer a spike of the loss by going back to a checkpoint before it, and past the bad batches.

    loss > median + threshold * spread of the last losses -> newest checkpoint before the batches
    -> history.jsonl names them -> the run begins again there and leaves them out

As PaLM was trained (Chowdhery et al., arXiv:2204.02311, section 5.1). What is judged by are the
lines of `metrics.jsonl`, and what is left out the lines of `history.jsonl`, so a run that is
stopped in between goes on in the same way. The first rank decides for all.
"""

import gc
import json
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from shutil import rmtree
from statistics import median
from typing import TypeVar

from . import checkpoint, history, metrics
from .history import Change
from .ranks import Ranks

T = TypeVar("T")
BATCH, COUNT, KEY = "batch", "spikes", "spike"
NORMAL = 1.4826  # the standard deviation of a normal distribution, in median absolute deviations


@dataclass(frozen=True)
class SpikeConfig:
    """Configure what counts as a spike of the loss, and what is left out then."""

    threshold: float = 10.0
    """How many robust standard deviations (1.4826 median absolute deviations) above the median of
    the last losses a loss must be."""
    window_steps: int = 100
    """How many steps these last losses are of; before there are as many nothing is a spike."""
    batches: int = 1
    """How many batches are left out: that of the spike and those before it."""
    max_spikes: int = 10
    """How often the whole run goes back; one spike more ends it."""

    def problems(self) -> list[str]:
        """Return what is wrong with the values, one sentence each."""
        found = [] if self.threshold > 0 else [f"threshold {self.threshold}: above 0"]
        if self.window_steps < 8:
            found.append(f"window_steps {self.window_steps}: at least 8, or the spread is chance")
        return found + [
            f"{name} {getattr(self, name)}: at least 1"
            for name in ("batches", "max_spikes")
            if getattr(self, name) < 1
        ]


class WentBack(Exception):
    """Say that a run is to begin again from its newest checkpoint, in the same process."""


@dataclass(frozen=True)
class Spike:
    """Hold a loss that is a spike, and the answer to it."""

    step: int
    loss: float | None
    """None: it was no finite number, or the gradient was none."""
    median: float | None
    spread: float | None
    """The robust standard deviation of the losses before it."""
    from_step: int
    """The checkpoint that is gone back to."""
    batches: tuple[str, ...]
    """Digests of the batches that are left out."""

    def __str__(self) -> str:
        said = "is no finite number" if self.loss is None else (
            f"is {self.loss:.4g}, after a median of {self.median:.4g} and a spread of "
            f"{self.spread:.2g}"
        )  # fmt: skip
        return f"the loss of step {self.step} {said}"


class Spikes:
    """Watch the losses of a run. All ranks have one and call its methods together."""

    def __init__(self, config: SpikeConfig, output: Path, ranks: Ranks, start: int) -> None:
        """Begin with what the run has logged of the steps before `start`."""
        self.config, self.output, self.ranks = config, output, ranks
        self._losses: deque[float] = deque(maxlen=config.window_steps)
        self._digests: deque[str] = deque(maxlen=config.batches)
        self.count = 0
        for line in metrics.read(output) if ranks.is_first else ():
            if line["step"] < start and BATCH in line:
                self._losses.append(line["loss"])
                self._digests.append(line[BATCH])
        if ranks.is_first:
            self.count = len(answered(output))

    def met(self, step: int, loss: float | None, digest: str) -> Spike | None:
        """Return the spike that a step's loss is, on all ranks alike, or None.

        `loss` None: it was not finite. Of a spike without a checkpoint to go back to only that is
        said, and of one that is not finite and one too many, too: None.
        """
        spike = self._judged(step, loss, digest) if self.ranks.is_first else None
        told = json.loads(self.ranks.first_says(json.dumps(spike and asdict(spike))))
        return None if told is None else Spike(**told | {"batches": tuple(told["batches"])})

    def go_back(self, spike: Spike) -> None:
        """Remove the checkpoints behind the one that is gone back to, and note the answer.

        No save may be under way. Raises ValueError where the run has gone back too often.
        """
        self.ranks.together(lambda: self._went_back(spike) if self.ranks.is_first else None)

    def _judged(self, step: int, loss: float | None, digest: str) -> Spike | None:
        self._digests.append(digest)
        last = [*self._losses]
        about: tuple[float | None, float | None] = None, None
        if loss is not None:
            self._losses.append(loss)
            if len(last) < self.config.window_steps:
                return None
            middle, spread = robust(last)
            if not loss > middle + self.config.threshold * spread:
                return None
            about = middle, spread
        elif self.count >= self.config.max_spikes:
            return None
        whole = [checkpoint.step_of(one) for one in checkpoint.found(self.output)]
        before = [one for one in whole if one <= step + 1 - len(self._digests)]
        if not before:
            print(f"step {step}: a spike, and no checkpoint to go back to", file=sys.stderr)
            return None
        return Spike(step, loss, *about, before[-1], tuple(self._digests))

    def _went_back(self, spike: Spike) -> None:
        if self.count >= self.config.max_spikes:
            raise ValueError(
                f"{spike}, and {self.output} has gone back {self.count} times already: look at its "
                "data and rates, or give a larger loop.spikes.max_spikes; its checkpoints are whole"
            )
        # A kill in between leaves a run that meets the same spike once more, and does the same.
        for path in checkpoint.found(self.output):
            if checkpoint.step_of(path) > spike.from_step:
                rmtree(path)
        seen = asdict(spike)
        left_out = seen.pop("batches")
        history.note(self.output, seen.pop("from_step"), [Change(KEY, seen, left_out)])
        print(f"{spike}: the run goes back to step {spike.from_step}, and leaves out "
              f"{', '.join(left_out)}", file=sys.stderr)  # fmt: skip


def robust(values: list[float]) -> tuple[float, float]:
    """Return the median of some values and their robust standard deviation: 1.4826 times the median
    absolute deviation from it (Hampel, 1974).
    """
    middle = median(values)
    return middle, NORMAL * median(abs(value - middle) for value in values)


def answered(output: Path) -> list[list[str]]:
    """Return the digests that each spike of a run has left out, the first spike first."""
    return [line["new"] for line in history.read(output) if line["key"] == KEY]


def left_out(output: Path, ranks: Ranks) -> tuple[str, ...]:
    """Return the digests of all batches that spikes of a run have left out, on all ranks alike."""
    mine = answered(output) if ranks.is_first else []
    return tuple(digest for one in json.loads(ranks.first_says(json.dumps(mine))) for digest in one)


def going_back(train: Callable[[], T]) -> T:
    """Return what `train` gives, which begins again from the newest checkpoint whenever a spike is
    met: as a new process would.
    """
    while True:
        try:
            return train()
        except WentBack:
            pass
        gc.collect()  # the model and its state, before they are made again
