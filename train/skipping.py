"""Pass over batches that are named by their digest, such as one whose loss was no finite number."""

import hashlib
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, TypeVar

from . import history
from .history import Change
from .learner import Learner
from .ranks import Ranks

T = TypeVar("T")


def passing(
    batches: Iterator[tuple[T, dict[str, Any]]],
    learner: Learner[T],
    skip: Collection[str],
    ranks: Ranks,
    output: Path,
    start: int,
    named: bool = False,
) -> Iterator[tuple[T, dict[str, Any], str]]:
    """Give the batches without those that are to be skipped, which the history names.

    Beside each is its digest, where any is to be skipped or all are to be `named`; or else nothing.
    """
    step = start
    for batch, state in batches:
        digest = batch_digest(row_digests(learner, batch, ranks)) if skip or named else ""
        if digest not in skip:
            yield batch, state, digest
            step += 1
        elif ranks.is_first:
            print(f"the batch {digest} is skipped at step {step}", file=sys.stderr)
            history.note(output, step, [Change("batch", digest, None)])


def row_digests(learner: Learner[T], batch: T, ranks: Ranks) -> list[str]:
    """Return the digests of the rows of all ranks."""
    return " ".join(ranks.all_gather(" ".join(learner.digests(batch)))).split()


def batch_digest(rows: list[str]) -> str:
    """Return what tells a batch from every other, on any number of ranks: 16 hex digits."""
    return hashlib.sha256(" ".join(sorted(rows)).encode()).hexdigest()[:16]
