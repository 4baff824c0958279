"""LPIPS and rFID of reconstructions, from folders of images.

In: two folders of images of the same names, as `unimodal eval tokenizer --reconstructions FOLDER`
writes them, or as any other tokenizer's code does; weights by path. Out: scores with intervals, and
a prediction for each pair.

rFID is the Frechet distance on the 2,048 features of torch-fidelity's Inception, the one that
published numbers are of. It needs the extra `metrics`; LPIPS needs its weights alone.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from unimodal.data.image_members import natural
from unimodal.tokenizer.pixels import open_image, to_tensor

from .frechet import distance_of_pairs
from .intervals import mean
from .lpips import Lpips, read_weights
from .report import progress

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


def fidelity(
    pairs: Sequence[Pair], lpips: Lpips | None, inception: nn.Module | None, device: str
) -> dict[str, Any]:
    """Return scores and a prediction for each pair, of the measures that are given."""
    predictions: list[dict[str, Any]] = []
    features: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for pair in progress(pairs, "comparing"):
        images = _opened(pair)
        predictions.append({"name": pair[0].name})
        if lpips is not None:
            first, second = (to_tensor([one]).to(device) for one in images)
            with torch.inference_mode():
                predictions[-1]["lpips"] = float(lpips(first, second))
        if inception is not None:
            for side, image in zip(features, images, strict=True):
                side.append(_inception_features(inception, image, device))
    scores = {}
    if lpips is not None:
        scores["lpips_vgg16"] = mean([one["lpips"] for one in predictions])
    if inception is not None:
        scores["rfid"] = distance_of_pairs(*(np.stack(side) for side in features))
    return {"scores": scores, "predictions": predictions}


def digest_of(pairs: Sequence[Pair]) -> str:
    """Return the SHA-256 (hex) of the names and contents of all files, in order."""
    found = hashlib.sha256()
    for pair in pairs:
        for file in pair:
            found.update(file.name.encode() + file.read_bytes())
    return found.hexdigest()


def load_inception(path: Path) -> nn.Module:
    """Return torch-fidelity's Inception with the weights of a file
    (`weights-inception-2015-12-05-6726825d.pth`); ValueError where either cannot be had.
    """
    read_weights(path)  # torch-fidelity would run whatever else the file holds
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise ValueError(
            f"rFID needs the extra `metrics` ({error}): install unimodal[metrics] into an "
            "environment of its own"
        ) from error
    return FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], str(path))


@torch.inference_mode()
def _inception_features(inception: nn.Module, image: np.ndarray, device: str) -> np.ndarray:
    x_BCHW = torch.from_numpy(image).movedim(-1, 0)[None].to(device)
    return inception(x_BCHW)[0][0].double().cpu().numpy()


def _opened(pair: Pair) -> list[np.ndarray]:
    images = [np.array(open_image(path).image) for path in pair]
    if images[0].shape != images[1].shape:
        sizes = " and ".join(f"{image.shape[1]} x {image.shape[0]}" for image in images)
        raise ValueError(f"{pair[0]} and {pair[1]} have {sizes} pixels: they are no pair")
    return images
