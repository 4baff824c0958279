"""A question about an image, and the images that questions are about."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PILImage

from ..fidelity.images import ImageSet, Picture
from ..fidelity.prompted import named_images, prompted_images

SEVERAL = 5  # that an error names


@dataclass(frozen=True, eq=False)
class Question:
    """What a judge is asked about one image."""

    item: str
    """The prompt's id."""
    cell: int
    """Of the prompt's images, from 0."""
    number: int
    """Of the image's questions."""
    prompt: str
    text: str
    answers: Mapping[str, tuple[str, ...]]
    """The words that begin each answer, by its name."""
    expected: str
    """The name of the right answer."""
    kind: str
    picture: Picture
    cells: int = 1
    """4: the file is a grid of 2 x 2 images, of which `cell` is one."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """What its score depends on beside, kept in the prediction; JSON."""

    @property
    def id(self) -> str:
        """Return item, cell and number."""
        return f"{self.item}/{self.cell}/{self.number}"

    def cut(self, pixels_HW3: np.ndarray) -> PILImage.Image:
        """Return of a file's pixels the image that is asked about; ValueError where it is no
        grid.
        """
        whole = PILImage.fromarray(pixels_HW3)
        if self.cells == 1:
            return whole
        if whole.width % 2 or whole.height % 2:
            raise ValueError(
                f"{self.picture.name} has {whole.width} x {whole.height} pixels: no grid of "
                "2 x 2 images of one size; give --cells 1 for single images"
            )
        width, height = whole.width // 2, whole.height // 2
        left, top = self.cell % 2 * width, self.cell // 2 * height
        return whole.crop((left, top, left + width, top + height))


def images_by_stem(folder: Path) -> dict[str, list[Picture]]:
    """Return the images of a folder by their names without the suffix; of a JSON file by key."""
    if folder.is_file():
        return {key: [picture] for key, picture in named_images(folder).items()}
    found: dict[str, list[Picture]] = {}
    for picture in ImageSet.of(folder).pictures:
        found.setdefault(Path(picture.name).stem, []).append(picture)
    return found


def images_by_prompt(path: Path) -> dict[str, list[Picture]]:
    """Return the images of each prompt (see `prompted_images`)."""
    found: dict[str, list[Picture]] = {}
    for one in prompted_images(path):
        found.setdefault(one.prompt, []).append(one.picture)
    return found


def check_images(wanted: Sequence[str], found: Mapping[str, Sequence[Picture]], path: Path) -> None:
    """Raise ValueError unless each of the prompts (or ids) has images, as many as the others, and
    no other has any.
    """
    missing = [one for one in wanted if one not in found]
    others = sorted(set(found) - set(wanted))
    for what, names in (("lacks images of", missing), ("has images of others,", others)):
        if names:
            told = ", ".join(f"{one!r:.60}" for one in names[:SEVERAL])
            raise ValueError(
                f"{path} {what} {len(names)} of {len(wanted)} prompts, such as {told}: nothing is "
                "scored until all are there, and no others"
            )
    counts = {len(found[one]) for one in wanted}
    if len(counts) > 1:
        few = min(wanted, key=lambda one: len(found[one]))
        raise ValueError(
            f"{path} has {len(found[few])} images of {few!r:.60}, and {max(counts)} of others: it "
            "is half-finished"
        )
