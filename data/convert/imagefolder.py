"""Read folders of images whose words stand in one table: `metadata.csv` or `metadata.jsonl`.

In: a folder, as the `imagefolder` of `datasets` has it: each of its folders may hold a metadata
file whose column `file_name` names images relative to it (`file_names` several; `X_file_name` that
of the column X, such as `before_file_name`). Out: a `Table` of the rows of all these files. Files
that no row names are counted.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..data_url import URL
from ..sample_error import SampleError
from .files import file_table
from .folders import by_suffix
from .table import Fields, Rows, Table

METADATA = ("metadata.csv", "metadata.jsonl")
ENDS = {"file_name": "image", "file_names": "images"}  # of columns, and the columns they are


def is_imagefolder(path: Path) -> bool:
    """Tell whether a metadata file lies in a folder, or in one below it."""
    return path.is_dir() and bool(_metadata(path))


def imagefolder_table(source: str, images: Path | None) -> Table:
    """Return the table of a folder for which `is_imagefolder`.

    ValueError where a metadata file names no images, or where `images` is another folder.
    """
    folder = Path(source)
    files = _metadata(folder)
    if images is not None and images.resolve() != folder.resolve():
        raise ValueError(f"--images {images}: {files[0]} names images relative to itself")
    for file in files:
        names = file_table(str(folder / file), folder).names
        if names is not None and not any(map(_is_of_files, names)):
            raise ValueError(
                f"{folder / file} has no column file_name, only {', '.join(names)}: add it, or "
                "give the file itself"
            )
    named = {name for _, row in _rows(folder, files) for name in _texts(row)}
    lone = by_suffix(_files(folder) - named.union(files))
    note = f"files that no row of {files[0]} names are left out: {lone}" if lone else ""
    length = sum((folder / file).stat().st_size for file in files)
    return Table(source, _rows(folder, files), length, None, folder, note=note)


def _metadata(folder: Path) -> list[str]:
    return sorted(file for file in _files(folder) if file.rpartition("/")[2].lower() in METADATA)


def _files(folder: Path) -> set[str]:
    """Return the paths of files inside a folder that are not hidden, relative to it."""
    found = set()
    for home, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = Path(home).relative_to(folder)
        found |= {(below / name).as_posix() for name in files if not name.startswith(".")}
    return found


def _rows(folder: Path, files: list[str]) -> Rows:
    """Yield the rows of all files, their images named relative to the folder."""
    before = 0
    for file in files:
        table = file_table(str(folder / file), folder)
        for position, row in table.rows:
            yield before + position, _placed(row, Path(file).parent)
        before += table.length


def _placed(row: Fields | SampleError, home: Path) -> Fields | SampleError:
    """Return a row with its columns of file names as columns of images."""
    if isinstance(row, SampleError):
        return row
    try:
        return {
            _column(name) if _is_of_files(name) else name: (
                _relative(value, home) if _is_of_files(name) else value
            )
            for name, value in row.items()
        }
    except TypeError as error:  # a number is no path
        return SampleError("wrong fields", f"{', '.join(row)}: {error}")


def _is_of_files(name: str) -> bool:
    return name in ENDS or name.endswith(tuple(f"_{end}" for end in ENDS))


def _column(name: str) -> str:
    """Return what a column of file names is a column of."""
    return ENDS.get(name) or name.removesuffix("s").removesuffix("_file_name")


def _relative(value: Any, home: Path) -> Any:
    if isinstance(value, list):
        return [_relative(one, home) for one in value]
    if value is None or value == "" or (isinstance(value, str) and URL.match(value)):
        return value
    return (home / value).as_posix()


def _texts(row: Fields | SampleError) -> Iterator[str]:
    """Yield the texts in a row: the images that it names are among them."""
    for value in () if isinstance(row, SampleError) else row.values():
        several = value if isinstance(value, list) else [value]
        yield from (one for one in several if isinstance(one, str))
