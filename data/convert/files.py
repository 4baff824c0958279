"""Read tables that lie in files: folders, CSV, TSV, JSONL and JSON lists, row by row.

In: a path. Out: a `Table` of rows, each its fields by name, or the error that it is.

    folder    files of one stem are a row: an image and its words, caption.txt or fields.json.
              `a.before.png`, `a.after.png` and `a.txt` are an edit; `a.0.png`, `a.1.png` and
              `a.json` several images. A folder without images: each .txt and .md is a text
    CSV, TSV  UTF-8, the first line names the columns
    JSON      an object a line, or one list of objects

Nothing is opened here but the table itself: images are paths, and texts beside images are read
through a `Sandbox`.
"""

import csv
import io
import json
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from ..formats import IMAGES, SampleError
from .sandbox import Sandbox
from .table import KINDS, Fields, Rows, Table, numbered

DELIMITERS = {".csv": ",", ".tsv": "\t"}
JSONS = (".jsonl", ".ndjson", ".json")
TEXTS = (".txt", ".md")
LONGEST_CELL = 1 << 28  # characters; the csv module's own limit is 131,072
UNDECODED = re.compile("[\udc80-\udcff]")
ROLE = re.compile(r"\.(before|after|\d+)$")  # behind the stem of one of several images


def file_table(source: str, images: Path | None) -> Table:
    """Return the table in a file or folder; ValueError where there is none.

    `images` is the folder of the rows' images; None: that of the file.
    """
    path = Path(source)
    if path.is_dir():
        return _folder(source, images or path)
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
    if not names or len(set(names)) < len(names) or not all(name.strip() for name in names):
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
                yield position, _object(line)


def _listed(path: Path, content: bytes) -> Rows:
    """Yield the objects of a JSON list; ValueError where it is none."""
    try:
        values = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} begins as a JSON list and is none: {error}") from error
    for number, value in enumerate(values, 1):
        yield number * len(content) // len(values), _fields(value)


def _object(line: bytes) -> Fields | SampleError:
    """Return the fields of a line of JSON, or why it has none."""
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


# --- folders ------------------------------------------------------------------------------------


def _folder(source: str, folder: Path) -> Table:
    """Return a table of the images of a folder with their words, or else of its texts."""
    sandbox = Sandbox(Path(source))
    files = _files(Path(source))
    words = {file for file in files if Path(file).suffix.lower() in (".json", *TEXTS)}
    groups: dict[str, list[str]] = {}
    for file in files:
        if Path(file).suffix.lower().removeprefix(".") in IMAGES[:-1]:  # the last: codes
            groups.setdefault(_stem(file, words), []).append(file)
    if groups:
        rows = (_pair(stem, group, words, sandbox) for stem, group in groups.items())
        used = {f"{stem}{suffix}" for stem in groups for suffix in (".txt", ".json")}
        lone = len(words - used)
        note = f"{lone} files of text without an image are left out" if lone else ""
        return Table(source, numbered(rows), len(groups), None, folder, note=note)
    texts = [file for file in files if Path(file).suffix.lower() in TEXTS]
    if not texts:
        raise ValueError(f"{source} holds no images and no texts ({', '.join(TEXTS)}): {KINDS}")
    rows = (_text(file, sandbox) for file in texts)
    return Table(source, numbered(rows), len(texts), None, folder)


def _files(folder: Path) -> list[str]:
    """Return the paths of files inside a folder that are not hidden, sorted.

    Links to folders are not followed.
    """
    found = []
    for home, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = Path(home).relative_to(folder)
        found += [(below / name).as_posix() for name in files if not name.startswith(".")]
    return sorted(found)


def _stem(image: str, words: Collection[str]) -> str:
    """Return how an image's words are named: as itself, or without .before, .after or .0."""
    own = image.rpartition(".")[0]
    if f"{own}.txt" in words or f"{own}.json" in words:
        return own
    return ROLE.sub("", own)


def _pair(
    stem: str, images: list[str], words: Collection[str], sandbox: Sandbox
) -> Fields | SampleError:
    """Return the row of images with their words: the fields of .json, and .txt as the caption."""
    try:
        fields: Fields = {}
        if f"{stem}.json" in words:
            read = _object(sandbox.read(f"{stem}.json"))
            if isinstance(read, SampleError):
                return read
            fields = read
        parts = {image.rpartition(".")[0].removeprefix(f"{stem}."): image for image in images}
        is_edit = {"before", "after"} <= set(parts)
        if f"{stem}.txt" in words:
            fields["instruction" if is_edit else "caption"] = sandbox.text(f"{stem}.txt").strip()
        if not fields:
            return SampleError("no words", f"{images[0]}: no {stem}.txt or .json lies beside it")
        shown = {"before": parts["before"], "after": parts["after"]} if is_edit else {}
        return {**fields, **(shown or {"image": sorted(images, key=_order)})}
    except SampleError as error:
        return error


def _order(image: str) -> tuple[int, str]:
    """Return what sorts `a.2.png` before `a.10.png`."""
    number = re.search(r"\.(\d+)\.\w+$", image)
    return int(number.group(1)) if number else -1, image


def _text(file: str, sandbox: Sandbox) -> Fields | SampleError:
    try:
        return {"text": sandbox.text(file)}
    except SampleError as error:
        return error
