"""What an image tokenizer keeps of a image: the ceiling of every drawing made of its codes.

In: a tokenizer and held-out scenes. Out: scores and one prediction a scene.

1. Render scenes of a seed that training never uses, encode and decode them (`reconstruct`).
2. PSNR of each reconstruction, and `read_scene` on the whole of it: right when `same_scene` says
   that it reads as the scene that was rendered.
3. The same reading of the fresh renders gives the reader's own error.
4. Code usage: how many of the codes occur, and the entropy of their frequencies.

Costs about a minute for 1,000 scenes on one core.
"""

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unimodal.data.scenes.damage import measure
from unimodal.data.scenes.reading import Unreadable, read_scene, same_scene
from unimodal.data.scenes.world import LARGE, SMALL, Scene, SceneObject, World, render, scene
from unimodal.tokenizer.autoencoder import ImageTokenizer
from unimodal.tokenizer.pixels import to_images, to_tensor

from .intervals import Estimate, mean, proportion, share
from .report import Cell, progress

FAILURES = ("unreadable", "count", "shape", "colour", "size", "centre", "background")
TOLERANCE_PX = 2.0  # of a centre, in pixels of a canvas of 64
ROUNDING_ERROR = 1 / 12  # mean squared error of rounding to whole pixel values


def tokenizer_ceiling(
    tokenizer: ImageTokenizer, samples: int, seed: int, canvas: int = 64, batch_size: int = 32
) -> dict[str, Any]:
    """Scores (nested estimates), code usage and predictions (one a scene) on `samples` scenes."""
    scenes = [scene(seed, index, world_of(canvas)) for index in range(samples)]
    originals = [render(truth, canvas) for truth in scenes]
    images, codes = reconstruct(tokenizer, originals, batch_size)
    compared = list(zip(range(samples), scenes, originals, images, strict=True))
    predictions = [judge(*one) for one in progress(compared, "reading")]
    return {
        "scores": scores(predictions),
        "usage": code_usage(codes, tokenizer.num_codes),
        "predictions": predictions,
    }


def read_card(folder: Path) -> dict[str, Any]:
    """The card beside a tokenizer's weights, empty where there is none."""
    path = folder / "card.json"
    return json.loads(path.read_text()) if path.exists() else {}


def refuse_training_seed(card: Mapping[str, Any], seed: int) -> None:
    """ValueError when a card tells that scenes of this seed were trained on."""
    if seed in card.get("data_seeds", ()):
        raise ValueError(f"the model was trained on scenes of seed {seed}: evaluate it on another")


def world_of(canvas: int) -> World:
    """The world of a canvas: up to 4 objects, from 128 pixels a side up to 6."""
    return SMALL if canvas < 128 else LARGE


@torch.inference_mode()
def reconstruct(
    tokenizer: ImageTokenizer, originals: Sequence[np.ndarray], batch_size: int = 32
) -> tuple[list[np.ndarray], np.ndarray]:
    """uint8 (H, W, 3) images -> the same, encoded and decoded, and their codes int64 (N, n)."""
    device = next(tokenizer.parameters()).device
    images: list[np.ndarray] = []
    codes = []
    for batch in progress(batches(originals, batch_size), "encoding and decoding"):
        codes_Bn1, grid = tokenizer.encode(to_tensor(batch).to(device))
        images += [np.asarray(image) for image in to_images(tokenizer.decode(codes_Bn1, grid))]
        codes.append(codes_Bn1[:, :, 0].cpu().numpy())
    return images, np.concatenate(codes)


def judge(index: int, truth: Scene, original: np.ndarray, image: np.ndarray) -> dict[str, Any]:
    """The prediction of one scene: PSNR, what was read in the reconstruction, and what failed."""
    read, read_render = read_scene(image), read_scene(original)
    return {
        "index": index,
        "expected": as_json(truth),
        "answer": as_json(read),
        "right": reads_as(read, truth),
        "reason": read.reason if isinstance(read, Unreadable) else "",
        "reader_right": reads_as(read_render, truth),
        "failures": failures(truth, read),
        "psnr_db": psnr(original, image),
    }


def reads_as(read: Scene | Unreadable, truth: Scene) -> bool:
    """True when what was read is the scene, its centres within 2 pixels of 64."""
    return isinstance(read, Scene) and same_scene(truth, read, TOLERANCE_PX, canvas=64)


