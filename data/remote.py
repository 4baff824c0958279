"""Fetch shards that lie elsewhere: a location as the user wrote it -> files on this machine.

In: a folder, one .tar or .tar.gz file, a URL that fsspec opens (s3://, gs://, https://, ...), or
`pipe:` and a shell command whose output is a shard; {000..123} stands for that many numbers. Out:
local paths.

What is not local is copied into the cache once, whole, before it is read: a shard is then indexed
and read at any offset, as a local one. A copy that breaks is tried again, then stops the run: a
network error is never a bad sample. What is not there, or not to be read, stops it at once. A
command runs only because it stands in the user's own configuration; nothing that was read from a
shard ever reaches this file.
"""

import hashlib
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

from .cache import cache, new
from .compressed import unpacked
from .shards import find_shards, is_shard
from .tar import BLOCK, ShardError, compression, is_header

PIPE = "pipe:"
RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
WAITS_S = (1.0, 5.0, 20.0)  # before each further try
PASSING = (408, 425, 429)  # of the answers 4xx, those that another try may change


def local_shards(location: str) -> list[Path]:
    """Return the shards of a location, in order; ShardError without any or when one fails."""
    return [fetched(place) for place in places(location)]


def places(location: str) -> list[str]:
    """Return where each shard of a location is, in order: a path, a URL, or a command behind
    `pipe:`. ShardError without any.
    """
    return [place for one in _expanded(location) for place in _places(one)]


def fetched(place: str) -> Path:
    """Return the plain tar on this machine of the shard at a place; ShardError when that fails."""
    if place.startswith(PIPE):
        copy = _copied(place, lambda part: _run(place.removeprefix(PIPE), part))
        return unpacked(copy)
    if "://" in place:
        return unpacked(_copied(place, lambda part: _download(place, part)))
    return unpacked(Path(place))


def _expanded(location: str) -> list[str]:
    """Return the locations that a range of numbers stands for; other braces mean nothing."""
    found = RANGE.search(location)
    if found is None:
        return [location]
    first, last = int(found[1]), int(found[2])
    step = 1 if first <= last else -1
    before, behind = location[: found.start()], location[found.end() :]
    numbers = (f"{number:0{len(found[1])}d}" for number in range(first, last + step, step))
    return [one for number in numbers for one in _expanded(f"{before}{number}{behind}")]


def _places(location: str) -> list[str]:
    if location.startswith(PIPE) or "://" in location:
        return [location]
    path = Path(location)
    if is_shard(path.name) and not path.exists():
        raise ShardError(f"there is no shard {path}: check the path")
    return [str(one) for one in ([path] if path.is_file() else find_shards(path))]


def _copied(location: str, copy: Callable[[Path], None]) -> Path:
    """Return the file in the cache that holds what is at `location`, copied if need be."""
    path = cache() / "shards" / f"{hashlib.sha256(location.encode()).hexdigest()[:32]}.tar"
    for wait_s in (*WAITS_S, None):
        if path.exists():
            break
        try:
            with new(path) as part:
                copy(part)
                _check(part)
        except OSError as error:
            if wait_s is None:
                raise ShardError(f"{location} cannot be copied: {error}") from error
            time.sleep(wait_s)
    return path


def _check(part: Path) -> None:
    """Check that a file is a tar, else OSError: a command may end well and give nothing."""
    with part.open("rb") as stream:
        head = stream.read(BLOCK)
    if not is_header(head) and compression(head) is None:
        raise OSError(f"{part.stat().st_size} bytes came, which are no tar")


def _download(url: str, part: Path) -> None:
    import fsspec

    try:
        with fsspec.open(url, "rb") as source, part.open("wb") as target:
            shutil.copyfileobj(source, target)
    except (ImportError, ValueError) as error:  # a protocol that fsspec or its extras do not know
        known = "https:// needs pip install 'unimodal[remote]', s3:// s3fs, gs:// gcsfs"
        raise ShardError(f"{url}: {error}; {known}") from error
    except Exception as error:  # what HTTP and cloud libraries raise has no common class
        raise _failure(url, error) from error


def _failure(url: str, error: Exception) -> Exception:
    """Return an OSError, for another try, or a ShardError where no other try can help."""
    root = _root(error)
    status = getattr(root, "status", None)
    if isinstance(root, FileNotFoundError) and url.startswith(("http://", "https://")):
        status = HTTPStatus.NOT_FOUND  # as fsspec says it
    if not isinstance(status, int):
        if isinstance(root, FileNotFoundError | PermissionError):
            return ShardError(f"{url} cannot be copied: {root}; check the path")
        return error if root is error and isinstance(error, OSError) else OSError(_named(root))
    phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else ""
    answer = f"HTTP {int(status)} {phrase}".strip()
    if 400 <= status < 500 and status not in PASSING:
        way_out = "get the right to read it" if status in (401, 403) else "check the URL"
        return ShardError(f"{url} cannot be copied: {answer}; {way_out}")
    return OSError(answer)


def _root(error: BaseException) -> BaseException:
    """Return what an error was raised from first: fsspec calls any failure a file not found."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _run(command: str, part: Path) -> None:
    with part.open("wb") as target:
        shell = shutil.which("bash")  # where any command of a pipeline may fail it
        words = [shell, "-o", "pipefail", "-c", command] if shell else ["sh", "-c", command]
        done = subprocess.run(words, stdout=target, stderr=subprocess.PIPE)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()[-500:]
        raise OSError(f"the command ended with {done.returncode}: {said}")
