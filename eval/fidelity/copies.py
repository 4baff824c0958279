"""Which images are copies of training images: memorisation.

In: features of generated images and of the images that a model was trained on. Out: for each image
its nearest training image, and whether it is a copy of it.

1. Features are given the length 1; images are as far apart as these are.
2. An image is a copy when it is abnormally near: when the distance to its nearest training image is
   less than `alpha` times the mean distance to its `neighbours` nearest (Carlini et al. 2023,
   arXiv:2301.13188, sec. 5.1, with their 0.5 and 50 (memory)). That needs no threshold of the
   features' own. A training image that is there in many copies hides them: deduplicate first.
3. Images of the very same pixels are counted too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..intervals import mean, share
from ..report import Cell
from .embedder import Embedder, Features
from .images import ImageSet

ALPHA, NEIGHBOURS = 0.5, 50
CHUNK = 256  # images compared with all training images at a time


@dataclass(frozen=True)
class CopyRule:
    """What is called a copy."""

    alpha: float = ALPHA
    neighbours: int = NEIGHBOURS

    def problems(self) -> list[str]:
        """Return what is wrong with the values, one sentence each."""
        found = [] if 0 < self.alpha < 1 else [f"--alpha {self.alpha}: between 0 and 1"]
        return found + ([] if self.neighbours > 1 else ["--neighbours: at least 2"])


def copies(
    embedder: Embedder, images: Features, training: Features, rule: CopyRule
) -> dict[str, Any]:
    """Return scores, predictions and settings; ValueError for too few training images."""
    if problems := rule.problems():
        raise ValueError("; ".join(problems))
    if len(training) < rule.neighbours:
        raise ValueError(
            f"{training.set_name} holds {len(training)} images: give --neighbours of that many at "
            "most"
        )
    predictions = _predictions(images, training, rule)
    name = f"{embedder.name}_alpha{rule.alpha:g}_of_{rule.neighbours}_n{len(images)}"
    scores = {
        "copies": share([one["copy"] for one in predictions]),
        "identical": share([one["identical"] for one in predictions]),
        "cosine_to_nearest": mean([one["cosine"] for one in predictions]),
    }
    settings = {
        "backbone": embedder.name, "backbone_hash": embedder.hash, "images": images.digest,
        "training_images": training.digest, "num_training": len(training),
        "alpha": rule.alpha, "neighbours": rule.neighbours,
    }  # fmt: skip
    block = f"{name}_training_{training.reference}"
    return {"scores": {block: scores}, "predictions": predictions, "settings": settings}


def _predictions(images: Features, training: Features, rule: CopyRule) -> list[dict[str, Any]]:
    a_nC, b_mC = _unit(images), _unit(training)
    known, found = set(training.pixels), []
    for start in range(0, len(images), CHUNK):
        # |a - b|^2 = 2 - 2 a . b; the difference of equal features may leave -1e-16
        cosines_bm = a_nC[start : start + CHUNK] @ b_mC.T
        apart_bm = np.sqrt(np.maximum(2 - 2 * cosines_bm, 0))
        nearest_b = apart_bm.argmin(axis=1)
        near_bk = np.partition(apart_bm, rule.neighbours - 1, axis=1)[:, : rule.neighbours]
        for row, (at, around) in enumerate(zip(nearest_b, near_bk.mean(axis=1), strict=True)):
            number, distance = start + row, float(apart_bm[row, at])
            identical = images.pixels[number] in known
            found.append({
                "name": images.names[number],
                "nearest": training.names[at],
                "cosine": float(cosines_bm[row, at]),
                "distance": distance,
                "mean_distance": float(around),
                "copy": identical or distance < rule.alpha * float(around),
                "identical": identical,
            })  # fmt: skip
    return found


def cells(
    predictions: Sequence[dict[str, Any]], images: ImageSet, training: ImageSet, count: int
) -> list[Cell]:
    """Return a cell for each of the nearest pairs: an image, and its nearest training image."""
    mine, theirs = ({one.name: one for one in side.pictures} for side in (images, training))
    nearest = sorted(predictions, key=lambda one: one["distance"])[:count]
    return [
        Cell(
            (mine[one["name"]].open()[0], theirs[one["nearest"]].open()[0]),
            f"{one['name']} -> {one['nearest']}, cosine {one['cosine']:.3f}",
            "a copy" if one["copy"] else "no copy",
            False if one["copy"] else None,
        )
        for one in nearest
    ]


def _unit(features: Features) -> np.ndarray:
    """Return the features with the length 1, float64 (n, C); ValueError for one of length 0."""
    x_nC = features.x_nC.astype(np.float64)
    lengths_n1 = np.linalg.norm(x_nC, axis=1, keepdims=True)
    if not lengths_n1.all():
        dark = features.names[int(np.argmin(lengths_n1))]
        raise ValueError(f"nothing at all is seen in {dark}: its features are 0")
    return x_nC / lengths_n1
