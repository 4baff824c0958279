"""How far a set of images is from a reference, as a vision model sees both.

In: features of two sets. Out: scores under a name that says what they depend on: model, resizing,
number of images, and the reference by its folder, content and number. None of them can be compared
with a number of another name: all depend on the model, and the Frechet distance on the numbers too.
"""

from typing import Any

from ..frechet import distance_of_sets
from ..vqa.clusters import scaled
from .embedder import Embedder, Features
from .inception import WIDTH, inception_score
from .kid import SUBSETS, default_size, kid
from .manifold import NEIGHBOURS, precision_and_recall

IN_BOTH = "images_in_both_sets"


def compare(
    embedder: Embedder, reference: Features, images: Features, kid_size: int | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return scores, and what of the recipe they depend on."""
    size = default_size(len(reference), len(images)) if kid_size is None else kid_size
    discrepancy, spread = kid(reference.x_nC, images.x_nC, size)
    precision, recall = precision_and_recall(reference.x_nC, images.x_nC)
    scores = {
        "frechet": distance_of_sets(reference.x_nC, images.x_nC),
        "kid_x1000": scaled(discrepancy, 1000),  # tables have three digits, and KIDs are small
        "kid_x1000_spread": scaled(spread, 1000),
        "precision": precision,
        "recall": recall,
    }
    settings = {
        "backbone": embedder.name, "backbone_hash": embedder.hash, "kid_subsets": SUBSETS,
        "kid_size": size, "neighbours": NEIGHBOURS, **_of_both(reference, images),
    }  # fmt: skip
    return {name_of(embedder, reference, images): scores}, settings


def compare_by_inception(
    embedder: Embedder, reference: Features, images: Features
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return FID and Inception Score, and what of the recipe they depend on."""
    inception, spread = inception_score(images.x_nC[:, WIDTH:])
    scores = {
        "fid": distance_of_sets(reference.x_nC[:, :WIDTH], images.x_nC[:, :WIDTH]),
        "inception_score": inception,
        "inception_score_spread": spread,
    }
    settings = {"inception_hash": embedder.hash}
    return {name_of(embedder, reference, images): scores}, settings | _of_both(reference, images)


def name_of(embedder: Embedder, reference: Features, images: Features) -> str:
    """Return the name of the numbers."""
    return f"{embedder.name}_n{len(images)}_reference_{reference.reference}"


def _of_both(reference: Features, images: Features) -> dict[str, Any]:
    shared = len({*reference.pixels} & {*images.pixels})
    return {"reference": reference.digest, "images": images.digest, IN_BOTH: shared}
