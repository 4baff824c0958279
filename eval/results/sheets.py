"""The images that lie beside a result: its contact sheet, and what was drawn for it.

In: a `Result`. Out: PNG files ready to stand in a page, checked and written anew.

1. The sheet of `scores.json` is `scores.png`; in a folder without another result it is also every
   PNG whose name contains `sheet`.
2. GenEval's images are those of a folder in its layout beside the result (or that the result lies
   in) whose prompts, number of samples, model, seed and sampling are the result's.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from unimodal.tokenizer.pixels import open_image
from unimodal.transcript import png_bytes

from ..geneval.command import cells_of
from ..geneval.folder import METADATA, read_folder
from ..geneval.prompts import prompts_hash
from ..geneval.scoring import DRAWING, UNKNOWN
from ..report import Cell
from .stored import Result, is_result_file

TILE_SIDE = 256  # pixels of an image that was drawn, at most
SMALL = 128  # pixels up to which it is enlarged without smoothing
FIRST = f"00000/{METADATA}"


@dataclass(frozen=True)
class Sheet:
    """A contact sheet: PNG, its size in pixels, and the name of its file."""

    png: bytes
    size: tuple[int, int]
    name: str


@dataclass(frozen=True)
class Tile:
    """One image that was drawn: PNG, what was asked for, and the verdict."""

    png: bytes
    words: str
    verdict: str
    right: bool | None
    is_small: bool


def sheets_beside(result: Result) -> list[Sheet]:
    """Return the contact sheets of a result; ImageError (a ValueError) for one that is broken."""
    folder = result.path.parent
    named = [result.path.with_suffix(".png")]
    if not any(_is_other(file, result) for file in folder.glob("*.json")):
        named += sorted(file for file in folder.glob("*.png") if "sheet" in file.name.lower())
    files = [file for file in dict.fromkeys(named) if file.is_file()]
    return [_sheet(file) for file in files]


def drawn_beside(result: Result) -> list[Path]:
    """Return the folders whose images a GenEval result may rest on, by all that is known of both;
    of several that fit nobody can tell which was scored.
    """
    if result.recipe["evaluation"] != "geneval":
        return []
    return [folder for folder in _folders(result.path.parent) if _is_of(folder, result)]


def tiles_of(result: Result, folder: Path) -> list[Tile]:
    """Return the first images of each task that a GenEval result rests on."""
    return [_tile(cell) for cell in cells_of(result.predictions, folder)]


def _is_other(file: Path, result: Result) -> bool:
    """Tell whether a file is another result; one that cannot be read, and that nobody named, is
    none.
    """
    try:
        return file != result.path and is_result_file(file)
    except ValueError:
        return False


def _sheet(file: Path) -> Sheet:
    image = open_image(file).image
    return Sheet(png_bytes(image), image.size, file.name)


def _folders(beside: Path) -> Iterator[Path]:
    for folder in (beside, *sorted(one for one in beside.iterdir() if one.is_dir())):
        if (folder / FIRST).is_file():
            yield folder


def _is_of(folder: Path, result: Result) -> bool:
    """Tell whether the images in a folder are those of a result, by all that is known of both."""
    try:
        drawn = read_folder(folder)
    except ValueError:  # half-finished, or somebody else's folder: not what was scored
        return False
    asked = {"prompts": prompts_hash(drawn.prompts), "samples_per_prompt": drawn.samples}
    known = {name: drawn.recipe.get(name, UNKNOWN) for name in DRAWING} | asked
    return known == {name: result.recipe.get(name, UNKNOWN) for name in known}


def _tile(cell: Cell) -> Tile:
    image = Image.fromarray(cell.images[-1])
    image.thumbnail((TILE_SIDE, TILE_SIDE))
    small = max(image.size) <= SMALL
    return Tile(png_bytes(image), cell.words, cell.verdict, cell.right, small)
