"""Tell what a shard holds: its SHA-256, kept in the cache until the shard changes.

A hash is kept by path, size, time of change and the tar's headers, so that an unchanged shard is
not read again.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .cache import cache, write
from .headers import headers_digest
from .tar import ShardError

READ_BYTES = 1 << 22
HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class State:
    """What is seen of a shard without reading its contents."""

    size_bytes: int
    mtime_ns: int
    headers: str
    """A digest of the tar's headers."""


def state_of(path: Path) -> State:
    """Return the state of a shard; ShardError where it cannot be read."""
    try:
        status = path.stat()
        return State(status.st_size, status.st_mtime_ns, headers_digest(path, status))
    except OSError as error:
        raise ShardError(f"{path} cannot be read: {error.strerror}") from error


def file_hash(path: Path, reread: bool = False) -> str:
    """Return the SHA-256 of a shard, which is read again only when its size, its time or its
    headers changed, or when that is asked for.
    """
    state = state_of(path)
    seen = digest(str(path.absolute()), str(state.size_bytes), str(state.mtime_ns), state.headers)
    noted = cache() / "hashes" / seen
    if not reread and (known := _known(noted)):
        return known
    found = _contents_hash(path)
    write(noted, found.encode())
    return found


def shards_hash(paths: Sequence[Path], reread: bool = False) -> str:
    """Return the SHA-256 of the contents of shards, in order; `reread`: as of `file_hash`."""
    return combined(file_hash(path, reread) for path in paths)


def combined(hashes: Iterable[str]) -> str:
    """Return the SHA-256 of the contents of shards with these hashes, in order."""
    return digest(*hashes)


def digest(*words: str) -> str:
    """Return the SHA-256 (hex) of words, one to a line."""
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


def _known(noted: Path) -> str | None:
    """Return the hash that was noted; None where there is none, or another thing."""
    try:
        text = noted.read_text()
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    return text if HASH.fullmatch(text) else None


def _contents_hash(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(READ_BYTES):
            found.update(block)
    return found.hexdigest()
