"""Photographs with verdicts that everybody would give, for detectors of photographs.

scikit-image's wheel holds them: a cat (`chelsea.png`), a cup of coffee (`coffee.png`) and a person
(`astronaut.png`, NASA). They are read from the installed package, of which nothing is run, or from
a folder with these three files; their hashes tell that they are the ones.
"""

import hashlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from unimodal.tokenizer.pixels import open_image

from .detector import Known
from .prompts import Prompt, Wanted

PHOTOS = {  # name -> SHA-256, what it shows, and what it does not
    "chelsea.png": (
        "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb", "cat", "airplane",
    ),
    "coffee.png": (
        "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7", "cup", "zebra",
    ),
    "astronaut.png": (
        "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5", "person", "pizza",
    ),
}  # fmt: skip


def known_photos(folder: Path | None) -> list[Known]:
    """Return each photograph with a prompt that it grants and one that it does not.

    ValueError where the photographs are not at hand, or are others.
    """
    home = _home() if folder is None else folder
    found = []
    for name, (digest, shown, absent) in PHOTOS.items():
        file = home / name
        if not file.exists():
            raise ValueError(
                f"no {file}: a detector must first be right on {', '.join(PHOTOS)}; `pip install "
                "scikit-image` brings them, or give a folder of them with --photos"
            )
        content = file.read_bytes()
        if hashlib.sha256(content).hexdigest() != digest:
            raise ValueError(f"{file} is not scikit-image's {name}: give that file")
        image_HW3 = np.asarray(open_image(content).image)
        for wanted, right in ((shown, True), (absent, False)):
            prompt = Prompt("single_object", (Wanted(wanted, 1),), f"a photo of a {wanted}")
            found.append(Known(name, image_HW3, prompt, right))
    return found


def _home() -> Path:
    """Return where scikit-image keeps its images; it is found, and not imported."""
    spec = find_spec("skimage")
    if spec is None or spec.origin is None:
        return Path("skimage", "data")
    return Path(spec.origin).parent / "data"
