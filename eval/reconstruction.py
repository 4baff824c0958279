"""How near a reconstruction comes to its image, and how much of a codebook images use.

In: pairs of images, uint8 (H, W, 3); the codes of each image. Out: numbers, those of a set of
images with 95 % intervals.
"""

import math
from collections.abc import Sequence

import numpy as np

from .intervals import Z_95, Estimate, unmeasured

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


def code_usage(codes: Sequence[np.ndarray], num_codes: int) -> dict[str, float | int]:
    """Return how many codes occur in arrays of codes, and their share of all; the entropy of their
    frequencies in bits, and its perplexity: as many codes that are used alike.
    """
    counts = _counts(codes, num_codes)
    entropy_bits = _entropy_bits(counts)
    return {
        "num_codes": num_codes,
        "distinct": int((counts > 0).sum()),
        "share": float((counts > 0).mean()),
        "entropy_bits": entropy_bits,
        "perplexity": 2**entropy_bits,
        "drawn": int(counts.sum()),
    }


def usage_scores(codes: Sequence[np.ndarray], num_codes: int) -> dict[str, Estimate]:
    """Return share, entropy and perplexity of `code_usage` with intervals; codes: of each image.

    Intervals are z times the jackknife's standard error, an image left out at a time: Efron and
    Stein 1981, Ann. Stat. 9, 586-596. They say how much the numbers depend on which images were
    taken, not how many codes more images would use.
    """
    found, counts, n = code_usage(codes, num_codes), _counts(codes, num_codes), len(codes)
    if n < 2:
        return {name: unmeasured(n) for name in ("share", "entropy_bits", "perplexity")}
    shares_n, bits_n = np.empty(n), np.empty(n)
    for number, one in enumerate(codes):
        left = counts - np.bincount(one, minlength=num_codes)
        shares_n[number], bits_n[number] = (left > 0).mean(), _entropy_bits(left)
    share = _jackknife(float(found["share"]), shares_n)
    entropy = _jackknife(float(found["entropy_bits"]), bits_n)
    assert entropy.low is not None and entropy.high is not None, "there are two images or more"
    perplexity = Estimate(float(found["perplexity"]), 2**entropy.low, 2**entropy.high, n)
    return {"share": share, "entropy_bits": entropy, "perplexity": perplexity}


def _counts(codes: Sequence[np.ndarray], num_codes: int) -> np.ndarray:
    return np.bincount(np.concatenate([one.reshape(-1) for one in codes]), minlength=num_codes)


def _entropy_bits(counts: np.ndarray) -> float:
    p = counts[counts > 0] / counts.sum()
    return float(abs((p * np.log2(p)).sum()))


def _jackknife(value: float, without_n: np.ndarray) -> Estimate:
    """Return a statistic of n images with its interval, from what it is without each of them."""
    n = len(without_n)
    half = Z_95 * math.sqrt((n - 1) / n * float(((without_n - without_n.mean()) ** 2).sum()))
    return Estimate(value, value - half, value + half, n)
