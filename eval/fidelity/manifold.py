"""Precision and recall of a set of images: how many look real, and how much of the real they show.

Kynkaanniemi et al. 2019, "Improved Precision and Recall Metric for Assessing Generative Models"
(arXiv:1904.06991). A set's manifold is the union of balls around its features, each as large as
the distance to its k-th nearest neighbour in the set (eq. 1). Precision is the share of images in
the manifold of the reference, recall the share of the reference in that of the images (eq. 2).
"""

import numpy as np
import torch

from ..intervals import Estimate, share

NEIGHBOURS = 3  # as the paper takes them (sec. 3)
CHUNK = 256  # rows of a table of distances at a time


def precision_and_recall(
    reference_nC: np.ndarray, images_mC: np.ndarray, k: int = NEIGHBOURS
) -> tuple[Estimate, Estimate]:
    """Return both; ValueError where a set has not more than k images."""
    n, m = len(reference_nC), len(images_mC)
    if not 1 <= k < min(n, m):
        raise ValueError(
            f"precision and recall with {k} neighbours need more than {k} images in each set; "
            f"there are {n} and {m}"
        )
    precision = share(within(images_mC, reference_nC, k).tolist())
    return precision, share(within(reference_nC, images_mC, k).tolist())


def within(x_mC: np.ndarray, set_nC: np.ndarray, k: int) -> np.ndarray:
    """Return which of x lie in the manifold of a set, bool (m,)."""
    x, of = (torch.from_numpy(one).double() for one in (x_mC, set_nC))
    # The nearest of all is the point itself, at 0; or another at 0, which is as good.
    radii_n = torch.cat(
        [_apart(rows, of).kthvalue(k + 1, dim=1).values for rows in of.split(CHUNK)]
    )
    return torch.cat([(_apart(rows, of) <= radii_n).any(1) for rows in x.split(CHUNK)]).numpy()


def _apart(x_bC: torch.Tensor, of_nC: torch.Tensor) -> torch.Tensor:
    """Return distances (b, n), exactly 0 for equal features as no sum of products gives it."""
    return torch.cdist(x_bC, of_nC, compute_mode="donot_use_mm_for_euclid_dist")
