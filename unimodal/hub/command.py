"""Run `unimodal grow`, `average` and `export` from their options, with a progress bar."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich import progress
from rich.console import Console

from unimodal.tokenizer.grid import Grid

from ..averaging import average
from ..bundle import Progress, check_output, directory_of
from ..families.bundled import as_bundle
from ..families.exported import export_like
from ..families.published import draws_already
from ..image_tokenizers import check_one_code, load_tokenizer
from . import grow
from .checkpoint import CONFIGS, check_grows, fetch, is_export, read_config
from .export import export, restore


def run_grow(
    checkpoint: str, tokenizer: Path | None, output: Path, like: Path | None, **options: Any
) -> Path:
    """Grow a checkpoint, or restore the bundle that it was exported from; return the bundle.

    Raise ValueError for options that cannot be used.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if "grid" in given:
        given["grid"] = _grid(given["grid"])
    growth = grow.Growth(**given)
    if problems := growth.problems():
        raise ValueError("; ".join(problems))
    check_output(output)
    configs = fetch(checkpoint, CONFIGS)  # what they reveal is reported before the download
    if like is None and draws_already(configs):
        if ignored := [*(["tokenizer"] if tokenizer else []), *given]:
            raise ValueError(
                f"{checkpoint} reads and draws already, and becomes a bundle as it is: leave out"
                f" --{', --'.join(ignored)}"
            )
        with _bar("copying") as advance:
            return as_bundle(checkpoint, output, advance)
    if like is not None or is_export(configs):
        ignored = [*(["tokenizer"] if tokenizer else []), *given]
        if ignored:
            raise ValueError(
                f"{checkpoint} was exported from a bundle, which it becomes again: it cannot grow"
                f" twice, so leave out --{', --'.join(ignored)}"
            )
        source = None if like is None else directory_of(like)
        with _bar("restoring") as advance:
            return restore(fetch(checkpoint), output, advance, like=source)
    check_grows(configs)
    if tokenizer is None:
        raise ValueError(
            "name the image tokenizer whose codes join: --tokenizer DIRECTORY, or `default`"
        )
    image = load_tokenizer(tokenizer)
    check_one_code(tokenizer, image)
    read_config(configs)
    with _bar("growing") as advance:
        return grow.grow(fetch(checkpoint), image, output, growth, advance)


def run_average(first: Path, second: Path, output: Path, share: float) -> Path:
    """Write the weighted mean of two bundles and return its directory."""
    with _bar("averaging") as advance:
        return average(directory_of(first), directory_of(second), output, share, advance)


def run_export(bundle: Path | None, output: Path, like: str | None = None) -> Path:
    """Export a bundle as a Hugging Face checkpoint and return its directory.

    like: of a bundle of a published model, that model.
    """
    with _bar("exporting") as advance:
        if like is not None:
            return export_like(bundle, like, output, advance)
        return export(bundle, output, advance)


def _grid(words: str) -> Grid:
    """Return the grid that '16x16' names; raise ValueError for other words."""
    match = re.fullmatch(r"(\d+)x(\d+)", words)
    if match is None:
        raise ValueError(f"grid {words!r}: rows and columns, as in 16x16")
    return Grid(int(match[1]), int(match[2]))


@contextmanager
def _bar(words: str) -> Iterator[Progress]:
    """Show a progress bar of bytes on standard error, where that is a terminal.

    Yield the function that advances it.
    """
    columns = (
        progress.TextColumn(words),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TimeRemainingColumn(),
    )
    console = Console(file=sys.stderr)
    with progress.Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(words, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
