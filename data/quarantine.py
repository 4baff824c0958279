"""Keep account of samples that cannot be used: count them, write them down, stop at too many.

In: bad samples as they are met. Out: a JSONL file, one {"shard", "key", "reason", "message"} each,
and a ShardError, with the list, when they are more than a share of the samples.
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from .lengths import Bad
from .tar import ShardError

MIN_SAMPLES = 1000  # a share of fewer says little
SHOWN = 10


class Quarantine:
    """The bad samples of a run, each once."""

    def __init__(self, path: Path | None, share: float, setting: str = "bad_share") -> None:
        """Go on with the JSONL file at `path` if it is there; None means only to count.

        `share` is the share of bad samples, 0 to 1, above which the run stops; `setting` is its
        name in messages.
        """
        self.path, self.share, self.setting = path, share, setting
        self.reasons: Counter[str] = Counter()
        self._known: set[tuple[str, str]] = set()
        self._read: set[tuple[str, str]] = set()  # those that were found when read
        self._first: list[Bad] = []  # of these
        if path is not None and path.exists():
            *lines, cut = path.read_text(encoding="utf-8").split("\n")
            self._known = {_name(Bad(**json.loads(line))) for line in lines}
            if cut:  # by a full disk or a crash: written again when it is met again
                path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    def __len__(self) -> int:
        return sum(self.reasons.values())

    def add_measured(self, found: Iterable[Bad], samples: int) -> None:
        """Note the bad ones of a source's `samples`; ShardError when they are too many."""
        found = list(found)
        for bad in found:
            self._note(bad)
        if len(found) > self.share * samples:
            self._stop(found, len(found), samples)

    def add_read(self, found: Iterable[Bad], samples: int) -> None:
        """Note samples that turned out to be bad when read, of `samples` read so far.

        One that is met again is counted once. ShardError when they are too many.
        """
        for bad in found:
            self._note(bad)
            if _name(bad) not in self._read and len(self._first) < SHOWN:
                self._first.append(bad)
            self._read.add(_name(bad))
        if len(self._read) > self.share * max(samples, MIN_SAMPLES):
            self._stop(self._first, len(self._read), samples)

    def settle(self, samples: int) -> None:
        """Check the share at the end, however few samples there are; ShardError for too many."""
        if len(self._read) > self.share * samples:
            self._stop(self._first, len(self._read), samples)

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
    """Return what tells bad samples apart; without a key, the message, which names the byte."""
    return bad.shard, bad.key or bad.message
