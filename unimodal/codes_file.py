"""Convert image files to files of image codes, and back.

A codes file holds the codes of any number of images as int32 (rows, columns), by file name, and the
hash of the image tokenizer that made them, without which they cannot be decoded.

    .safetensors   one tensor for each image; the hash is in the metadata
    .json          {"tokenizer": hash, "images": {name: [[code, ...], ...]}}
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image as PILImage
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from unimodal.tokenizer.codec import Codec
from unimodal.tokenizer.grid import Grid
from unimodal.tokenizer.pixels import fit, open_image

from .atomic import write_bytes
from .codec import ImageCodec
from .document import Image
from .image_tokenizers import find_tokenizer
from .transcript import save_image


def encode_files(
    images: Sequence[Path], output: Path, size: tuple[int, int] | None, model: Path | None
) -> list[str]:
    """Write the codes of image files and return notes on how the images were converted.

    The codes are those of the image tokenizer of `model`, a bundle (None: the default) or what a
    run of the image tokenizer has written. Images are resized and cropped to `size`, (width,
    height) in pixels; None: the size that the bundle draws, or each image's own. Raise ValueError,
    before anything is written, where an image, the size or the suffix of `output` cannot be used.
    """
    _check_suffix(output)
    found = find_tokenizer(model)
    size = size or found.canvas
    if size is not None:
        _check_size(found.codec, size, "size ", "")
    tables: dict[str, np.ndarray] = {}
    notes: list[str] = []
    for path in images:
        opened = open_image(path)
        notes += [f"{path}: {note}" for note in opened.notes]
        old = opened.image.size
        wanted = size or old
        if old != wanted:
            sizes = f"from {old[0]} x {old[1]} to {wanted[0]} x {wanted[1]} pixels"
            notes.append(f"{path}: resized and cropped {sizes}")
        _check_size(found.codec, wanted, f"{path}: ", "; give --size WIDTH HEIGHT")
        pixels = np.asarray(fit(opened.image, wanted))
        (image,) = found.codec.encode([Image(pixels)])
        assert image.codes is not None and image.grid is not None, "it was encoded"
        table_hw = image.codes.reshape(image.grid.height, image.grid.width).astype(np.int32)
        tables[_free_name(path.name, tables)] = table_hw
    write_codes(output, tables, found.codec.hash)
    return notes


def _check_size(codec: ImageCodec, size: tuple[int, int], before: str, after: str) -> None:
    """Raise ValueError for pixels (width, height) that are no whole patches."""
    try:
        codec.geometry.grid_of(size[1], size[0])
    except ValueError as error:
        raise ValueError(f"{before}{error}{after}") from error


def decode_file(codes: Path, output: Path, model: Path | None) -> Iterator[Path]:
    """Write each image of a codes file as a PNG into the directory `output`; yield the paths.

    Raise ValueError as `read_codes` does, and where a file cannot be written.
    """
    codec = find_tokenizer(model).codec
    for name, table_hw in read_codes(codes, codec.image_tokenizer).items():
        grid = Grid(*table_hw.shape)
        image = Image(codes=table_hw.reshape(-1, 1), grid=grid, codec_hash=codec.hash)
        (decoded,) = codec.decode([image])
        assert decoded.pixels is not None, "it was decoded"
        path = output / Path(f"{name.removesuffix('.png')}.png").name
        save_image(PILImage.fromarray(decoded.pixels), path)
        yield path


def write_codes(path: Path, tables: dict[str, np.ndarray], tokenizer_hash: str) -> None:
    """Write codes, int32 (rows, columns) by image name, in the format of the suffix of `path`.

    Raise ValueError for an unknown suffix, and where the file cannot be written; an older file is
    then unchanged.
    """
    if _check_suffix(path) == ".safetensors":
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
    read = _read_safetensors if _check_suffix(path) == ".safetensors" else _read_json
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


def _check_suffix(path: Path) -> str:
    """Return the suffix of a codes file; raise ValueError where it is another."""
    if path.suffix not in (".safetensors", ".json"):
        raise ValueError(f"{path}: a codes file ends in .safetensors or .json")
    return path.suffix


def _free_name(name: str, taken: dict[str, np.ndarray]) -> str:
    """Return `name`, numbered (a-2.png) where an image of another directory has it already."""
    path, number = Path(name), 1
    while name in taken:
        number += 1
        name = f"{path.stem}-{number}{path.suffix}"
    return name
