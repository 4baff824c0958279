"""Samples that cannot be used: counted, written down, and never in anybody's way.

In: bad samples as they are met. Out: a JSONL file, one {"shard", "key", "reason", "message"} each,
and a stop, with the list, when they are more than a share of the samples.
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from .lengths import Bad
from .tar import ShardError

LEAST_SEEN = 1000  # samples: a share of fewer says little
SHOWN = 10


class Quarantine:
    """The bad samples of a run, each once."""

    def __init__(self, path: Path | None, share: float, setting: str = "bad_share") -> None:
        """`path`: the JSONL file, gone on with if it is there; None: only counted.

        `share`: the part of the samples, 0 to 1, above which the run stops; `setting`: its name.
        """
        self.path, self.share, self.setting = path, share, setting
        self.reasons: Counter[str] = Counter()
        self._known: set[tuple[str, str]] = set()
        self._made: set[tuple[str, str]] = set()  # those that were found in the making
        self._first: list[Bad] = []  # of these
        if path is not None and path.exists():
            *lines, cut = path.read_text(encoding="utf-8").split("\n")
            self._known = {_name(Bad(**json.loads(line))) for line in lines}
            if cut:  # by a full disk or a crash: written again when it is met again
                path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    def __len__(self) -> int:
        return sum(self.reasons.values())

    def add_measured(self, found: Iterable[Bad], samples: int) -> None:
        """Note the bad ones of a source's `samples`; ShardError when they are too many of these."""
        found = list(found)
        for bad in found:
            self._note(bad)
        if len(found) > self.share * samples:
            self._stop(found, len(found), samples)

    def add_read(self, found: Iterable[Bad], samples: int) -> None:
        """Note samples that were found to be bad in the making of `samples` in all so far;
        ShardError when they are too many. One that is met again is counted once.
        """
        for bad in found:
            self._note(bad)
            if _name(bad) not in self._made and len(self._first) < SHOWN:
                self._first.append(bad)
            self._made.add(_name(bad))
        if len(self._made) > self.share * max(samples, LEAST_SEEN):
            self._stop(self._first, len(self._made), samples)

    def settle(self, samples: int) -> None:
        """At the end of all samples: ShardError when too many were bad, however few there are."""
        if len(self._made) > self.share * samples:
            self._stop(self._first, len(self._made), samples)

    def _note(self, bad: Bad) -> None:
        if _name(bad) in self._known:
            return
        self._known.add(_name(bad))
        self.reasons[bad.reason] += 1
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                print(json.dumps(asdict(bad)), file=file)

    def _stop(self, found: list[Bad], count: int, samples: int) -> None:
        shown = found[:SHOWN]
        listed = "\n".join(f"  {b.shard}, key {b.key}: {b.message}" for b in shown)
        more = f"\n  and {count - len(shown)} more" if count > len(shown) else ""
        where = f" (all are in {self.path})" if self.path else ""
        raise ShardError(
            f"{count} of {samples} samples cannot be used, more than the share of "
            f"{self.share:.2%} that is let pass{where}; fix or remove them, or raise "
            f"{self.setting}:\n{listed}{more}"
        )


def _name(bad: Bad) -> tuple[str, str]:
    """What tells bad samples apart: where not even a key can be read, the message says the byte."""
    return bad.shard, bad.key or bad.message
