"""Unpack compressed shards, once: a sample is read at any offset, which compression does not allow.

In: a shard on this machine, perhaps .tar.gz, .tgz, .tar.bz2 or .tar.xz; its first bytes tell. Out:
a plain tar: itself, or its copy in the cache, found again by the shard's contents.
"""

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .cache import cache, new
from .identity import file_hash
from .shards import shard_stem
from .tar import ShardError, compression

OPENERS: dict[str, Callable[[Path], Any]] = {
    "gzip": gzip.GzipFile, "bzip2": bz2.BZ2File, "xz": lzma.LZMAFile,
}  # fmt: skip
BROKEN = (EOFError, OSError, zlib.error, lzma.LZMAError)
COPIED_BYTES = 1 << 22  # at once


def unpacked(path: Path) -> Path:
    """Return a plain tar of a shard's contents; ShardError where it cannot be unpacked."""
    with path.open("rb") as file:
        how = compression(file.read(16))
    if how is None:
        return path
    if how not in OPENERS:
        raise ShardError(f"{path} is compressed by {how}, which is not read: {how} -d it first")
    plain = cache() / "unpacked" / file_hash(path)[:32] / f"{shard_stem(path.name)}.tar"
    if not plain.exists():
        with new(plain) as part:
            _unpack(path, OPENERS[how], part)
    return plain


def _unpack(path: Path, opened: Callable[[Path], Any], part: Path) -> None:
    with part.open("wb") as target, opened(path) as source:
        while True:
            try:
                block = source.read(COPIED_BYTES)
            except BROKEN as error:
                message = f"{path} cannot be unpacked ({error}): copy or write it again"
                raise ShardError(message) from error
            if not block:
                return
            target.write(block)
