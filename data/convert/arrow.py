"""Read tables of Arrow: parquet, folders of `save_to_disk`, datasets of the Hugging Face hub.

In: a path, or hf:NAME[:SPLIT]. Out: a `Table` whose images are bytes, as they are stored: nothing
is decoded. No code of a dataset is ever run.

The library `datasets` is optional: the extra `hf`.
"""

import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from .table import HUB, Fields, Table, numbered

BATCH_ROWS = 64  # in memory at once
SPLIT = "train"


def is_arrow(path: Path) -> bool:
    """Tell whether a path is a parquet file, a folder of them, or one of `save_to_disk`."""
    saved = any((path / name).is_file() for name in ("dataset_info.json", "dataset_dict.json"))
    return path.suffix.lower() == ".parquet" or saved or bool(_parquets(path))


def arrow_table(source: str, images: Path | None) -> Table:
    """Return the table of a path for which `is_arrow`, or of hf:NAME[:SPLIT].

    `images` is the folder of the rows' images; None: that of the source. ValueError where the
    table cannot be had.
    """
    path = Path(source)
    if source.startswith(HUB):
        dataset, home = _from_hub(source.removeprefix(HUB))
        schema, length, rows = _of_dataset(dataset)
    elif files := [path] if path.is_file() else _parquets(path):
        schema, length, rows, home = *_of_parquet(files), files[0].parent
    else:
        schema, length, rows = _of_dataset(_from_disk(path))
        home = path
    typed = tuple(name for name in schema.names if _is_image(schema.field(name).type))
    named = _with_names(rows, _labels(schema))
    return Table(source, numbered(named), length, tuple(schema.names), images or home, typed)


def _library(name: str) -> Any:
    """Import an optional library; ValueError says how to install it."""
    try:
        return import_module(name)
    except ImportError as error:
        way_out = "pip install 'unimodal[hf]'"
        raise ValueError(f"this source needs the library {name}: {way_out} ({error})") from error


def _parquets(path: Path) -> list[Path]:
    return sorted(path.glob("*.parquet")) if path.is_dir() else []


def _from_hub(name: str) -> tuple[Any, Path]:
    """Return a split, and the folder where the library keeps the files that it fetched."""
    datasets = _library("datasets")
    name, _, split = name.partition(":")
    return datasets.load_dataset(name, split=split or SPLIT), Path(datasets.config.HF_CACHE_HOME)


def _from_disk(path: Path) -> Any:
    """Load what `save_to_disk` wrote; ValueError where it holds several splits."""
    if (path / "dataset_dict.json").is_file():
        splits = sorted(below.name for below in path.iterdir() if below.is_dir())
        raise ValueError(f"{path} holds the splits {', '.join(splits)}: give one, {path}/NAME")
    return _library("datasets").load_from_disk(str(path))


def _of_dataset(dataset: Any) -> tuple[Any, int, Iterator[Fields]]:
    """Return the Arrow schema, the number of rows and the rows of a dataset."""
    batches = dataset.with_format("arrow").iter(batch_size=BATCH_ROWS)
    rows = (row for batch in batches for row in batch.to_pylist())
    return dataset.features.arrow_schema, len(dataset), rows


def _of_parquet(files: list[Path]) -> tuple[Any, int, Iterator[Fields]]:
    """Return the Arrow schema, the number of rows and the rows of parquet files."""
    parquet = _library("pyarrow.parquet")
    try:
        opened = [parquet.ParquetFile(file) for file in files]
    except (ValueError, OSError) as error:
        names = ", ".join(str(file) for file in files)
        raise ValueError(f"{names:.200}: no parquet: {error}") from error
    rows = (
        row
        for file in opened
        for batch in file.iter_batches(batch_size=BATCH_ROWS)
        for row in batch.to_pylist()
    )
    length = sum(file.metadata.num_rows for file in opened)
    return opened[0].schema_arrow, length, rows


def _is_image(kind: Any) -> bool:
    """Tell whether a type is what `datasets` stores of an Image, or a list of them."""
    types = _library("pyarrow.types")
    if types.is_list(kind) or types.is_large_list(kind):
        return _is_image(kind.value_type)
    fields = {field.name for field in kind} if types.is_struct(kind) else set()
    return fields == {"bytes", "path"}


def _labels(schema: Any) -> dict[str, list[str]]:
    """Return the names of classes, by the columns that store a class as its number."""
    note = (schema.metadata or {}).get(b"huggingface", b"{}")
    features = json.loads(note).get("info", {}).get("features", {})
    return {
        column: feature["names"]
        for column, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
    }


def _with_names(rows: Iterator[Fields], labels: dict[str, list[str]]) -> Iterator[Fields]:
    """Yield the rows with the names of classes in place of their numbers."""
    for row in rows:
        for column, names in labels.items():
            if row[column] is not None and 0 <= row[column] < len(names):  # -1: not known
                row[column] = names[row[column]]
        yield row
