"""Keep what changed in a run each time it went on: `history.jsonl` of its folder.

One line a change, {"step", "key", "old", "new"}: from that step on the new value holds.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unimodal import noted
from unimodal.atomic import write_bytes

HISTORY = "history.jsonl"


@dataclass(frozen=True)
class Change:
    """A setting, or what a run reads, that is not what it was; values as JSON has them."""

    key: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.key} {_shown(self.old)} -> {_shown(self.new)}"


def note(run: Path, step: int, changes: Iterable[Change]) -> None:
    """Add changes that hold from a step on to the history of a run's folder."""
    lines = [json.dumps({"step": step, **vars(change)}) for change in changes]
    if lines:
        before = [json.dumps(line) for line in read(run)]
        write_bytes(run / HISTORY, "".join(f"{line}\n" for line in before + lines).encode())


def read(run: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's history, the oldest first."""
    return noted.lines(
        run / HISTORY, "remove this line: readers need it, and batches that spikes left out"
    )


def _shown(value: Any) -> str:
    return "null" if value is None else value if isinstance(value, str) else json.dumps(value)
