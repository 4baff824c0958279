"""Read the icon packages that npm distributes, from a folder or from npm's registry.

In: a folder with the .tgz files of `npm pack`, or None. Out: the JSON files of each `Package`.

A package is known by the SHA-256 of its tarball, so that the same names and drawings come out
whoever made the table. Nothing of a tarball is unpacked to disk.
"""

import hashlib
import io
import json
import tarfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REGISTRY = "https://registry.npmjs.org"
TIMEOUT_S = 60


@dataclass(frozen=True)
class Package:
    """A package of npm in one version, and the SHA-256 of its tarball."""

    name: str
    version: str
    sha256: str
    licence: str

    @property
    def url(self) -> str:
        """Return where the registry keeps the tarball."""
        return f"{REGISTRY}/{self.name}/-/{self.name.rpartition('/')[2]}-{self.version}.tgz"

    @property
    def file_name(self) -> str:
        """Return how `npm pack` calls the tarball."""
        return f"{self.name.lstrip('@').replace('/', '-')}-{self.version}.tgz"


FLAT = Package(
    "@iconify-json/fluent-emoji-flat",
    "1.2.6",
    "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
    "MIT",
)
CARTOON = Package(
    "@iconify-json/noto",
    "1.2.9",
    "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
    "Apache-2.0",
)
KEYWORDS = Package(
    "emojilib",
    "4.0.3",
    "7f9a6b43cff31d18985b7d65d11faba5bd971cbcc60020cf6d09322fbaaaf303",
    "MIT",
)
PACKAGES = (FLAT, CARTOON, KEYWORDS)


def read_json(package: Package, folder: Path | None, names: Sequence[str]) -> dict[str, Any]:
    """Return these JSON files of a package by name, from a folder or, where None, the registry.

    ValueError where the tarball is missing, another one, or cannot be fetched.
    """
    content = _fetched(package) if folder is None else _stored(package, folder)
    found = hashlib.sha256(content).hexdigest()
    if found != package.sha256:
        raise ValueError(
            f"{package.file_name} has the SHA-256 {found}, not {package.sha256}: "
            f"get it anew by `npm pack {package.name}@{package.version}`"
        )
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as tar:
        return {name: _member(tar, f"package/{name}") for name in names}


def _member(tar: tarfile.TarFile, name: str) -> Any:
    stream = tar.extractfile(name)
    assert stream is not None, f"{name} is a file of the tarball, whose hash was checked"
    return json.load(stream)


def _stored(package: Package, folder: Path) -> bytes:
    path = folder / package.file_name
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(
            f"{path} cannot be read ({error.strerror}): run "
            f"`npm pack {package.name}@{package.version}` in {folder}, or leave out --packages "
            "to fetch it"
        ) from error


def _fetched(package: Package) -> bytes:
    try:
        with urllib.request.urlopen(package.url, timeout=TIMEOUT_S) as reply:
            return reply.read()
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise ValueError(
            f"{package.url} cannot be fetched ({error}): give --packages FOLDER with "
            f"{package.file_name} of `npm pack {package.name}@{package.version}`"
        ) from error
