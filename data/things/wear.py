"""What happens to images on their way: JPEG, resizing, blur, noise, fewer colours, another light.

In: a float32 page. Out: uint8 (H, W, 3), mostly unharmed.
"""

import numpy as np
from PIL import Image as PILImage

from ..scenes.damage import compressed
from ..scenes.templates import smooth

Generator = np.random.Generator
FILTERS = (
    PILImage.Resampling.NEAREST,
    PILImage.Resampling.BILINEAR,
    PILImage.Resampling.BICUBIC,
    PILImage.Resampling.LANCZOS,
)
UNHARMED = 0.6  # share of images


def worn(pixels_HW3: np.ndarray, rng: Generator) -> np.ndarray:
    """Round a page, float32 (H, W, 3) in 0..255, to an image that may have been worn."""
    if rng.random() < UNHARMED:
        return rounded(pixels_HW3)
    kinds = (_relit, _jpeg, _jpeg, _resized, _resized, _blurred, _grainy, _posterised, _grey)
    return rounded(kinds[rng.integers(len(kinds))](pixels_HW3, rng))


def rounded(pixels_HW3: np.ndarray) -> np.ndarray:
    """Round to uint8; what a filter let overshoot black or white stays there, as on a screen."""
    return (pixels_HW3 + 0.5).clip(0, 255).astype(np.uint8)


def _relit(pixels_HW3: np.ndarray, rng: Generator) -> np.ndarray:
    """Change gamma, contrast and the colour of the light."""
    light_3 = rng.uniform(0.85, 1.1, 3).astype(np.float32)
    gamma = float(np.exp(rng.uniform(-0.4, 0.4)))
    return 255 * (pixels_HW3.clip(0, 255) / 255) ** gamma * light_3


def _jpeg(pixels_HW3: np.ndarray, rng: Generator) -> np.ndarray:
    return compressed(rounded(pixels_HW3), int(rng.integers(30, 96))).astype(np.float32)


def _resized(pixels_HW3: np.ndarray, rng: Generator) -> np.ndarray:
    """Make the image smaller or larger, and then as large as it was, by any two filters."""
    side = len(pixels_HW3)
    there, back = (FILTERS[k] for k in rng.integers(len(FILTERS), size=2))
    other = int(side * rng.uniform(0.5, 1.7))
    image = PILImage.fromarray(rounded(pixels_HW3)).resize((other, other), there)
    return np.asarray(image.resize((side, side), back), dtype=np.float32)


def _blurred(pixels_HW3: np.ndarray, rng: Generator) -> np.ndarray:
    return smooth(pixels_HW3, int(rng.integers(1, 4)))


def _grainy(pixels_HW3: np.ndarray, rng: Generator) -> np.ndarray:
    return pixels_HW3 + rng.normal(0, rng.uniform(2, 12), pixels_HW3.shape).astype(np.float32)


def _posterised(pixels_HW3: np.ndarray, rng: Generator) -> np.ndarray:
    step = 255 / float(rng.integers(3, 9))
    return np.round(pixels_HW3 / step) * step


def _grey(pixels_HW3: np.ndarray, rng: Generator) -> np.ndarray:
    mean_HW1 = pixels_HW3.mean(axis=2, keepdims=True)
    return mean_HW1 + rng.choice((0.0, 0.3)) * (pixels_HW3 - mean_HW1)
