"""Bundles at URLs: fetched into the cache, checked there; sent with their manifest last."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from . import manifest
from .atomic import replacing
from .cache_folder import cache
from .manifest import MANIFEST, BundleError
from .remote import Remote


def fetched(url: str) -> Path:
    """Return the directory of the bundle at a URL, in the cache: it is fetched once, and again
    where its manifest is another one.

    Raise BundleError where there is none, or what came is not what its manifest lists.
    """
    there = Remote(url)
    listed = there.read(MANIFEST)
    if listed is None:
        raise BundleError(f"{url} is no bundle: it has no {MANIFEST}, or not yet")
    key = hashlib.sha256(url.encode() + b"\n" + listed).hexdigest()[:32]
    # Named as it is there: a server tells its clients the last two names.
    directory = Path(cache(), "bundles", key, *url.rstrip("/").split("/")[-2:])
    if directory.is_dir():
        return directory
    directory.parent.mkdir(parents=True, exist_ok=True)
    with replacing(directory, over_folder=True) as fresh:
        fresh.mkdir()
        (fresh / MANIFEST).write_bytes(listed)
        files = manifest.read(fresh)  # names of a bundle's files, and no paths
        for name in files:
            there.fetch(name, fresh / name)
        manifest.check(fresh, files)
    return directory


def send(bundle: Path, url: str) -> None:
    """Copy a bundle of this machine to a URL. An older one there is no bundle any more from the
    first file on, and the new one is one from the last.
    """
    Remote(url).send_folder(bundle, list(manifest.read(bundle)), MANIFEST)


def write(url: str, save: Callable[[Path], object]) -> None:
    """Send the bundle that `save` writes to a directory to a URL."""
    with TemporaryDirectory() as folder:
        bundle = Path(folder, "bundle")
        save(bundle)
        send(bundle, url)
