"""Tell a shard from a changed one of equal size and time, without reading its contents.

In: a tar file. Out: one SHA-256 over its headers (names, sizes, times, and so where each file lies)
and its last block. A file whose contents alone changed is not met: that takes reading all of it.
Costs 2 us a file and core, and the reading of a block for each.
"""

import hashlib
import os
from functools import lru_cache
from pathlib import Path

from .tar import BLOCK, MAGIC, MAGIC_AT, padded

KEPT = 100_000  # digests of shards that a process remembers


def headers_digest(path: Path, status: os.stat_result) -> str:
    """Return the digest of a file with this status. A tar that cannot be followed, such as a packed
    one, counts as far as it can. Raises OSError where it cannot be read.
    """
    return _digest(path, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@lru_cache(KEPT)
def _digest(path: Path, size: int, mtime_ns: int, ctime_ns: int) -> str:
    found = hashlib.sha256()
    descriptor = os.open(path, os.O_RDONLY)
    try:
        at = 0
        while at < size:
            head = os.pread(descriptor, BLOCK, at)
            if head[MAGIC_AT : MAGIC_AT + len(MAGIC)] != MAGIC:
                break
            found.update(head)
            digits = head[124:136].strip(b" \0")
            at += BLOCK + (padded(int(digits, 8)) if digits.isdigit() else 0)
        found.update(os.pread(descriptor, BLOCK, max(0, size - BLOCK)))
    finally:
        os.close(descriptor)
    return found.hexdigest()
