"""Images that are no scenes, in place of photographs: the model must say that it sees no shapes.

In: a generator and a canvas. Out: an image of smooth coloured noise.

Natural images have amplitude spectra that fall as 1/f (Field 1987, JOSA A 4(12), 2379), so noise
with such a spectrum has their statistics of second order: clouds, foliage, blur, and no shapes.
"""

import numpy as np


def strange(rng: np.random.Generator, canvas: int) -> np.ndarray:
    """Draw an image, uint8 (canvas, canvas, 3), whose channels are partly the same noise.

    Spectra go from grainy to blurred; the spread is a standard deviation in 0..255.
    """
    steepness, shared, spread = rng.uniform((0.8, 0.2, 25.0), (1.8, 0.9, 70.0))
    waves_cHW = np.fft.rfft2(rng.standard_normal((4, canvas, canvas), dtype=np.float32))
    fields_cHW = np.fft.irfft2(waves_cHW * _spectrum(canvas) ** steepness, (canvas, canvas))
    fields_cHW /= fields_cHW.std(axis=(1, 2), keepdims=True)
    noise_3HW = shared * fields_cHW[:1] + np.sqrt(1 - shared**2) * fields_cHW[1:]
    mean_3 = rng.uniform(50, 205, 3)
    image_HW3 = mean_3 + spread * noise_3HW.transpose(1, 2, 0)
    return image_HW3.clip(0, 255).astype(np.uint8)


def _spectrum(canvas: int) -> np.ndarray:
    """Return 1/f of each wave of a real transform, float (canvas, canvas // 2 + 1); the mean 0."""
    y, x = np.fft.fftfreq(canvas)[:, None], np.fft.rfftfreq(canvas)[None]
    frequency = np.hypot(x, y)
    frequency[0, 0] = np.inf
    return 1 / frequency
