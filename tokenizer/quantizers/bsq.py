"""Project a vector to the unit sphere and keep its signs: binary spherical quantization (BSQ).

Zhao et al., "Image and Video Tokenization with Binary Spherical Quantization" (arXiv:2406.07548),
sec. 4. It is LFQ of u = z / |z| with the vectors c of numbers +-1 / sqrt(L) for L bits, so that
vectors lie on the sphere too and the error is bounded; the bit order is that of lfq.py.

The paper's soft assignment is exp(tau c^T u), and |u - c|^2 = 2 - 2 c^T u on the sphere: its
inverse temperature tau is 2 / `temperature`.
"""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from .lfq import LFQ, LfqConfig


@dataclass(frozen=True)
class BsqConfig(LfqConfig):
    """Configure binary spherical quantization."""

    commitment_weight: float = 0.0
    """Of the mean squared distance between numbers and what they are quantized to: the paper has
    none, for on a sphere the distance is bounded."""
    factor_bits: int | None = 1
    """Bits whose joint distribution the entropy of a batch knows of; the paper takes each for
    independent of all others. None: all, which is exact."""

    def build(self, stage: int, seed: int, name: str) -> "BSQ":
        """Return the codebook; nothing in it is random."""
        return BSQ(self, stage)


class BSQ(LFQ):
    """Quantizes the direction of a vector."""

    def __init__(self, config: BsqConfig, stage: int = 0) -> None:
        """Make the codebook of a config that has no problems; stage: as that of LFQ."""
        super().__init__(config, stage)
        self.size *= config.bits**-0.5  # u^ = sign(u) / sqrt(L)

    def bound(self, z: Tensor) -> Tensor:
        """Return u = z / |z|."""
        return F.normalize(z, dim=-1)
