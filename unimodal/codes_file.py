"""Read and write files of image codes.

A codes file holds the codes of any number of images, by file name, and the hash of the image
tokenizer that made them, without which they cannot be decoded.

    .safetensors   one int32 tensor for each image; the hash is in the metadata
    .json          {"tokenizer": hash, "images": {name: [[code, ...], ...]}}

Codes are (rows, columns), or (rows, columns, groups) where each place has several. Those of several
scales are a row of all, coarse to fine, and "grids" (of the metadata as JSON) has the rows and
columns of each image's last scale.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from unimodal.tokenizer.codec import Codec
from unimodal.tokenizer.grid import Grid

from .atomic import write_bytes
from .document import Image

Sizes = dict[str, list[int]]  # rows and columns of the last scale, by image name


def write_codes(path: Path, images: Mapping[str, Image]) -> None:
    """Write the codes of images that one tokenizer has encoded, by name, in the format of the
    suffix of `path`.

    Raise ValueError for an unknown suffix, and where the file cannot be written; an older file is
    then unchanged.
    """
    (made_by,) = {str(image.codec_hash) for image in images.values()}
    tables = {name: _table(image) for name, image in images.items()}
    sizes = {name: [image.grid.height, image.grid.width] for name, image in images.items()
             if image.grid is not None and image.grid.scales}  # fmt: skip
    if check_suffix(path) == ".safetensors":
        more = {"grids": json.dumps(sizes)} if sizes else {}
        content = save(tables, metadata={"tokenizer": made_by, **more})
    else:
        rows = {name: table.tolist() for name, table in tables.items()}
        found = {"tokenizer": made_by, "images": rows} | ({"grids": sizes} if sizes else {})
        content = json.dumps(found).encode()
    try:
        write_bytes(path, content)
    except OSError as error:
        raise ValueError(f"cannot write {path}: {error.strerror or error}") from error


def _table(image: Image) -> np.ndarray:
    assert image.codes is not None and image.grid is not None, "it was encoded"
    grid, num_groups = image.grid, image.codes.shape[1]
    shape = (grid.size,) if grid.scales else (grid.height, grid.width)
    return image.codes.astype(np.int32).reshape(*shape, *((num_groups,) if num_groups > 1 else ()))


def read_codes(path: Path, tokenizer: Codec) -> dict[str, Image]:
    """Return the images in a file, with codes and without pixels, by name.

    Raise ValueError where the file is damaged, was made by another image tokenizer, or holds
    numbers that are not codes.
    """
    read = _read_safetensors if check_suffix(path) == ".safetensors" else _read_json
    try:
        made_by, tables, sizes = read(path)
        sizes = {name: [int(rows), int(columns)] for name, (rows, columns) in sizes.items()}
    except (SafetensorError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a codes file, or damaged ({error})") from error
    if made_by != tokenizer.hash:
        raise ValueError(
            f"{path} was made by tokenizer {made_by[:12]}, but this model's is "
            f"{tokenizer.hash[:12]}: decode it with the --model that encoded it"
        )
    return {
        name: _image(f"{path}: {name!r}", table, sizes.get(name), tokenizer)
        for name, table in tables.items()
    }


def _image(whose: str, table: np.ndarray, size: list[int] | None, tokenizer: Codec) -> Image:
    """Return the image of a table; `size`: see Sizes. Raise ValueError for what are no codes."""
    num_groups = tokenizer.num_groups
    num_dims = (2 if size is None else 1) + (num_groups > 1)
    if table.ndim != num_dims or table.dtype.kind != "i" or not table.size:
        axes = "rows, columns" if size is None else "codes of all scales"
        groups = ", groups" if num_groups > 1 else ""
        raise ValueError(f"{whose} is not a table of whole numbers ({axes}{groups})")
    if table.min() < 0 or table.max() >= tokenizer.num_codes:
        raise ValueError(
            f"{whose} holds codes {table.min()} to {table.max()}; "
            f"they are 0 to {tokenizer.num_codes - 1}"
        )
    rows, columns = size or table.shape[:2]
    try:
        grid = tokenizer.geometry.grid_of(*tokenizer.geometry.size_of(Grid(rows, columns)))
    except ValueError as error:
        raise ValueError(f"{whose}: {error}") from error
    shape = (grid.size,) if grid.scales else (grid.height, grid.width)
    if table.shape != (*shape, *((num_groups,) if num_groups > 1 else ())):
        raise ValueError(f"{whose} of shape {table.shape} does not fill {grid}"
                         f" with {num_groups} codes at each place")  # fmt: skip
    codes_nG = table.reshape(-1, num_groups).astype(np.int64)
    return Image(codes=codes_nG, grid=grid, codec_hash=tokenizer.hash)


def _read_safetensors(path: Path) -> tuple[str, dict[str, np.ndarray], Sizes]:
    with safe_open(path, "numpy") as file:
        tables = {name: file.get_tensor(name) for name in file.keys()}
        about = file.metadata()
        return about["tokenizer"], tables, json.loads(about.get("grids", "{}"))


def _read_json(path: Path) -> tuple[str, dict[str, np.ndarray], Sizes]:
    content: dict[str, Any] = json.loads(path.read_text())
    tables = {name: np.array(table) for name, table in content["images"].items()}
    return str(content["tokenizer"]), tables, content.get("grids", {})


def check_suffix(path: Path) -> str:
    """Return the suffix of a codes file; raise ValueError where it is another."""
    if path.suffix not in (".safetensors", ".json"):
        raise ValueError(f"{path}: a codes file ends in .safetensors or .json")
    return path.suffix
