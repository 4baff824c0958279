"""LPIPS of pairs of images: originals and what a tokenizer made of them.

In: two folders of images of the same names, as `unimodal eval tokenizer --reconstructions FOLDER`
writes them, or as any other code does; weights by path. Out: a prediction for each pair.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unimodal.data.image_members import natural
from unimodal.tokenizer.pixels import open_image, to_tensor

from ..lpips import Lpips
from ..report import progress

Pair = tuple[Path, Path]


def pairs_of(originals: Path, reconstructions: Path) -> list[Pair]:
    """Return the files of both folders by their names, in natural order; ValueError where one
    folder lacks what the other has, or both are empty.
    """
    folders = (originals, reconstructions)
    sides = [{file.name: file for file in folder.iterdir()} for folder in folders]
    alone = sorted(sides[0].keys() ^ sides[1].keys())
    if alone or not sides[0]:
        named = f"; not in both: {', '.join(alone[:3])}" if alone else ""
        raise ValueError(
            f"{originals} holds {len(sides[0])} images and {reconstructions} {len(sides[1])}"
            f"{named}. Each reconstruction has the name of its original"
        )
    return [(sides[0][name], sides[1][name]) for name in sorted(sides[0], key=natural)]


@torch.inference_mode()
def lpips_of(pairs: Sequence[Pair], lpips: Lpips, device: str) -> list[dict[str, Any]]:
    """Return the name and the LPIPS of each pair."""
    predictions = []
    for pair in progress(pairs, "comparing"):
        first, second = (to_tensor([image]).to(device) for image in _opened(pair))
        predictions.append({"name": pair[0].name, "lpips": float(lpips(first, second))})
    return predictions


def _opened(pair: Pair) -> list[np.ndarray]:
    images = [np.array(open_image(path).image) for path in pair]
    if images[0].shape != images[1].shape:
        sizes = " and ".join(f"{image.shape[1]} x {image.shape[0]}" for image in images)
        raise ValueError(f"{pair[0]} and {pair[1]} have {sizes} pixels: they are no pair")
    return images
