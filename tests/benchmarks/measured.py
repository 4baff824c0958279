"""Two contenders timed side by side, and the table that says what came of it.

In: functions that do the same work. Out: seconds of each, taken in turns so that a busy moment of
the machine meets all of them, the memory that each takes, and `Line`s of a Markdown table.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import median

from torch.profiler import ProfilerActivity, profile

HEAD = ("what", "unimodal", "peer", "ratio", "bar", "met", "exact")


@dataclass(frozen=True)
class Line:
    """One line of the table; numbers are words already."""

    what: str
    ours: str
    peer: str = ""
    ratio: str = ""
    bar: str = ""
    met: bool | None = None
    """None: there is no bar."""
    check: str = ""
    """What was checked for exactness."""
    wrong: tuple[str, ...] = ()
    """What the check found; empty: exact."""

    @property
    def cells(self) -> tuple[str, ...]:
        """The line as the table shows it."""
        met = {None: "", True: "yes", False: "**no**"}[self.met]
        exact = f"**no**: {'; '.join(self.wrong)}" if self.wrong else self.check
        return self.what, self.ours, self.peer, self.ratio, self.bar, met, exact


def table(lines: Iterable[Line]) -> str:
    """A Markdown table."""
    rows = [HEAD, ("---",) * len(HEAD), *(line.cells for line in lines)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def interleaved(
    repeats: int, *contenders: Callable[[], object], clock: Callable[[], float] = time.perf_counter
) -> list[list[float]]:
    """Seconds of each contender for each repeat: all in turn, then all again, each time another
    one first; a first turn, which warms caches, is not counted.
    """
    seconds: list[list[float]] = [[] for _ in contenders]
    for repeat in range(repeats + 1):
        for turn in range(len(contenders)):
            number = (repeat + turn) % len(contenders)
            began = clock()
            contenders[number]()
            if repeat:
                seconds[number].append(clock() - began)
    return seconds


def peak_bytes(work: Callable[[], object]) -> tuple[int, int]:
    """The most bytes that torch held on the CPU during the work beyond what it held before, and
    those that it still holds after it.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        work()
    events = [e for e in profiled.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = list(accumulate(e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())))
    return max(held, default=0), held[-1] if held else 0


def ratios(slower: Sequence[float], faster: Sequence[float]) -> list[float]:
    """How many times as long the slower one took, repeat by repeat."""
    return [a / b for a, b in zip(slower, faster, strict=True)]


def spread(values: Sequence[float], unit: str = "", scale: float = 1.0) -> str:
    """The median and the range of values, scaled, in words."""
    middle, low, high = (f"{scale * f(values):.3g}" for f in (median, min, max))
    return f"{_plain(middle)}{unit} ({_plain(low)} to {_plain(high)})"


def _plain(number: str) -> str:
    return f"{float(number):,.0f}" if "e" in number else number
