"""The Frechet distance of images and their reconstructions, as EfficientNet-Lite0 sees them.

In: pairs of images, uint8 (H, W, 3). Out: a distance with its 95 % interval, 0 for equal sets.

1. Each image is resized to 224 x 224 pixels; its features are the means over places of the last
   feature map of EfficientNet-Lite0, 320 numbers.
2. The distance is that of the two normal distributions with the means and covariances of both sets:
   Heusel et al., "GANs Trained by a Two Time-Scale Update Rule" (FID, arXiv:1706.08500), eq. 6.
3. The interval is a jackknife over 20 groups.

It is no FID, which is of Inception's features; and like FID it falls with the number of images, so
that only distances of equally many images can be compared.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional as F

from unimodal.tokenizer.backbone import EFFICIENTNET, Backbone, load
from unimodal.tokenizer.pixels import to_tensor

from .intervals import Estimate, jackknife, unmeasured
from .report import progress

SIDE, BATCH, GROUPS = 224, 16, 20


def frechet(
    originals: Sequence[np.ndarray], images: Sequence[np.ndarray], device: str = "cpu"
) -> Estimate:
    """Return the distance of images from their originals; ValueError where the network cannot be
    had.
    """
    backbone = load(EFFICIENTNET).to(device)
    return distance_of_sets(features(backbone, originals), features(backbone, images))


@torch.inference_mode()
def features(backbone: Backbone, images: Sequence[np.ndarray]) -> np.ndarray:
    """Return what a backbone sees in images of any sizes, float64 (n, C)."""
    device = backbone.mean_C11.device
    found = []
    for start in progress(range(0, len(images), BATCH), "features for the Frechet distance"):
        batch = images[start : start + BATCH]
        x_BCHW = torch.cat([_resized(to_tensor([image]).to(device)) for image in batch])
        found.append(backbone(x_BCHW)[-1].mean((2, 3)).double().cpu().numpy())
    return np.concatenate(found)


def _resized(image_1CHW: torch.Tensor) -> torch.Tensor:
    return F.interpolate(image_1CHW, (SIDE, SIDE), mode="bilinear", antialias=True)


def distance_of_sets(first_nC: np.ndarray, second_mC: np.ndarray) -> Estimate:
    """Return the distance of features, (n, C) and (m, C), with its interval: groups of both are
    left out together, of pairs the same ones.
    """
    n, m = len(first_nC), len(second_mC)
    groups = min(GROUPS, min(n, m) // 2)
    if groups < 2:
        return unmeasured(m)
    without = [
        frechet_distance(_without(first_nC, group, groups), _without(second_mC, group, groups))
        for group in range(groups)
    ]
    found = jackknife(frechet_distance(first_nC, second_mC), without)
    return Estimate(found.value, found.low, found.high, m)


def _without(features_nC: np.ndarray, group: int, groups: int) -> np.ndarray:
    return features_nC[np.arange(len(features_nC)) % groups != group]


def frechet_distance(first_nC: np.ndarray, second_mC: np.ndarray) -> float:
    """Return |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) (FID, eq. 6), of two features or more.

    With C1 = A^T A and C2 = B^T B the eigenvalues of C1 C2 are the squares of the singular values
    of A B^T, so the trace of its root is their sum: no root of a matrix, and nothing negative.
    """
    first_nC, second_mC = first_nC.astype(np.float64), second_mC.astype(np.float64)
    apart = first_nC.mean(0) - second_mC.mean(0)
    a, b = _factor(first_nC), _factor(second_mC)
    shared = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return float((apart**2).sum() + (a**2).sum() + (b**2).sum() - 2 * shared)


def _factor(features_nC: np.ndarray) -> np.ndarray:
    """Return a small A with A^T A the covariance of the features."""
    centred = features_nC - features_nC.mean(0)
    return np.linalg.qr(centred, mode="r") / np.sqrt(len(features_nC) - 1)
