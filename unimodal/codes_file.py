"""Read and write files of image codes.

A codes file holds the codes of any number of images as int32 (rows, columns), by file name, and the
hash of the image tokenizer that made them, without which they cannot be decoded.

    .safetensors   one tensor for each image; the hash is in the metadata
    .json          {"tokenizer": hash, "images": {name: [[code, ...], ...]}}
"""

import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from unimodal.tokenizer.codec import Codec

from .atomic import write_bytes


def write_codes(path: Path, tables: dict[str, np.ndarray], tokenizer_hash: str) -> None:
    """Write codes, int32 (rows, columns) by image name, in the format of the suffix of `path`.

    Raise ValueError for an unknown suffix, and where the file cannot be written; an older file is
    then unchanged.
    """
    if check_suffix(path) == ".safetensors":
        content = save(tables, metadata={"tokenizer": tokenizer_hash})
    else:
        rows = {name: table_hw.tolist() for name, table_hw in tables.items()}
        content = json.dumps({"tokenizer": tokenizer_hash, "images": rows}).encode()
    try:
        write_bytes(path, content)
    except OSError as error:
        raise ValueError(f"cannot write {path}: {error.strerror or error}") from error


def read_codes(path: Path, tokenizer: Codec) -> dict[str, np.ndarray]:
    """Return the codes in a file, int (rows, columns), by image name.

    Raise ValueError where the file is damaged, was made by another image tokenizer, or holds
    numbers that are not codes.
    """
    read = _read_safetensors if check_suffix(path) == ".safetensors" else _read_json
    try:
        made_by, tables = read(path)
    except (SafetensorError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a codes file, or damaged ({error})") from error
    if made_by != tokenizer.hash:
        raise ValueError(
            f"{path} was made by tokenizer {made_by[:12]}, but this model's is "
            f"{tokenizer.hash[:12]}: decode it with the --model that encoded it"
        )
    for name, table in tables.items():
        if table.ndim != 2 or table.dtype.kind != "i" or not table.size:
            raise ValueError(f"{path}: {name!r} is not a table of whole numbers (rows, columns)")
        if table.min() < 0 or table.max() >= tokenizer.num_codes:
            raise ValueError(
                f"{path}: {name!r} holds codes {table.min()} to {table.max()}; "
                f"they are 0 to {tokenizer.num_codes - 1}"
            )
    return tables


def _read_safetensors(path: Path) -> tuple[str, dict[str, np.ndarray]]:
    with safe_open(path, "numpy") as file:
        tables = {name: file.get_tensor(name) for name in file.keys()}
        return file.metadata()["tokenizer"], tables


def _read_json(path: Path) -> tuple[str, dict[str, np.ndarray]]:
    content = json.loads(path.read_text())
    tables = {name: np.array(table) for name, table in content["images"].items()}
    return str(content["tokenizer"]), tables


def check_suffix(path: Path) -> str:
    """Return the suffix of a codes file; raise ValueError where it is another."""
    if path.suffix not in (".safetensors", ".json"):
        raise ValueError(f"{path}: a codes file ends in .safetensors or .json")
    return path.suffix
