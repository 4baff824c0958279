"""What a linear map can tell of an image from its codes.

In: the codes of images and what is true of each. Out: how often a linear probe is right about
images that it has not seen, and how often the best constant answer is.

1. An image becomes its latents, or the vectors of its codes, averaged to a grid of at most 8 x 8
   places, flattened.
2. A linear map to the answers (one number each; the largest wins) is fitted by least squares with a
   ridge: Alain and Bengio, "Understanding intermediate layers using linear classifier probes"
   (arXiv:1610.01644), with squared error for the cross entropy, so that the fit has a closed form.
3. Each of 5 parts of the images is predicted by the map that was fitted to the other 4. The ridge
   is chosen by the leave-one-out error within those.
"""

from collections import Counter
from collections.abc import Sequence
from zlib import crc32

import numpy as np
import torch
from torch.nn import functional as F

from unimodal.data.scenes.world import BACKGROUNDS, COLOURS, SHAPES, Scene
from unimodal.tokenizer.autoencoder import ImageTokenizer
from unimodal.tokenizer.grid import Grid
from unimodal.tokenizer.saved import SavedTokenizer

from .intervals import Estimate, mean, share, unmeasured
from .round_trip import RoundTrip

SIDE, FOLDS = 8, 5
RIDGES = tuple(10.0**power for power in range(-4, 5))  # in parts of the features' mean variance
FEWEST = 2 * FOLDS  # images of a class: others are left out


def label_probe(
    trip: RoundTrip, labels: Sequence[str | None], apart: Sequence[str]
) -> dict[str, Estimate]:
    """Return how often the label of an image is told: by the probe, and by the commonest label.

    None: an image without a label. Images with the same `apart` are in the same part. Labels of
    fewer than 10 images are left out; ValueError where fewer than two are left.
    """
    classes = classes_of(labels)
    used = [number for number, label in enumerate(labels) if label in classes]
    truth_n = np.array([classes.index(str(labels[number])) for number in used])
    folds_n = np.array([crc32(apart[number].encode()) % FOLDS for number in used])
    if len(np.unique(folds_n)) < 2:
        raise ValueError(
            "all images fall in one part of the cross-validation, so nothing is left to learn from:"
            " give a --probe-apart with more values, or more images"
        )
    told_nK = cross_validated(vectors(trip)[used], np.eye(len(classes))[truth_n], folds_n)
    commonest = np.bincount(truth_n).argmax()
    return {
        "probe": share((told_nK.argmax(1) == truth_n).tolist()),
        "constant": share((truth_n == commonest).tolist()),
    }


def classes_of(labels: Sequence[str | None]) -> list[str]:
    """Return the labels that a probe tells apart; ValueError where they are fewer than two."""
    counts = Counter(label for label in labels if label is not None)
    if not counts:
        raise ValueError(
            f"none of the {len(labels)} images has the key to be probed in the .json of its sample:"
            " give one that is there, or leave --probe out"
        )
    classes = sorted(label for label, count in counts.items() if count >= FEWEST)
    if len(classes) < 2:
        raise ValueError(
            f"{len(classes)} labels have {FEWEST} images or more: a probe needs two; there are "
            f"{len(counts)} labels of {counts.total()} images"
        )
    return classes


def scene_probe(trip: RoundTrip, scenes: Sequence[Scene]) -> dict[str, dict[str, Estimate]]:
    """Return how often questions about scenes are answered: how many objects there are, which kind
    of background; and for each shape and for each colour, whether there is an object of it (the
    mean over those, of each scene).
    """
    if len(scenes) < FEWEST:
        none = dict.fromkeys(("count", "background", "shape", "colour"), unmeasured(len(scenes)))
        return {"probe": none, "probe_constant": none}
    features_nF, folds_n = vectors(trip), np.arange(len(scenes)) % FOLDS
    counts = np.array([len(scene.objects) for scene in scenes])
    grounds = np.array([BACKGROUNDS.index(scene.background.kind) for scene in scenes])
    one_of = {"count": np.eye(counts.max() + 1)[counts], "background": np.eye(3)[grounds]}
    each_of = {
        "shape": np.array([_has(scene, "shape", SHAPES) for scene in scenes]),
        "colour": np.array([_has(scene, "colour", tuple(COLOURS)) for scene in scenes]),
    }
    told, constant = {}, {}
    for name, truth_nK in one_of.items():
        guess_nK = cross_validated(features_nF, truth_nK, folds_n)
        told[name] = share((guess_nK.argmax(1) == truth_nK.argmax(1)).tolist())
        constant[name] = share((truth_nK.argmax(1) == truth_nK.sum(0).argmax()).tolist())
    for name, truth_nK in each_of.items():
        guess_nK = cross_validated(features_nF, truth_nK, folds_n) > 0.5
        told[name] = mean((guess_nK == truth_nK).mean(1).tolist())
        constant[name] = mean(((truth_nK.mean(0) > 0.5) == truth_nK).mean(1).tolist())
    return {"probe": told, "probe_constant": constant}


