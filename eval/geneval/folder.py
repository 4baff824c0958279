"""A folder of drawn images as GenEval lays it out, so that its own script reads it too.

    00000/metadata.jsonl     the prompt, one JSON object
    00000/samples/0000.png   its images
    00000/grid.png           all of them, to look at
    drawn.jsonl              ours: how they were drawn, and the seed of each

In: a folder. Out: `Drawn`, complete or an error: a prompt without a folder, an image that is
missing, or prompts with different numbers of images would be scores of something else.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unimodal.atomic import write_bytes
from unimodal.tokenizer.pixels import open_image
from unimodal.transcript import png_bytes

from ..predictions import read_predictions
from ..score import digest
from .prompts import Prompt, prompt_of_line, prompts_hash

SAMPLE = re.compile(r"\d+\.png")
METADATA, SAMPLES, GRID, DRAWN = "metadata.jsonl", "samples", "grid.png", "drawn.jsonl"
GRID_COLUMNS = 4


@dataclass(frozen=True)
class Drawn:
    """Prompts with their images, as many for each, and how they were drawn where that is known."""

    root: Path
    prompts: tuple[Prompt, ...]
    files: tuple[tuple[Path, ...], ...]
    recipe: dict[str, Any]
    """Of `drawn.jsonl`; empty for images that somebody else drew."""

    @property
    def samples(self) -> int:
        """Return the number of images of each prompt."""
        return len(self.files[0])

    def images(self) -> Iterator[tuple[str, Prompt, Path]]:
        """Yield each image's id, prompt and file."""
        for number, (prompt, files) in enumerate(zip(self.prompts, self.files, strict=True)):
            for sample, file in enumerate(files):
                yield id_of(number, sample), prompt, file


def id_of(number: int, sample: int) -> str:
    """Return the id of an image: of the prompt's number and the sample's."""
    return f"{number:05d}/{sample:04d}"


def sample_file(root: Path, number: int, sample: int) -> Path:
    """Return where the image of a prompt is kept."""
    return root / f"{number:05d}" / SAMPLES / f"{sample:04d}.png"


def write_prompt(root: Path, number: int, prompt: Prompt) -> None:
    """Make the folder of a prompt; ValueError where it is there and of another prompt."""
    folder = root / f"{number:05d}"
    (folder / SAMPLES).mkdir(parents=True, exist_ok=True)
    if not (folder / METADATA).exists():
        write_bytes(folder / METADATA, f"{json.dumps(prompt.json())}\n".encode())
    elif _prompt(folder) != prompt:
        raise ValueError(
            f"{folder / METADATA} is not of the prompt {prompt.text!r}: name another folder"
        )