def scores(predictions: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """right, mean psnr_db, the share of scenes with each kind of failure, the reader's error."""
    return {
        "right": share([p["right"] for p in predictions]),
        "psnr_db": mean([p["psnr_db"] for p in predictions]),
        "failures": {
            name: share([name in p["failures"] for p in predictions]) for name in FAILURES
        },
        "reader_error": share([not p["reader_right"] for p in predictions]),
    }


def reader_errors(samples: int, seed: int, canvas: int) -> dict[str, Estimate]:
    """How often `read_scene` itself is wrong on renders, by what was done to them."""
    return {
        row.damage: proportion(row.num_samples - row.num_right, row.num_samples)
        for row in measure(samples, seed, canvas)
    }


def psnr(original: np.ndarray, image: np.ndarray) -> float:
    """Peak signal-to-noise ratio of uint8 images in dB: 10 log10(255^2 / mse).

    The mse is at least that of rounding to 8 bits (1/12): equal images have 58.9 dB.
    """
    mse = float(np.mean((original.astype(np.float64) - image.astype(np.float64)) ** 2))
    return 10 * math.log10(255**2 / max(mse, ROUNDING_ERROR))


def cells(
    tokenizer: ImageTokenizer, predictions: Sequence[dict[str, Any]], seed: int, canvas: int
) -> list[Cell]:
    """Return a cell for each prediction: original and reconstruction, PSNR and failures."""
    scenes = [scene(seed, p["index"], world_of(canvas)) for p in predictions]
    originals = [render(truth, canvas) for truth in scenes]
    images, _ = reconstruct(tokenizer, originals)
    return [
        Cell(
            (original, image),
            f"{p['psnr_db']:.1f} dB",
            ", ".join(p["failures"]),
            p["right"],
        )
        for original, image, p in zip(originals, images, predictions, strict=True)
    ]


def code_usage(codes: np.ndarray, num_codes: int) -> dict[str, float | int]:
    """Distinct codes, their share of all codes, and the entropy of their frequencies in bits."""
    _, counts = np.unique(codes, return_counts=True)
    p = counts / counts.sum()
    return {
        "num_codes": num_codes,
        "distinct": len(counts),
        "share": len(counts) / num_codes,
        "entropy_bits": float(-(p * np.log2(p)).sum()),
        "drawn": int(counts.sum()),
    }


def failures(truth: Scene, read: Scene | Unreadable) -> list[str]:
    """Which of FAILURES tell how the scene read differs from the true one; empty when none do.

    Objects are compared with the nearest ones (least sum of distances), unless their counts differ.
    """
    if isinstance(read, Unreadable):
        return ["unreadable"]
    found = [] if read.background == truth.background else ["background"]
    if len(read.objects) != len(truth.objects):
        return ["count", *found]
    pairs = list(zip(truth.objects, _nearest(truth.objects, read.objects), strict=True))
    found += [
        name for name in ("shape", "colour", "size") if any(_differ(a, b, name) for a, b in pairs)
    ]
    if any(math.dist((a.x, a.y), (b.x, b.y)) > TOLERANCE_PX / 64 for a, b in pairs):
        found.append("centre")
    return sorted(found, key=FAILURES.index)


def as_json(image: Scene | Unreadable) -> dict[str, Any] | None:
    """A scene as JSON, coordinates to 4 digits; None when unreadable."""
    if isinstance(image, Unreadable):
        return None
    objects = [
        {
            "shape": t.shape,
            "colour": t.colour,
            "size": t.size,
            "x": round(t.x, 4),
            "y": round(t.y, 4),
        }
        for t in image.objects
    ]
    ground = image.background
    words = [word for word in (ground.kind, ground.first, ground.second, ground.direction) if word]
    return {"background": words, "objects": objects}


def batches(items: Sequence[Any], size: int) -> list[list[Any]]:
    """The items in lists of `size`, the last one shorter."""
    return [list(items[start : start + size]) for start in range(0, len(items), size)]


def _nearest(
    objects: Sequence[SceneObject], others: Sequence[SceneObject]
) -> tuple[SceneObject, ...]:
    """The order of `others` with the least sum of distances to `objects`."""
    return min(
        itertools.permutations(others),
        key=lambda order: sum(
            math.dist((a.x, a.y), (b.x, b.y)) for a, b in zip(objects, order, strict=True)
        ),
    )


def _differ(first: SceneObject, second: SceneObject, name: str) -> bool:
    return getattr(first, name) != getattr(second, name)
