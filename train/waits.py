"""Who the ranks of a run wait for: what each waits for its data, and those that keep the others.

A step begins when the last rank has its batch. So a rank whose data comes late costs all others as
much, and a mean over ranks would hide it.
"""

import socket
import sys
from collections import deque
from statistics import mean, median_low

from .ranks import Ranks

STEPS = 20  # by which a rank is judged, after the first
MOST_SHARE = 0.05  # of a step that a rank may wait for its data without being named,
TIMES = 2.0  # or so many times what most ranks wait


class Waits:
    """What each rank waits for its data, step by step."""

    def __init__(self, ranks: Ranks) -> None:
        """All ranks call it together."""
        self.ranks = ranks
        self.hosts = ranks.all_gather(socket.gethostname())
        self.named: set[int] = set()
        self._last: deque[tuple[list[float], float]] = deque(maxlen=STEPS)
        self._is_warm = False

    def mine(self, waited_s: float) -> list[float]:
        """Return what this rank adds to the sums over all ranks: its seconds in its own place."""
        values = [0.0] * self.ranks.world_size
        values[self.ranks.rank] = waited_s
        return values

    def metrics(self, waits_s: list[float], step_s: float) -> dict[str, float | list[float]]:
        """Return what is logged of a step in which ranks waited so long: the longest, and each.

        The first rank names who keeps the others, once.
        """
        if self._is_warm:  # in the first step everybody waits, for the first rows
            self._last.append((waits_s, step_s))
        self._is_warm = True
        if self.ranks.is_first and len(self._last) == STEPS:
            for line in self._new_stragglers():
                print(line, file=sys.stderr)
        each = {"data_waits_s": [round(one, 4) for one in waits_s]} if len(waits_s) > 1 else {}
        return {"data_wait_s": max(waits_s), **each}

    def _new_stragglers(self) -> list[str]:
        """Return a line for each rank that others wait for, unless it was named before."""
        step_s = mean(seconds for _, seconds in self._last)
        means_s = [mean(column) for column in zip(*(waits for waits, _ in self._last), strict=True)]
        usual_s = median_low(means_s)
        found = {
            rank: f"rank {rank} on {self.hosts[rank]} waits {one:.2f} s of a step of "
            f"{step_s:.2f} s for its data, most ranks {usual_s:.2f} s: all wait for it; look at "
            "its disk and cores, or raise loop.data_workers"
            for rank, one in enumerate(means_s)
            if one > MOST_SHARE * step_s and one > TIMES * usual_s and rank not in self.named
        }
        self.named |= set(found)
        return list(found.values()) if len(means_s) > 1 else []
