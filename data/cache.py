"""The folder of everything that can be made again: $UNIMODAL_CACHE, or ~/.cache/unimodal.

Every file in it is written under another name and renamed when whole, and can be removed while
nothing runs.
"""

import io
import json
import os
import secrets
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from unimodal.atomic import PREFIX, replacing
from unimodal.cache_folder import cache as cache

from .tar import ShardError

CRC_BYTES = 4  # at the end of a file of tables


@contextmanager
def new(path: Path) -> Iterator[Path]:
    """Give a path to write a file or folder at, which gets its own name when it is whole.

    Processes that write the same one do not disturb each other.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(error) from error
    try:
        with replacing(path) as fresh:
            yield fresh
    except OSError as error:
        if error.filename != str(path):  # of what is read, not of the cache
            raise
        if not path.is_dir():
            raise unwritable(error) from error


def write(path: Path, content: bytes) -> None:
    """Write a small file of the cache, whole or not at all.

    It is not flushed to the disk, which takes longer than most of what is kept took to make: after
    a power cut it may hold anything, and who reads it must be able to tell.
    """
    fresh = path.with_name(f"{PREFIX}{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_bytes(content)
        os.replace(fresh, path)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise unwritable(error) from error


def unwritable(error: OSError) -> ShardError:
    """Return the error for a cache that cannot be written."""
    return ShardError(
        f"the cache {cache()} cannot be written: {error.strerror or error}; free some space, or "
        "set UNIMODAL_CACHE to another folder"
    )


def save_tables(path: Path, tables: Sequence[np.ndarray], about: dict[str, Any]) -> None:
    """Write tables and a JSON object into one file of the cache."""
    stream = io.BytesIO()
    for table in (*tables, np.frombuffer(json.dumps(about).encode(), np.uint8)):
        np.save(stream, table, allow_pickle=False)
    content = stream.getvalue()
    write(path, content + zlib.crc32(content).to_bytes(CRC_BYTES, "little"))


def load_tables(path: Path, count: int) -> tuple[list[np.ndarray], dict[str, Any]] | None:
    """Return the `count` tables and the JSON object of a file of the cache; None where it is not
    what was written.
    """
    content, crc = (whole := path.read_bytes())[:-CRC_BYTES], whole[-CRC_BYTES:]
    if not content or zlib.crc32(content).to_bytes(CRC_BYTES, "little") != crc:
        return None
    stream = io.BytesIO(content)
    *tables, about = (np.load(stream, allow_pickle=False) for _ in range(count + 1))
    return tables, json.loads(about.tobytes())
