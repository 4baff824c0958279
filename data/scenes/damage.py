"""Damage renders, and measure how often the reader then errs.

In: a seed, a number of scenes, a canvas. Out: one `Errors` for each kind of damage (blur, noise,
JPEG); `python -m unimodal.data.scenes.damage --samples 1000` prints them as a table. Costs about
4 ms an image and core at 64 pixels.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from time import process_time

import numpy as np
from PIL import Image

from .reading import Unreadable, read_scene, same_scene
from .world import LARGE, SMALL, Scene, generator, render, scene


@dataclass(frozen=True)
class Errors:
    """How often the reader was right on images with one damage; unreadable counts as wrong."""

    damage: str
    num_samples: int
    num_right: int
    num_unreadable: int
    scenes_per_s: float  # reading alone, by the seconds of one core

    @property
    def num_misread(self) -> int:
        """Count the images that were read as another scene."""
        return self.num_samples - self.num_right - self.num_unreadable


def blurred(image_HW3: np.ndarray, sigma_px: float) -> np.ndarray:
    """Blur an image by a Gaussian, the border repeated; return uint8 (H, W, 3)."""
    reach = int(np.ceil(4 * sigma_px))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma_px) ** 2)
    weights /= weights.sum()
    pixels = image_HW3.astype(np.float64)
    for axis in (0, 1):
        wide = np.pad(pixels, [(reach, reach) if a == axis else (0, 0) for a in range(3)], "edge")
        pixels = np.lib.stride_tricks.sliding_window_view(wide, len(weights), axis) @ weights
    return (pixels + 0.5).astype(np.uint8)


def noisy(image_HW3: np.ndarray, sigma: float, seed: int, index: int) -> np.ndarray:
    """Add normal noise of `sigma` levels of 255 to every value; return uint8 (H, W, 3)."""
    noise_HW3 = sigma * generator(seed, index, part=1).standard_normal(image_HW3.shape)
    return (image_HW3 + noise_HW3 + 0.5).clip(0, 255).astype(np.uint8)


def compressed(image_HW3: np.ndarray, quality: int) -> np.ndarray:
    """Compress as JPEG, chroma at half resolution, and open again; return uint8 (H, W, 3)."""
    from unimodal.tokenizer.pixels import open_image

    file = BytesIO()
    Image.fromarray(image_HW3).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return np.array(open_image(file.getvalue()).image)


def damages(seed: int) -> dict[str, Callable[[np.ndarray, int], np.ndarray]]:
    """Return every damage measured: name -> function of (image, index); the first is none."""
    return {
        "none": lambda image, index: image,
        "blur, sigma 0.5 px": lambda image, index: blurred(image, 0.5),
        "blur, sigma 1 px": lambda image, index: blurred(image, 1.0),
        "noise, sigma 5": lambda image, index: noisy(image, 5, seed, index),
        "noise, sigma 10": lambda image, index: noisy(image, 10, seed, index),
        "noise, sigma 20": lambda image, index: noisy(image, 20, seed, index),
        "JPEG, quality 90": lambda image, index: compressed(image, 90),
        "JPEG, quality 75": lambda image, index: compressed(image, 75),
        "JPEG, quality 50": lambda image, index: compressed(image, 50),
    }


def measure(num_samples: int, seed: int, canvas: int = 64) -> Iterator[Errors]:
    """Yield the reader's errors on renders of (seed, 0 .. num_samples - 1), damage by damage.

    From a canvas of 128 pixels on, the world is the large one. Right means: background, count and
    attributes exact, centres within 2 pixels of a canvas of 64.
    """
    world = LARGE if canvas >= 128 else SMALL
    for name, damage in damages(seed).items():
        num_right = num_unreadable = 0
        spent_s = 0.0
        for index in range(num_samples):
            truth = scene(seed, index, world)
            image = damage(render(truth, canvas), index)
            start_s = process_time()
            found = read_scene(image)
            spent_s += process_time() - start_s
            num_unreadable += isinstance(found, Unreadable)
            num_right += isinstance(found, Scene) and same_scene(truth, found)
        yield Errors(name, num_samples, num_right, num_unreadable, num_samples / spent_s)


def main() -> None:
    """Print the table of `measure`."""
    parser = argparse.ArgumentParser(prog="python -m unimodal.data.scenes.damage")
    parser.add_argument("--samples", type=int, default=1000, help="scenes for each damage")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--canvas", type=int, default=64, help="pixels a side")
    options = parser.parse_args()
    print(f"seed {options.seed}, canvas {options.canvas}, {options.samples} scenes for each damage")
    print(f"{'damage':20} {'right':>8} {'unreadable':>11} {'misread':>8} {'scenes/s':>9}")
    for row in measure(options.samples, options.seed, options.canvas):
        counts = (row.num_right, row.num_unreadable, row.num_misread)
        right, unread, wrong = (f"{count / row.num_samples:.2%}" for count in counts)
        rate = f"{row.scenes_per_s:.0f}"
        print(f"{row.damage:20} {right:>8} {unread:>11} {wrong:>8} {rate:>9}", flush=True)


if __name__ == "__main__":
    main()
