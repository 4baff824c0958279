"""A table that somebody has: rows, to be walked through once, and what is known of them before.

folders.py makes one of a folder of images or texts
files.py   makes one of CSV, TSV, JSONL or a JSON list
arrow.py   makes one of parquet, a folder of `save_to_disk` or a dataset of the Hugging Face hub
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..formats import SampleError

HUB = "hf:"
KINDS = (
    "a folder of images or texts, .csv, .tsv, .jsonl, .json, .parquet, "
    f"a folder of save_to_disk, or {HUB}NAME[:SPLIT]"
)
Fields = dict[str, Any]
"""A row: its cells by the names of their columns."""
Rows = Iterator[tuple[int, Fields | SampleError]]
"""The position behind each row, of `Table.length`, and its fields or why it has none."""


@dataclass(frozen=True)
class Table:
    """Rows of a source, to be walked through once."""

    source: str
    rows: Rows
    length: int
    """What the positions run up to: rows, files or bytes."""
    names: tuple[str, ...] | None
    """The columns; None: each row has its own."""
    images: Path
    """The folder to which paths of images are relative, and which they must not leave."""
    typed: tuple[str, ...] = ()
    """The columns that are images by their type."""
    note: str = ""
    """What of the source is no row, in words."""


def numbered(rows: Iterator[Fields | SampleError]) -> Rows:
    """Yield rows whose positions are their numbers, from 1 on."""
    yield from enumerate(rows, 1)