def write_grid(root: Path, number: int, samples: int) -> None:
    """Write the images of a prompt side by side, each in a place as large as the largest."""
    images = [read_image(sample_file(root, number, sample)) for sample in range(samples)]
    height, width = (max(image.shape[side] for image in images) for side in (0, 1))
    columns = min(GRID_COLUMNS, samples)
    grid_HW3 = np.full((-(-samples // columns) * height, columns * width, 3), 255, np.uint8)
    for k, image in enumerate(images):
        top, left = k // columns * height, k % columns * width
        grid_HW3[top : top + image.shape[0], left : left + image.shape[1]] = image
    write_bytes(root / f"{number:05d}" / GRID, png_bytes(Image.fromarray(grid_HW3)))


def read_image(file: Path) -> np.ndarray:
    """Return an image, uint8 (H, W, 3); ImageError (a ValueError) names one that is broken."""
    return np.asarray(open_image(file).image)


def images_hash(drawn: Drawn) -> str:
    """Return the SHA-256 of all images, in order: the identity of a model that is not there."""
    return digest([id, sha256(file.read_bytes()).hexdigest()] for id, _, file in drawn.images())


def drawn_recipe(images: Path, side: str = "") -> dict[str, Any]:
    """Return how images were drawn, where that stands beside them; {} for those of others.

    images: their folder, or a file in it. side: what the names of the settings begin with.
    ValueError where what stands there cannot be read.
    """
    file = (images if images.is_dir() else images.parent) / DRAWN
    known = read_predictions(file)[0] if file.exists() else {}
    return {f"{side}{name}": value for name, value in known.items()}


def read_folder(root: Path, prompts: Sequence[Prompt] | None = None) -> Drawn:
    """Return what was drawn in a folder; of `prompts`, where these are given, and of no others.

    ValueError for what is missing or does not match, with what to do about it.
    """
    folders = _folders(root)
    number_of = len(prompts) if prompts is not None else max(folders, default=-1) + 1
    if not number_of:
        raise ValueError(f"{root} has no folders 00000, 00001, ...: draw into it first")
    missing = number_of - sum(number < number_of for number in folders)
    if missing:  # of which a folder 99999999 makes more than a list could hold
        first = next(number for number in range(number_of) if number not in folders)
        raise ValueError(
            f"{root} lacks {missing} of {number_of} prompts, {first:05d} first: it is "
            "half-finished, draw again to go on"
        )
    if len(folders) > number_of:
        raise ValueError(f"{root} has a folder {max(folders)}, but there are {number_of} prompts")
    there = tuple(_prompt(folders[number]) for number in range(number_of))
    for number, prompt in enumerate(prompts or ()):
        if there[number] != prompt:
            raise ValueError(f"{folders[number] / METADATA} is not of the prompt {prompt.text!r}")
    files = tuple(_samples(folders[number]) for number in range(number_of))
    _check_links(root, files)
    drawn = Drawn(root, there, files, drawn_recipe(root))
    _check_counts(drawn)
    if drawn.recipe.get("prompts") not in (None, prompts_hash(there)):
        raise ValueError(
            f"{root / DRAWN} is of other prompts than {METADATA} of its folders: one was changed; "
            "draw into another folder"
        )
    return drawn


def _folders(root: Path) -> dict[int, Path]:
    """Return the folders whose names are numbers; ValueError where two have the same."""
    found: dict[int, Path] = {}
    for one in sorted(root.iterdir()):
        if one.is_dir() and one.name.isascii() and one.name.isdigit():
            if int(one.name) in found:
                raise ValueError(f"{one} and {found[int(one.name)]} are the same prompt: keep one")
            found[int(one.name)] = one
    return found


def _check_links(root: Path, files: Sequence[Sequence[Path]]) -> None:
    """Raise ValueError for a link by which an image lies outside of the folder."""
    inside = root.resolve()
    for file in (one for of_prompt in files for one in of_prompt):
        if not file.resolve().is_relative_to(inside):
            raise ValueError(
                f"{file} is a link that leads out of {root}: copy the image there, if it is meant"
            )


def _check_counts(drawn: Drawn) -> None:
    """Raise ValueError unless each prompt has as many images, and as many as were to be drawn."""
    wanted = drawn.recipe.get("samples_per_prompt") or max(1, *map(len, drawn.files))
    for number, files in enumerate(drawn.files):
        told = f"{drawn.root / f'{number:05d}'} has {len(files)} of {wanted} images"
        if len(files) < wanted:
            raise ValueError(f"{told}: it is half-finished, draw again to go on")
        if len(files) > wanted:
            raise ValueError(f"{told}: take {files[wanted].name} and what follows it away")


def _prompt(folder: Path) -> Prompt:
    file = folder / METADATA
    if not file.exists():
        raise ValueError(f"{file} is missing: it holds the prompt of the images beside it")
    try:
        return prompt_of_line(file.read_text(encoding="utf-8"), str(file))
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no UTF-8 text: {error}") from error


def _samples(folder: Path) -> tuple[Path, ...]:
    """Return the images of a prompt in the order of their numbers."""
    home = folder / SAMPLES
    found = list(home.iterdir()) if home.is_dir() else []
    return tuple(sorted((f for f in found if SAMPLE.fullmatch(f.name)), key=lambda f: int(f.stem)))
