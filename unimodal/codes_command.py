"""`unimodal encode` and `unimodal decode` convert image files to files of image codes, and back."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image as PILImage

from unimodal.tokenizer.grid import Grid
from unimodal.tokenizer.pixels import open_image

from .codec import ImageCodec, fitted
from .codes_file import check_suffix, read_codes, write_codes
from .document import Image
from .image_tokenizers import find_tokenizer
from .transcript import names_image, save_image


def encode_files(
    images: Sequence[Path], output: Path, size: tuple[int, int] | None, model: Path | None
) -> list[str]:
    """Write the codes of image files and return notes on how the images were converted.

    The codes are those of the image tokenizer of `model`, a bundle (None: the default) or what a
    run of the image tokenizer has written. Images are resized and cropped to `size`, (width,
    height) in pixels; None: the size that the bundle draws, or each image's own. Raise ValueError,
    before anything is written, where an image, the size or the suffix of `output` cannot be used.
    """
    check_suffix(output)
    found = find_tokenizer(model)
    size = size or found.canvas
    if size is not None:
        _check_size(found.codec, size, "size ", "")
    tables: dict[str, np.ndarray] = {}
    notes: list[str] = []
    for path in images:
        wanted = size or open_image(path).image.size
        _check_size(found.codec, wanted, f"{path}: ", "; give --size WIDTH HEIGHT")
        pixels, said = fitted(path, wanted)
        notes += [f"{path}: {note}" for note in said]
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
    """Write each image of a codes file as a PNG and yield the paths: into the directory `output`,
    or, where it is named as a PNG, the only image to that file.

    Raise ValueError as `read_codes` does, where there are more images than files, and where a file
    cannot be written.
    """
    is_file = names_image(output)
    codec = find_tokenizer(model).codec
    tables = read_codes(codes, codec.image_tokenizer)
    if is_file and len(tables) != 1:
        raise ValueError(f"{output} is one file, and {codes} holds {len(tables)} images: name a"
                         " directory with --output")  # fmt: skip
    for name, table_hw in tables.items():
        grid = Grid(*table_hw.shape)
        image = Image(codes=table_hw.reshape(-1, 1), grid=grid, codec_hash=codec.hash)
        (decoded,) = codec.decode([image])
        assert decoded.pixels is not None, "it was decoded"
        path = output if is_file else output / Path(f"{name.removesuffix('.png')}.png").name
        save_image(PILImage.fromarray(decoded.pixels), path)
        yield path


def _free_name(name: str, taken: dict[str, np.ndarray]) -> str:
    """Return `name`, numbered (a-2.png) where an image of another directory has it already."""
    path, number = Path(name), 1
    while name in taken:
        number += 1
        name = f"{path.stem}-{number}{path.suffix}"
    return name
