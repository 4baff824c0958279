"""`unimodal encode` and `unimodal decode` convert image files to files of image codes, and back."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image as PILImage

from unimodal.tokenizer.pixels import open_image
from unimodal.tokenizer.signatures import SUFFIXES

from .codec import ImageCodec, fitted
from .codes_file import check_suffix, read_codes, write_codes
from .document import Image
from .image_tokenizers import find_tokenizer, require_codes
from .transcript import names_image, save_image


def encode_files(
    images: Sequence[Path], output: Path, size: tuple[int, int] | None, model: Path | None
) -> list[str]:
    """Write the codes of image files, or of those in folders, and return notes on how the images
    were converted, and which were left out of folders.

    The codes are those of the image tokenizer of `model`, a bundle (None: the default) or what a
    run of the image tokenizer has written. Images are resized and cropped to `size`, (width,
    height) in pixels; None: the size that the bundle draws, or each image's own. Raise ValueError,
    before anything is written, where an image, the size or the suffix of `output` cannot be used;
    a folder's images that cannot be used are left out, unless all are.
    """
    check_suffix(output)
    found = find_tokenizer(model)
    require_codes(found.tokenizer, model)
    size = size or found.canvas
    if size is not None:
        _check_size(found.codec, size, "size ", "")
    encoded: dict[str, Image] = {}
    notes: list[str] = []
    for path, is_named in _files(images, notes):
        try:
            image, said = _encoded(found.codec, path, size)
        except ValueError as error:
            if is_named:
                raise
            notes.append(f"{error}; left out")
            continue
        notes += [f"{path}: {note}" for note in said]
        encoded[_free_name(path.name, encoded)] = image
    if not encoded:
        raise ValueError("; ".join(["no image could be encoded", *notes[:3]]))
    write_codes(output, encoded)
    return notes


def _files(given: Sequence[Path], notes: list[str]) -> Iterator[tuple[Path, bool]]:
    """Yield files and the images in folders, by name, with whether each was named itself; note how
    many files of a folder are none.
    """
    for path in given:
        if path.suffix == ".tar":
            raise ValueError(f"{path}: images of shards are encoded by `unimodal data encode`")
        if not path.is_dir():
            yield path, True
            continue
        files = sorted(one for one in path.rglob("*") if one.is_file() and one.name[0] != ".")
        images = [one for one in files if one.suffix[1:].lower() in SUFFIXES]
        if len(images) < len(files):
            notes.append(f"{path}: {len(files) - len(images)} files that are no images; left out")
        yield from ((one, False) for one in images)


def _encoded(
    codec: ImageCodec, path: Path, size: tuple[int, int] | None
) -> tuple[Image, list[str]]:
    """Return the image in a file with its codes alone, and notes on how it was converted."""
    wanted = size or open_image(path).image.size
    _check_size(codec, wanted, f"{path}: ", "; give --size WIDTH HEIGHT")
    pixels, notes = fitted(path, wanted)
    (image,) = codec.encode([Image(pixels)])
    return replace(image, pixels=None), notes


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
    require_codes(codec.image_tokenizer, model)
    encoded = read_codes(codes, codec.image_tokenizer)
    if is_file and len(encoded) != 1:
        raise ValueError(f"{output} is one file, and {codes} holds {len(encoded)} images: name a"
                         " directory with --output")  # fmt: skip
    files = [Path(f"{name.removesuffix('.png')}.png").name for name in encoded]
    if twice := sorted({name for name in files if files.count(name) > 1}):
        raise ValueError(
            f"{codes} holds several images that would be called {', '.join(twice[:5])}: give them"
            " other names"
        )
    for file, image in zip(files, encoded.values(), strict=True):
        (decoded,) = codec.decode([image])
        assert decoded.pixels is not None, "it was decoded"
        path = output if is_file else output / file
        save_image(PILImage.fromarray(decoded.pixels), path)
        yield path


def _free_name(name: str, taken: Mapping[str, Image]) -> str:
    """Return `name`, numbered (a-2.png) where an image of another directory has it already."""
    path, number = Path(name), 1
    while name in taken:
        number += 1
        name = f"{path.stem}-{number}{path.suffix}"
    return name