def _has(scene: Scene, name: str, values: Sequence[str]) -> list[float]:
    return [float(any(getattr(one, name) == value for one in scene.objects)) for value in values]


@torch.inference_mode()
def vectors(trip: RoundTrip) -> np.ndarray:
    """Return the vectors of the codes of each image on a grid of at most 8 x 8, float64 (n, F).

    Where sizes differ, the grid is that of the smallest sides.
    """
    device = next(iter(trip.tokenizer.state_dict().values())).device
    rows, columns = (min(getattr(one, side) for one in trip.grids) for side in ("height", "width"))
    in_a_row = all(one.height == 1 for one in trip.grids)  # codes without places: not averaged
    places = (1, columns) if in_a_row else (min(SIDE, rows), min(SIDE, columns))
    found = []
    for content_nX, grid in zip(trip.codes or trip.latents, trip.grids, strict=True):
        content_1nX = torch.from_numpy(content_nX)[None].to(device)
        z_1Dhw = _latents(trip.tokenizer, content_1nX, grid).movedim(-1, 1)
        pooled = F.adaptive_avg_pool2d(z_1Dhw, places)
        found.append(pooled.flatten().double().cpu().numpy())
    return np.stack(found)


def _latents(tokenizer: SavedTokenizer, content_1nX: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Return an image's latents, or the vectors of its codes, where they stand, float32
    (1, h, w, D).
    """
    if tokenizer.latent_width:
        return content_1nX.unflatten(1, (grid.height, grid.width))
    if isinstance(tokenizer, ImageTokenizer):
        return tokenizer.quantizer.decode(content_1nX.long(), grid)
    vectors_nD = tokenizer.code_vectors(content_1nX[0].long())
    return vectors_nD.unflatten(0, (grid.height, grid.width))[None]


def cross_validated(
    features_nF: np.ndarray, targets_nK: np.ndarray, folds_n: np.ndarray
) -> np.ndarray:
    """Return what maps that were fitted to the other parts tell of each part, float64 (n, K)."""
    told_nK = np.empty(targets_nK.shape)
    for fold in np.unique(folds_n):
        rest, own = folds_n != fold, folds_n == fold
        told_nK[own] = _fitted(features_nF[rest], targets_nK[rest], features_nF[own])
    return told_nK


def _fitted(x_nF: np.ndarray, y_nK: np.ndarray, new_mF: np.ndarray) -> np.ndarray:
    """Fit a ridge regression to (x, y), and return what it tells of `new`.

    With the eigenvectors V and eigenvalues s of X^T X the fit is X V (s + r)^-1 V^T X^T y; leaving
    a row out changes its residual by 1 / (1 - h), h the diagonal of the same matrix without y:
    Hastie, Tibshirani and Friedman, "The Elements of Statistical Learning", eq. 7.64.
    """
    mean_F, mean_K = x_nF.mean(0), y_nK.mean(0)
    centred_nF, rest_nK = x_nF - mean_F, y_nK - mean_K
    s_F, v_FF = np.linalg.eigh(centred_nF.T @ centred_nF)
    turned_nF, onto_FK = centred_nF @ v_FF, v_FF.T @ (centred_nF.T @ rest_nK)
    if not s_F.max() > 0:  # all alike: they tell nothing
        return np.tile(mean_K, (len(new_mF), 1))
    best_error, best_FK = np.inf, np.zeros_like(onto_FK)
    for ridge in RIDGES:
        scale_F = 1 / (np.maximum(s_F, 0) + ridge * s_F.mean())  # rounding may leave s below zero
        leverage_n = (turned_nF**2 * scale_F).sum(1) + 1 / len(x_nF)
        weights_FK = scale_F[:, None] * onto_FK
        errors_nK = (rest_nK - turned_nF @ weights_FK) / (1 - leverage_n)[:, None]
        if (error := float((errors_nK**2).mean())) < best_error:
            best_error, best_FK = error, weights_FK
    return (new_mF - mean_F) @ v_FF @ best_FK + mean_K
