"""Take the steps of a run: on each rank its rows, and on all of them the same decisions.

a batch -> agree on norms, stops and failures -> losses and update
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import torch

from .engine import Engine, NotFinite
from .lock import Lock
from .ranks import PeerFailure
from .saver import Saver
from .skipping import batch_digest, row_digests
from .waits import Waits

MOST_STATE = 2000  # characters of a state that are shown
Answer = Callable[[bool, int, float | None, str], None]
"""(whether to stop, step, its loss or None where that is not finite, digest of its batch)"""


@dataclass(frozen=True)
class Taken:
    """What a step came to."""

    reports: dict[str, float]
    norms: dict[str, float]
    about: dict[str, float | list[float]]
    """What else is logged of it."""
    step_s: float
    digest: str
    """Of its batch."""
    state: dict[str, Any]
    """Of the data, behind its batch."""
    stop: bool
    """Whether any rank was asked to stop."""


class Steps:
    """The steps of one run."""

    def __init__(
        self,
        engine: Engine,
        batches: Iterator[tuple[Any, dict[str, Any], str]],
        saver: Saver,
        lock: Lock | None,
        answer: Answer,
        micro_batch_rows: int | None,
    ) -> None:
        """Take batches with the data's state and a digest beside each; `lock`: the first rank's;
        `answer` hears of a loss that is not finite before the step raises. All ranks call it
        together.
        """
        self.engine, self.batches, self.saver, self.lock = engine, batches, saver, lock
        self.answer, self.micro_batch_rows = answer, micro_batch_rows or sys.maxsize
        self.waits = Waits(engine.ranks)

    def take(self, step: int, asked: Callable[[], bool]) -> Taken:
        """Take step number `step`; `asked` tells whether this rank was asked to stop.

        Raises NotFinite with the digests and the state of the batch that did it, and OSError where
        a rank could not save, or the run is another's now.
        """
        learner, began = self.engine.learner, time.perf_counter()
        batch, state, digest = next(self.batches)
        waited_s = time.perf_counter() - began
        norms, stop, waits_s = self._agreed(learner.norms(batch), asked(), waited_s)
        try:
            micro_batches = learner.micro_batches(batch, self.micro_batch_rows)
            reports, norm = self.engine.step(step, micro_batches, norms)
        except NotFinite as error:
            self.saver.wait()
            self.answer(stop, step, None, digest)
            self._tell(error, batch, state)
        factor, step_s = self.engine.schedule.factor(step), time.perf_counter() - began
        about = {"gradient_norm": norm, "lr_factor": factor,
                 **self.waits.metrics(waits_s, step_s), "step_s": step_s}  # fmt: skip
        return Taken(reports, norms, about, step_s, digest, state, stop)

    def _agreed(
        self, norms: dict[str, float], stop: bool, waited_s: float
    ) -> tuple[dict[str, float], bool, list[float]]:
        """Return the norms of the global batch, whether any rank was asked to stop, and what each
        waited for its data. Raises OSError, or PeerFailure, where one failed to save.
        """
        failed = self.saver.has_failed or (self.lock is not None and self.lock.is_lost)
        mine = [float(stop), float(failed), *norms.values(), *self.waits.mine(waited_s)]
        values = self.engine.ranks.all_reduce_sum(torch.tensor(mine, dtype=torch.float64)).tolist()
        stops, failures, *summed = values[: 2 + len(norms)]
        if failures:
            self.engine.ranks.together(self.lock.check if self.lock is not None else _nothing)
            self.saver.wait()
        agreed = dict(zip(norms, summed, strict=True))
        return agreed, stops > 0, values[2 + len(norms) :]

    def _tell(self, error: NotFinite, batch: Any, state: Mapping[str, Any]) -> NoReturn:
        """Raise NotFinite with what names the batch; every rank knows, and one says it."""
        rows = row_digests(self.engine.learner, batch, self.engine.ranks)
        if not self.engine.ranks.is_first:
            raise PeerFailure(2) from error
        digest = batch_digest(rows)
        raise NotFinite(
            f"{error}\nits batch: {digest}; the same command with "
            f"'loop.skip_batches=[\"{digest}\"]' goes on without it\nits rows: {' '.join(rows)}\n"
            f"its data: {str(state)[:MOST_STATE]}"
        ) from error


def _nothing() -> None:
    """Have no lock: rank 0 has it for all."""
