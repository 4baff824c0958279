"""How near a reconstruction comes to its image.

In: pairs of images, uint8 (H, W, 3). Out: numbers.
"""

import math

import numpy as np

ROUNDING_ERROR = 1 / 12  # mean squared error of rounding to whole pixel values
LUMA = (0.299, 0.587, 0.114)  # of red, green and blue: ITU-R BT.601
WINDOW, SIGMA = 11, 1.5  # pixels of SSIM's Gaussian window
STABLE = (0.01 * 255) ** 2, (0.03 * 255) ** 2  # SSIM's C1 and C2


def psnr(original: np.ndarray, image: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio of uint8 images in dB: 10 log10(255^2 / mse).

    The mse is at least that of rounding to 8 bits (1/12): equal images have 58.9 dB.
    """
    mse = float(np.mean((original.astype(np.float64) - image.astype(np.float64)) ** 2))
    return 10 * math.log10(255**2 / max(mse, ROUNDING_ERROR))


def ssim(original: np.ndarray, image: np.ndarray) -> float | None:
    """Return the structural similarity of the brightness of uint8 images, 1 for equal ones; None
    for images smaller than its window.

    Wang, Bovik, Sheikh and Simoncelli 2004, IEEE Trans. Image Process. 13, 600-612, eq. 13, the
    mean over all whole windows.
    """
    if min(original.shape[:2]) < WINDOW:
        return None
    x, y = (pixels.astype(np.float64) @ np.array(LUMA) for pixels in (original, image))
    mean_x, mean_y = _smooth(x), _smooth(y)
    var_x, var_y = _smooth(x * x) - mean_x**2, _smooth(y * y) - mean_y**2
    covariance = _smooth(x * y) - mean_x * mean_y
    c1, c2 = STABLE
    top = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return float((top / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))).mean())


def _smooth(values_HW: np.ndarray) -> np.ndarray:
    """Return the Gaussian mean of each whole window, (H - 10, W - 10)."""
    at = np.arange(WINDOW) - WINDOW // 2
    kernel = np.exp(-(at**2) / (2 * SIGMA**2))
    kernel /= kernel.sum()
    for axis in (0, 1):
        windows = np.lib.stride_tricks.sliding_window_view(values_HW, WINDOW, axis=axis)
        values_HW = windows @ kernel
    return values_HW
