"""The folder of everything that can be made again: $UNIMODAL_CACHE, or ~/.cache/unimodal.

Every file in it is written under another name and renamed when whole, and can be removed while
nothing runs.
"""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from unimodal.atomic import replacing

from .tar import ShardError


def cache() -> Path:
    """Return the folder of everything that can be made again."""
    return Path(os.environ.get("UNIMODAL_CACHE") or Path.home() / ".cache" / "unimodal")


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
    """Write a file of the cache."""
    with new(path) as part:
        part.write_bytes(content)


def unwritable(error: OSError) -> ShardError:
    """Return the error for a cache that cannot be written."""
    return ShardError(
        f"the cache {cache()} cannot be written: {error.strerror or error}; free some space, or "
        "set UNIMODAL_CACHE to another folder"
    )


def save_tables(path: Path, tables: Sequence[np.ndarray], about: dict[str, Any]) -> None:
    """Write tables and a JSON object into one file of the cache."""
    with new(path) as part, part.open("wb") as stream:
        for table in (*tables, np.frombuffer(json.dumps(about).encode(), np.uint8)):
            np.save(stream, table, allow_pickle=False)


def load_tables(path: Path, count: int) -> tuple[list[np.ndarray], dict[str, Any]]:
    """Return the `count` tables and the JSON object of a file of the cache."""
    with path.open("rb") as stream:
        *tables, about = (np.load(stream, allow_pickle=False) for _ in range(count + 1))
    return tables, json.loads(about.tobytes())
