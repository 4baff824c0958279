"""Write files and folders so that they appear whole or not at all.

    with replacing(path) as fresh:
        fresh.write_bytes(content)

1. The block writes a file or a folder at `fresh`, which is in a hidden folder of its own beside
   `path`: on the same file system, so that a rename moves it, and apart from other processes that
   write the same path.
2. `publish` flushes it to the disk, renames it to `path`, and flushes the folder that names it.
   After a kill or a power cut `path` is what it was before, or whole and new.
3. Where the block or one of these steps fails, `path` is what it was before, and `fresh` is gone.
   Only a kill leaves something behind: a hidden folder `.new-...`.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EDQUOT, EEXIST, EFBIG, ENOSPC, ENOTEMPTY
from pathlib import Path
from tempfile import TemporaryDirectory

PREFIX = ".new-"


@contextmanager
def replacing(path: str | Path, over_folder: bool = False) -> Iterator[Path]:
    """Yield a fresh path; what the block writes there becomes the file or folder `path`.

    The folder of `path` must exist. A file takes the place of an older one. A folder takes the
    place of an empty one, and with `over_folder` of any. An OSError that the writing raises names
    `path`: its `filename` is `str(path)`.
    """
    path = Path(path)
    try:
        with TemporaryDirectory(prefix=PREFIX, dir=path.parent) as hidden:
            fresh = Path(hidden, path.name)
            yield fresh
            publish(fresh, path, over_folder)
    except OSError as error:
        if not _is_about(error, path):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file by `replacing`; an OSError names `path`, whose older file is unchanged."""
    with replacing(path) as fresh:
        fresh.write_bytes(content)


def publish(fresh: Path, path: Path, over_folder: bool = False) -> None:
    """Flush a finished file or folder, rename it to `path` and flush the folder that names it."""
    for inner in fresh.rglob("*"):
        flush(inner)
    flush(fresh)
    if over_folder and not path.is_file():
        _swap(fresh, path)
    else:
        os.replace(fresh, path)
    flush(path.parent)


def flush(path: Path) -> None:
    """Make the content of a file, or the names in a folder, outlast a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_full(error: OSError) -> bool:
    """Return whether the error says that the disk, or the user's quota, is full."""
    return error.errno in (ENOSPC, EDQUOT)


def _swap(fresh: Path, path: Path) -> None:
    """Rename `fresh` to `path`, where an older folder is; on failure the older one is put back.

    Python has no system call that exchanges two folders: a kill between the renames leaves the
    older one in the hidden folder.
    """
    old = fresh.with_name(f"{fresh.name}.old")
    with suppress(FileNotFoundError):  # another process has moved it away
        path.rename(old)
    try:
        fresh.rename(path)
    except OSError as error:
        if error.errno in (EEXIST, ENOTEMPTY):  # another process was faster: its folder is as new
            return
        if old.exists():
            old.rename(path)
        raise


def _is_about(error: OSError, path: Path) -> bool:
    """Return whether an error comes from writing `path`.

    A refused write has no file name, so a full disk is taken to be such an error.
    """
    if error.filename is None:
        return is_full(error) or error.errno == EFBIG
    hidden = os.path.join(os.path.abspath(path.parent), PREFIX)
    return os.path.abspath(str(error.filename)).startswith(hidden)
