"""What an image tokenizer keeps of an image: the ceiling of every drawing made of its codes.

In: a tokenizer and held-out scenes. Out: scores and one prediction a scene.

1. Render scenes of a seed that training never uses, encode and decode them (`round_trip`).
2. PSNR and SSIM of each reconstruction, and `read_scene` on the whole of it: right when
   `same_scene` says that it reads as the scene that was rendered.
3. The same reading of the fresh renders gives the reader's own error.
4. How codes are used (usage.py).

own_images.py measures images of one's own; tokenizer_command.py adds what it is asked for.

Costs about a minute for 1,000 scenes on one core.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unimodal.data.scenes.damage import measure
from unimodal.data.scenes.reading import Unreadable, read_scene, same_scene
from unimodal.data.scenes.world import Scene, SceneObject, World, render, scene, world_of
from unimodal.tokenizer.saved import SavedTokenizer

from .intervals import Estimate, mean, proportion, share
from .pixel_file import PixelFile
from .reconstruction import psnr, ssim
from .report import Cell, progress
from .round_trip import RoundTrip, round_trip

FAILURES = ("unreadable", "count", "shape", "colour", "size", "centre", "background")
TOLERANCE_PX = 2.0  # of a centre, in pixels of a canvas of 64


def tokenizer_ceiling(
    tokenizer: SavedTokenizer,
    samples: int,
    seed: int,
    canvas: int = 64,
    batch_size: int = 32,
    world: World | None = None,
) -> dict[str, Any]:
    """Return scores (nested estimates), code usage and predictions on `samples` held-out scenes
    of `world` (None: that of the canvas).
    """
    scenes, originals = held_out(samples, seed, canvas, world)
    return scene_report(scenes, round_trip(tokenizer, originals, batch_size))


def held_out(
    samples: int, seed: int, canvas: int, world: World | None = None
) -> tuple[list[Scene], PixelFile]:
    """Return so many scenes of a seed, and their renders, uint8 (canvas, canvas, 3)."""
    scenes = [scene(seed, index, world or world_of(canvas)) for index in range(samples)]
    originals = PixelFile()
    originals.extend(render(truth, canvas) for truth in scenes)
    return scenes, originals


def scene_report(scenes: Sequence[Scene], trip: RoundTrip) -> dict[str, Any]:
    """Return scores, code usage and predictions of scenes that went through a tokenizer: those of
    codes alone where nothing came back, and no usage where there are no codes.
    """
    if not trip.images:
        return {"scores": trip.code_scores(), "usage": trip.usage(), "predictions": []}
    predictions = [
        judge(number, truth, trip.originals[number], trip.images[number])
        for number, truth in enumerate(progress(scenes, "reading"))
    ]
    return {
        "scores": scores(predictions) | trip.code_scores(),
        **({"usage": trip.usage()} if trip.codes else {}),
        "predictions": predictions,
    }


def refuse_training_seed(card: Mapping[str, Any], seed: int) -> None:
    """Raise ValueError when a card tells that scenes of this seed were trained on."""
    if seed in card.get("data_seeds", ()):
        raise ValueError(f"the model was trained on scenes of seed {seed}: evaluate it on another")


def judge(index: int, truth: Scene, original: np.ndarray, image: np.ndarray) -> dict[str, Any]:
    """Return the prediction of a scene: PSNR, SSIM, what its image reads as, what failed."""
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
        "ssim": ssim(original, image),
    }


def reads_as(read: Scene | Unreadable, truth: Scene) -> bool:
    """Return whether what was read is the scene, its centres within 2 pixels of 64."""
    return isinstance(read, Scene) and same_scene(truth, read, TOLERANCE_PX, canvas=64)


def scores(predictions: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the shares of scenes: right, failed in each way, misread as renders; mean PSNR and
    SSIM.
    """
    return {
        "right": share([p["right"] for p in predictions]),
        "psnr_db": mean([p["psnr_db"] for p in predictions]),
        "ssim": mean([p["ssim"] for p in predictions]),
        "failures": {
            name: share([name in p["failures"] for p in predictions]) for name in FAILURES
        },
        "reader_error": share([not p["reader_right"] for p in predictions]),
    }


def reader_errors(samples: int, seed: int, canvas: int) -> dict[str, Estimate]:
    """Return how often `read_scene` itself is wrong on renders, by what was done to them."""
    return {
        row.damage: proportion(row.num_samples - row.num_right, row.num_samples)
        for row in measure(samples, seed, canvas)
    }


def worst(predictions: Sequence[Mapping[str, Any]], count: int) -> list[int]:
    """Return the numbers of the predictions with the least PSNR, the worst first."""
    order = sorted(range(len(predictions)), key=lambda number: predictions[number]["psnr_db"])
    return order[:count]


def cells(trip: RoundTrip, predictions: Sequence[dict[str, Any]], count: int) -> list[Cell]:
    """Return a cell for each of the worst reconstructions, beside its original, with PSNR and
    failures.
    """
    return [
        Cell(
            (trip.originals[number], trip.images[number]),
            f"{predictions[number]['psnr_db']:.1f} dB",
            ", ".join(predictions[number]["failures"]),
            predictions[number]["right"],
        )
        for number in worst(predictions, count)
    ]


def failures(truth: Scene, read: Scene | Unreadable) -> list[str]:
    """Return which of FAILURES tell how the scene read differs from the true one.

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


def as_json(read: Scene | Unreadable) -> dict[str, Any] | None:
    """Return a scene as JSON, coordinates to 4 digits; None when unreadable."""
    if isinstance(read, Unreadable):
        return None
    objects = [
        {
            "shape": t.shape,
            "colour": t.colour,
            "size": t.size,
            "x": round(t.x, 4),
            "y": round(t.y, 4),
        }
        for t in read.objects
    ]
    ground = read.background
    words = [word for word in (ground.kind, ground.first, ground.second, ground.direction) if word]
    return {"background": words, "objects": objects}


def _nearest(
    objects: Sequence[SceneObject], others: Sequence[SceneObject]
) -> tuple[SceneObject, ...]:
    """Return the order of `others` with the least sum of distances to `objects`."""
    return min(
        itertools.permutations(others),
        key=lambda order: sum(
            math.dist((a.x, a.y), (b.x, b.y)) for a, b in zip(objects, order, strict=True)
        ),
    )


def _differ(first: SceneObject, second: SceneObject, name: str) -> bool:
    return getattr(first, name) != getattr(second, name)
