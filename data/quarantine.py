"""Keep account of samples that cannot be used: count them, write them down, stop at too many.

In: bad samples as they are met, and how many samples were read. Out: a JSONL file, one {"shard",
"key", "reason", "message"} each, and a ShardError, with the list, when too many of a source are
bad.

Samples are counted once, however often they are met. Too many are

1. more than a share of the source's samples, where their number is known;
2. so many of the samples read so far that a sound source would give them less than twice in a
   million: three of the first three at a share of 1 %, 15 of the first 256.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from unimodal import noted

from .lengths import Bad
from .tar import ShardError

CHANCE = 2e-6  # of stopping for what is chance, at most
SHOWN = 10


@dataclass
class Account:
    """The bad samples of a source."""

    samples: int | None = None
    """Of the whole source; None: not known."""
    names: set[tuple[str, str]] = field(default_factory=set)
    """Of those that are bad,"""
    num_read: int = 0
    """of which so many turned out to be bad when read."""
    reasons: Counter[str] = field(default_factory=Counter)
    first: list[Bad] = field(default_factory=list)
    """To be shown."""

    def add(self, found: Iterable[Bad], are_read: bool) -> Iterator[Bad]:
        """Count those that are new, and yield them."""
        for bad in found:
            if _name(bad) in self.names:
                continue
            self.names.add(_name(bad))
            self.num_read += are_read
            self.reasons[bad.reason] += 1
            if len(self.first) < SHOWN:
                self.first.append(bad)
            yield bad


class Quarantine:
    """The bad samples of a run, each once."""

    def __init__(self, path: Path | None, share: float, setting: str = "bad_share") -> None:
        """Go on with the JSONL file at `path` if it is there; None means only to count.

        `share` is the share of bad samples of a source, 0 to 1, above which the run stops;
        `setting` is its name in messages.
        """
        self.path, self.share, self.setting = path, share, setting
        self.accounts: dict[str, Account] = {}
        self._known: set[tuple[str, str]] = set()  # written down by this process or before it
        if path is not None and path.exists():
            there = noted.lines(path, "remove it, and what is bad is noted when it is met again")
            self._known = {_name(Bad(**line)) for line in there}
            whole = b"".join(noted.whole_lines(path))
            if len(whole) < path.stat().st_size:  # cut by a full disk or a crash: written again
                path.write_bytes(whole)  # when it is met again

    def __len__(self) -> int:
        return sum(len(account.names) for account in self.accounts.values())

    def add_measured(self, found: Iterable[Bad], samples: int, source: str = "") -> None:
        """Note the bad ones of a source's `samples`; ShardError when they are too many."""
        account = self.account(source)
        account.samples = samples
        self._write(account.add(found, are_read=False))
        self._check(source, samples)

    def add_read(self, found: Iterable[Bad], samples: int, source: str = "") -> None:
        """Note samples that turned out to be bad when read, of `samples` different ones read so
        far.

        ShardError when they are too many.
        """
        account = self.account(source)
        self._write(account.add(found, are_read=True))
        if is_too_many(account.num_read, samples, self.share):
            self._stop(source, account.num_read, samples)
        if account.samples is not None:
            self._check(source, account.samples)

    def settle(self, samples: int, source: str = "") -> None:
        """Check the share at the end, however few samples there are; ShardError for too many."""
        self._check(source, samples)

    def account(self, source: str = "") -> Account:
        """Return the account of a source."""
        return self.accounts.setdefault(source, Account())

    def _check(self, source: str, samples: int) -> None:
        count = len(self.account(source).names)
        if count > self.share * samples:
            self._stop(source, count, samples)

    def _write(self, found: Iterable[Bad]) -> None:
        for bad in found:
            if _name(bad) not in self._known and self.path is not None:
                with self.path.open("a", encoding="utf-8") as file:
                    print(json.dumps(asdict(bad)), file=file)
            self._known.add(_name(bad))

    def _stop(self, source: str, count: int, samples: int) -> None:
        account = self.account(source)
        listed = "\n".join(f"  {b.shard}, key {b.key}: {b.message}" for b in account.first)
        left = len(account.names) - len(account.first)
        more = f"\n  and {left} more" if left else ""
        where = f" (all are in {self.path})" if self.path else ""
        of = f"{source}: " if source else ""
        raise ShardError(
            f"{of}{count} of {samples} samples cannot be used, more than the share of "
            f"{self.share:.2%} that is let pass{where}; fix or remove them, or raise "
            f"{self.setting}:\n{listed}{more}"
        )


def is_too_many(bad: int, samples: int, share: float) -> bool:
    """Return whether so many bad of so many samples say that more than `share` of all are bad.

    The chance that n samples of a share p hold b or more is at most exp(-n KL(b / n, p)): Hoeffding
    1963, J. Am. Stat. Assoc. 58, 13-30, theorem 1.
    """
    if bad <= share * samples:
        return False
    if share == 0:
        return True
    q = bad / samples
    divergence = q * math.log(q / share)
    divergence += (1 - q) * math.log((1 - q) / (1 - share)) if q < 1 else 0
    return samples * divergence > -math.log(CHANCE)


def _name(bad: Bad) -> tuple[str, str]:
    """Return what tells bad samples apart; without a key, the message, which names the byte."""
    return bad.shard, bad.key or bad.message
