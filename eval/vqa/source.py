"""Read the official files of a benchmark: JSON, tables, and datasets of Hugging Face on disk.

In: the path that the user gave, a file or a folder. Out: values and rows. Nothing is fetched and no
code of a dataset is run. What cannot be read is a ValueError that names the file and the place: a
row that is left out without a word would change a score.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unimodal.data.convert.convert import open_table
from unimodal.data.formats import SampleError

from ..json_text import value_of

TABLES = (".parquet", ".tsv", ".csv")
SAVED = ("dataset_info.json", "dataset_dict.json")  # of `save_to_disk`


@dataclass(frozen=True)
class Row:
    """A row of a table or an object of a JSON file, and where it stands, in words."""

    fields: Mapping[str, Any]
    place: str

    def get(self, *names: str) -> Any:
        """Return the first of these fields that is there; ValueError where none is."""
        for name in names:
            if self.fields.get(name) is not None:
                return self.fields[name]
        there = ", ".join(map(str, self.fields))
        raise ValueError(f"{self.place} has no {' or '.join(names)}; it has {there:.200}")

    def text(self, *names: str) -> str:
        """Return a field as words; ValueError where it is empty, or no text and no number."""
        text = self.any_text(*names)
        if not text.strip():
            raise ValueError(f"{self.place}: {names[0]} is empty")
        return text

    def any_text(self, *names: str) -> str:
        """Return a field as words, which may be none; ValueError for no text and no number."""
        value = self.get(*names)
        if isinstance(value, bool) or not isinstance(value, str | int | float) or value != value:
            raise ValueError(f"{self.place}: {names[0]} is text, not {value!r:.80}")
        return str(value)

    def one_of(self, allowed: Collection[str], *names: str) -> str:
        """Return a field in lower case that has one of these values; ValueError for another."""
        value = self.text(*names).strip().lower()
        if value not in allowed:
            raise ValueError(f"{self.place}: {names[0]} is {value!r}, not {' or '.join(allowed)}")
        return value

    def texts(self, *names: str) -> list[str]:
        """Return a field that is a list of texts, or of objects with the text as `answer`."""
        values = self.get(*names)
        if not isinstance(values, list) or not values:
            raise ValueError(f"{self.place}: {names[0]} is a list, not {values!r:.80}")
        found = [one.get("answer") if isinstance(one, Mapping) else one for one in values]
        texts = [one for one in found if isinstance(one, str)]
        if len(texts) < len(found):
            raise ValueError(f"{self.place}: {names[0]} holds what is no text: {found!r:.80}")
        return texts


@dataclass(frozen=True)
class Source:
    """Where a task's questions and images are."""

    path: Path
    images: Path
    """The folder to which names of images are relative, and which they must not leave."""
    split: str | None = None
    """Of several splits in a folder of parquet files, the one that is meant."""

    def __post_init__(self) -> None:
        """Raise ValueError where a split is named, and the files have none."""
        if self.split is not None and not self.is_table:
            raise ValueError(f"--split {self.split}: {self.path} holds no tables; leave it out")

    @property
    def is_table(self) -> bool:
        """Return whether the questions are rows of a table or of a dataset."""
        return self.path.suffix.lower() in TABLES or any(self._tables())

    def rows(self) -> list[Row]:
        """Return the rows of the table, or of all tables of the split; ValueError for a bad one."""
        tables = self._tables() or [self.path]
        return [row for table in self._of_split(tables) for row in _rows(table, self.images)]

    def find(self, *patterns: str) -> Path:
        """Return the one file that is meant: the path itself, or in a folder the only one that
        matches; ValueError where there are none or several.
        """
        if self.path.is_file():
            return self.path
        found = sorted({file for one in patterns for file in self.path.glob(one)})
        if len(found) != 1:
            several = f"{len(found)} files: " + ", ".join(file.name for file in found[:5])
            what = several if found else "no file"
            raise ValueError(f"{self.path} holds {what} of {' or '.join(patterns)}: give the file")
        return found[0]

    def _tables(self) -> list[Path]:
        """Return the tables in a folder: parquet files, or what `save_to_disk` wrote."""
        if not self.path.is_dir():
            return []
        if any((self.path / name).is_file() for name in SAVED):
            return [self.path]
        return sorted(self.path.rglob("*.parquet"))

    def _of_split(self, tables: list[Path]) -> list[Path]:
        """Return the files of the split, whose names begin with its own ("test-00000-of-3")."""
        if tables == [self.path]:
            if self.split is not None:
                raise ValueError(f"--split {self.split}: {self.path} is one table; leave it out")
            return tables
        splits = {file: file.stem.split("-")[0] for file in tables}
        names = sorted(set(splits.values()))
        wanted = self.split or (names[0] if len(names) == 1 else None)
        if wanted not in names:
            said = "" if self.split is None else f"no {self.split}, "
            raise ValueError(f"{self.path} holds {said}the splits {', '.join(names)}: give --split")
        return [file for file in tables if splits[file] == wanted]


def read_json(path: Path) -> Any:
    """Return the value in a JSON file; ValueError where it is none, no UTF-8, or holds NaN."""
    return value_of(_read(path), str(path))


def read_lines(path: Path) -> list[Row]:
    """Return the objects of a file with one a line, or with one list of them."""
    text = _read(path)
    if text.lstrip().startswith("["):
        return objects(value_of(text, str(path)), str(path))
    lines = [(number, line) for number, line in enumerate(lines_of(text), 1) if line.strip()]
    return [
        row
        for number, line in lines
        for row in objects([value_of(line, f"{path}, line {number}")], f"{path}, line {number}")
    ]


def lines_of(text: str) -> list[str]:
    """Return the lines of a text, which end at line feeds alone: `str.splitlines` also cuts where
    U+2028 or U+0085 stand, as they may within a string of JSON (RFC 8259, sec. 7).
    """
    return [line.removesuffix("\r") for line in text.split("\n")]


def objects(value: Any, place: str) -> list[Row]:
    """Return a list of JSON objects as rows; ValueError where it is something else."""
    if not isinstance(value, list):
        raise ValueError(f"{place} holds no list of objects: {value!r:.80}")
    named = place if len(value) == 1 else place + ", number {}"
    for number, one in enumerate(value, 1):
        if not isinstance(one, dict):
            raise ValueError(f"{named.format(number)} is no object: {one!r:.80}")
    return [Row(one, named.format(number)) for number, one in enumerate(value, 1)]


def _rows(table: Path, images: Path) -> list[Row]:
    if not table.exists():
        raise ValueError(f"there is no {table}: give the official files, or a dataset on disk")
    found = []
    for number, (_, fields) in enumerate(open_table(str(table), images).rows, 1):
        if isinstance(fields, SampleError):
            raise ValueError(f"{table}, row {number}: {fields}")
        found.append(Row(fields, f"{table}, row {number}"))
    return found


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8: {error}") from error
