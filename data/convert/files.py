"""Read tables that are files: CSV, TSV, JSONL and JSON lists, row by row.

In: a path. Out: a `Table` of rows, each its fields by name, or the error that it is.

    CSV, TSV  UTF-8, the first line names the columns
    JSON      an object a line, or one list of objects

Nothing is opened here but the table itself: images are paths.
"""

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..formats import SampleError
from .table import KINDS, Fields, Rows, Table

DELIMITERS = {".csv": ",", ".tsv": "\t"}
JSONS = (".jsonl", ".ndjson", ".json")
LONGEST_CELL = 1 << 28  # characters; the csv module's own limit is 131,072
UNDECODED = re.compile("[\udc80-\udcff]")


def file_table(source: str, images: Path | None) -> Table:
    """Return the table in a file; ValueError where there is none.

    `images` is the folder of the rows' images; None: that of the file.
    """
    path = Path(source)
    if not path.is_file():
        raise ValueError(f"there is no {source}: give {KINDS}")
    folder, suffix = images or path.parent, path.suffix.lower()
    if suffix in DELIMITERS:
        return _delimited(source, folder, DELIMITERS[suffix])
    if suffix in JSONS:
        return Table(source, _objects(path), path.stat().st_size, None, folder)
    raise ValueError(f"{source} is of no known kind: give {KINDS}")


# --- CSV and TSV --------------------------------------------------------------------------------


def _delimited(source: str, folder: Path, delimiter: str) -> Table:
    """Return the table of a file of cells; ValueError where its first line names no columns."""
    csv.field_size_limit(LONGEST_CELL)
    lines = _lines(source, delimiter)
    _, names = next(lines, (0, []))
    if not names:
        raise ValueError(f"{source} is empty: its first line names the columns")
    if len(set(names)) < len(names) or not all(name.strip() for name in names):
        raise ValueError(f"{source}: its first line names the columns, each differently: {names}")
    length = Path(source).stat().st_size
    return Table(source, _cells(lines, names), length, tuple(names), folder)


def _lines(source: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the byte behind each line that is not empty, and its cells.

    Bytes that are no UTF-8 become lone surrogates, so that only their row is bad.
    """
    with open(source, "rb") as raw:
        file = io.TextIOWrapper(raw, "utf-8-sig", errors="surrogateescape", newline="")
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            for cells in reader:
                if cells:
                    yield raw.tell(), cells
        except csv.Error as error:
            where = f"{source}, line {reader.line_num}"
            raise ValueError(f"{where}: {error}; fix the quotes there and run again") from error


def _cells(lines: Iterator[tuple[int, list[str]]], names: list[str]) -> Rows:
    """Yield the fields of each line, or why it has none."""
    for position, cells in lines:
        if len(cells) != len(names):
            words = f"{len(cells)} cells under {len(names)} columns"
            yield position, SampleError("wrong cells", words)
        elif any(map(UNDECODED.search, cells)):
            yield position, SampleError("no UTF-8", f"bytes that are no UTF-8: {cells!r:.80}")
        else:
            yield position, dict(zip(names, cells, strict=True))


# --- JSON ---------------------------------------------------------------------------------------


def _objects(path: Path) -> Rows:
    """Yield the objects of a JSON list, which is read as a whole, or of lines."""
    with path.open("rb") as file:
        head = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
        file.seek(0)
        if head.startswith(b"["):
            yield from _listed(path, file.read())
            return
        position = 0
        for line in file:
            position += len(line)
            if line.strip():
                yield position, json_object(line)


def _listed(path: Path, content: bytes) -> Rows:
    """Yield the objects of a JSON list; ValueError where it is none."""
    try:
        values = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} begins as a JSON list and is none: {error}") from error
    for number, value in enumerate(values, 1):
        yield number * len(content) // len(values), _fields(value)


def json_object(line: bytes) -> Fields | SampleError:
    """Return the fields of a JSON object, or why it has none."""
    try:
        return _fields(json.loads(line.decode("utf-8-sig")))
    except UnicodeDecodeError as error:
        return SampleError("no UTF-8", f"the line is no UTF-8: {error}")
    except (ValueError, RecursionError) as error:
        return SampleError("wrong JSON", f"the line is no JSON: {error}")


def _fields(value: Any) -> Fields | SampleError:
    if isinstance(value, dict):
        return value
    return SampleError("wrong JSON", f"a row is an object, not {type(value).__name__}")
