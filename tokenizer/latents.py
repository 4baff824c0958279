"""Continuous latents: what stands between encoder and decoder where nothing is quantized.

The encoder gives each place of the grid a normal distribution, a mean and a log variance for each
of D numbers. In training the decoder reads a sample of it, and the distribution is held near the
standard normal one; afterwards an image's latents are the means, so that encoding is a function.

    z = mean + exp(log_variance / 2) noise                    (Kingma and Welling, arXiv:1312.6114)
    KL = (mean^2 + exp(log_variance) - 1 - log_variance) / 2  (the same, app. B, for one number)

Autoencoders with so light a KL term are those of latent diffusion (Rombach et al.,
arXiv:2112.10752, sec. 3.1). What leaves the tokenizer is scaled to a mean of zero and a variance of
one in each channel, by statistics that are measured once training is over and stored with weights.

Letters: B images of C x H x W, h x w places, D numbers of a latent.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .grid import Grid
from .quantizers.quantizer import Quantized, Quantizer


@dataclass(frozen=True)
class LatentsConfig:
    """Configure continuous latents."""

    width: int = 16
    """Numbers of a latent."""
    kl: float = 1e-3
    """Weight of the KL term, a mean over the numbers of the latents, in nats. What is too heavy
    leaves channels unused, which scaling to unit variance would then fill with noise."""

    def problems(self) -> list[str]:
        """Return what is wrong with the values, one sentence each."""
        found = [] if self.width >= 1 else [f"width {self.width}: at least 1"]
        return found if 0 <= self.kl < np.inf else [*found, f"kl {self.kl}: at least 0"]


class Latents(Quantizer):
    """Latents stand in a quantizer's place: there are no codes, zero groups of them.

    kl: the weight of the KL term; None: the encoder gives the latents themselves, not a
    distribution.
    """

    mean: Tensor
    std: Tensor
    num_codes, num_groups = 0, 0

    def __init__(self, width: int, kl: float | None) -> None:
        super().__init__()
        self.width, self.kl = width, kl
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    @property
    def encoded_width(self) -> int:
        """Return the numbers that the encoder gives for a latent."""
        return self.width if self.kl is None else 2 * self.width

    def forward(self, encoded_BhwE: Tensor, noise_BhwD: Tensor | None = None) -> Quantized:
        """Return the vectors that the decoder reads, and in training the KL term.

        noise_BhwD: what draws a sample of the distributions; None: the vectors are their means.
        Arithmetic is float32.
        """
        with torch.autocast(encoded_BhwE.device.type, enabled=False):
            encoded_BhwE = encoded_BhwE.float()
            codes = encoded_BhwE.new_zeros(len(encoded_BhwE), 0, 0, dtype=torch.int64)
            if self.kl is None:
                return Quantized(encoded_BhwE, codes)
            mean_BhwD, log_variance_BhwD = encoded_BhwE.chunk(2, dim=-1)
            if not self.training:
                return Quantized(mean_BhwD, codes)
            variance_BhwD = log_variance_BhwD.exp()
            kl_BhwD = (mean_BhwD.square() + variance_BhwD - 1 - log_variance_BhwD) / 2
            z_BhwD = mean_BhwD
            if noise_BhwD is not None:
                z_BhwD = mean_BhwD + variance_BhwD.sqrt() * noise_BhwD
            return Quantized(z_BhwD, codes, {"kl": self.kl * kl_BhwD.mean()})

    def scaled(self, z_BhwD: Tensor) -> Tensor:
        """Return vectors as latents: of zero mean and unit variance in each channel."""
        return (z_BhwD - self.mean) / self.std

    def unscaled(self, latents_BhwD: Tensor) -> Tensor:
        """Return latents as the vectors that the decoder reads."""
        return latents_BhwD * self.std + self.mean

    def decode(self, codes_BnG: Tensor, grid: Grid) -> Tensor:
        """Raise ValueError: there are no codes."""
        raise ValueError("this image tokenizer has latents and no codes")

    @torch.no_grad()
    def measure(self, vectors: Iterable[Tensor]) -> None:
        """Set the statistics of each channel to those of vectors (..., D).

        Raise ValueError where there are none, or where a channel is the same everywhere.
        """
        count, sum_D, squares_D = 0, torch.zeros(self.width).double(), torch.zeros(()).double()
        for some in vectors:
            z_ND = some.reshape(-1, self.width).double().cpu()
            count, sum_D = count + len(z_ND), sum_D + z_ND.sum(0)
            squares_D = squares_D + z_ND.square().sum(0)
        if not count:
            raise ValueError("no latents were given, so their mean and variance are unknown")
        mean_D = sum_D / count
        std_D = (squares_D / count - mean_D.square()).sqrt()
        if not bool((std_D > 0).all()):
            channel = int((~(std_D > 0)).nonzero()[0])
            raise ValueError(
                f"channel {channel} of the latents is the same in all {count:,} places, so it "
                "cannot be scaled to unit variance: train longer, on more varied images, or with a "
                "lower model.latents.kl"
            )
        self.mean.copy_(mean_D)
        self.std.copy_(std_D)


def image_noise(images_BCHW: Tensor, step: int, shape: tuple[int, ...]) -> Tensor:
    """Return normal noise of `shape` for each image, float32 (B, *shape).

    It is a function of (the image, the step), so that a run goes on as if it had not stopped, and
    any number of processes draws the same.
    """
    drawn = []
    for image_CHW in images_BCHW.detach().float().cpu().contiguous().numpy():
        key = hashlib.sha256(image_CHW.tobytes() + step.to_bytes(8, "little")).digest()[:16]
        philox = np.random.Philox(key=np.frombuffer(key, dtype="<u8"))
        drawn.append(np.random.Generator(philox).standard_normal(shape, dtype=np.float32))
    return torch.from_numpy(np.stack(drawn)).to(images_BCHW.device)
