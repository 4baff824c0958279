"""Make a bundle of a published model, to train it: `unimodal grow` of one that draws already."""

from pathlib import Path

from ..bundle import MAX_SHARD_BYTES, Progress, check_output, write_bundle
from ..hub.checkpoint import fetch
from .contents import contents_of
from .published import FILES, look_at, read_plan


def as_bundle(
    source: str,
    output: Path,
    on_progress: Progress = lambda done, total: None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> Path:
    """Write a published model as a bundle, with the bytes of its weights, and return its directory.

    source: a directory, or an id of the hub. Raise ValueError where it cannot be used, before its
    weights are fetched as far as its small files say it, and where `output` is there.
    """
    check_output(output)
    return write_as_bundle(source, output, on_progress, max_shard_bytes)


def write_as_bundle(
    source: str,
    output: Path,
    on_progress: Progress = lambda done, total: None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> Path:
    """Do what `as_bundle` does; an older bundle at `output` is replaced by a whole new one."""
    directory, facts = look_at(source)
    plan = read_plan(directory)
    found = contents_of(source, fetch(source, FILES), plan, facts.licence)
    write_bundle(output, found.contents, list(found.planned()), on_progress, max_shard_bytes)
    return output
