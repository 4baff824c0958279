"""Keep folders elsewhere, at URLs that fsspec opens: s3://, gs://, sftp://, memory://, ...

A folder is sent file by file, and last its list of the others with size and sha256: without the
list there is no folder, and what is fetched is compared with it. So a reader meets the whole or
nothing, on stores that can rename nothing too. A failure of the network is tried again.

Credentials are fsspec's business (environment, configuration files): a URL that holds some is
refused, for URLs are noted and shown.
"""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
URL = re.compile(r"([a-z][a-z0-9+]+):/+([^/].*)")
SECRET = re.compile(r"://[^/@]*:[^@]*@|\?")  # a secret key of S3 may have slashes
# Of a message: who asks, and with what.
NAMED = re.compile(r"(?<=://)[^/@\s:]*(?::[^@\s]*)?@|(?<=\?)\S+")
WAITS_S = (1.0, 5.0, 20.0)  # before each further try
NEEDS = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs",
         "sftp": "paramiko", "ssh": "paramiko"}  # fmt: skip


def url_of(name: str | Path | None) -> str | None:
    """Return the URL that is meant by a name; None where it is a path. A Path has lost a slash of
    its URL, which is put back.
    """
    found = URL.fullmatch(str(name or ""))
    if found is None or found[1] in ("file", "local") or Path(str(name)).exists():
        return None
    import fsspec

    return f"{found[1]}://{found[2]}" if found[1] in fsspec.available_protocols() else None


def problem(url: str) -> str | None:
    """Return what is wrong with a URL that is to be written to, without its secrets."""
    if "://" not in url:
        return f"{url!r}: a URL, such as s3://bucket/folder"
    if SECRET.search(url):
        return (
            "its URL holds a password or a query, which would be noted in files and logs: leave "
            "credentials to the environment or to fsspec's configuration"
        )
    return None


def obstacle(url: str) -> str | None:
    """Return what this machine lacks to open a URL; None where it lacks nothing."""
    try:
        Remote(url)
    except ValueError as error:
        return str(error)
    return None


class Remote:
    """A folder elsewhere."""

    def __init__(self, url: str) -> None:
        """Raise ValueError for a URL with secrets in it, and where nothing here opens it."""
        import fsspec

        if said := problem(url):
            raise ValueError(said)
        self.url = url.rstrip("/")
        try:
            self._files, root = fsspec.core.url_to_fs(self.url, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            package = NEEDS.get(url.partition(":")[0])
            way_out = f"pip install {package}" if package else "no program here opens it"
            raise ValueError(f"{self.url} cannot be opened ({error}): {way_out}") from error
        self._root = root.rstrip("/")

    def folders(self) -> list[str]:
        """Return the names of the folders in it, in order; of one that is not there none."""

        def names() -> list[str]:
            try:
                there = self._files.ls(self._root, detail=True)
            except FileNotFoundError:
                return []
            paths = (one["name"] for one in there if one["type"] == "directory")
            return sorted(path.rstrip("/").rpartition("/")[2] for path in paths)

        return self._tried("be listed", "", names)

    def read(self, name: str) -> bytes | None:
        """Return what a file holds; None where there is none."""

        def content() -> bytes | None:
            try:
                return self._files.cat_file(f"{self._root}/{name}")
            except FileNotFoundError:
                return None

        return self._tried("be read", name, content)

    def write(self, name: str, content: bytes) -> None:
        """Write a small file."""
        path = f"{self._root}/{name}"

        def send() -> None:
            self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._files.pipe_file(path, content)

        self._tried("be written", name, send)

    def send(self, path: Path, name: str) -> None:
        """Write a file of this machine."""
        place = f"{self._root}/{name}"

        def send() -> None:
            self._files.makedirs(place.rpartition("/")[0], exist_ok=True)
            self._files.put_file(str(path), place)

        self._tried("be written", name, send)

    def fetch(self, name: str, path: Path) -> None:
        """Write a file of it to this machine."""
        self._tried(
            "be read", name, lambda: self._files.get_file(f"{self._root}/{name}", str(path))
        )

    def remove(self, name: str) -> None:
        """Remove a file, or a folder with all that is in it, if it is there."""
        path = f"{self._root}/{name}"

        def remove() -> None:
            if self._files.exists(path):
                self._files.rm(path, recursive=True)

        self._tried("be removed", name, remove)

    def send_folder(self, folder: Path, files: list[str], last: str, into: str = "") -> None:
        """Write files of a folder, and `last` its list, without which there is no folder."""
        where = f"{into}/" if into else ""
        self.remove(f"{where}{last}")
        for name in (*files, last):
            self.send(folder / name, f"{where}{name}")

    def _tried(self, what: str, name: str, work: Callable[[], T]) -> T:
        """Return what some work gives; an OSError that names the URL where it fails for good."""
        for wait_s in (*WAITS_S, None):
            try:
                return work()
            except Exception as error:  # what cloud libraries raise has no common class
                is_final = isinstance(error, FileNotFoundError | PermissionError)
                if wait_s is None or is_final:
                    said = NAMED.sub("...", f"{type(error).__name__}: {error}")
                    where = f"{self.url}/{name}" if name else self.url
                    raise OSError(f"{where} cannot {what}: {said}") from error
            time.sleep(wait_s)
        raise AssertionError("the last try returns or raises")
