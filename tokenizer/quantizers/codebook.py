"""A codebook: one code for each latent vector, alone or as a part of a larger quantizer.

It does three things: `bound` brings latent vectors to where the codebook's vectors lie, `nearest`
finds the code of each, and `vectors_of` looks codes up. Quantizers of several codes a place bound
once, and call `nearest` for what the codes before have left.
"""

from typing import NamedTuple

from torch import Tensor

from ..grid import Grid
from .quantizer import Quantized, Quantizer, straight_through


class Step(NamedTuple):
    """Bounded vectors, quantized once."""

    codes: Tensor
    """int64 (...)."""
    vectors: Tensor
    """float32 (..., D), without gradient."""
    losses: dict[str, Tensor]
    """Weighted; empty when not training."""


class Codebook(Quantizer):
    """A quantizer of one code for each vector."""

    def bound(self, z: Tensor) -> Tensor:
        """Return latent vectors, float32 (..., D), in the space of the codebook's vectors."""
        return z

    def nearest(self, x: Tensor) -> Tensor:
        """Return the codes, int64 (...), of the vectors nearest to bounded x, float32 (..., D)."""
        raise NotImplementedError

    def vectors_of(self, codes: Tensor) -> Tensor:
        """Return the vectors, float32 (..., D), of codes, int64 (...) from 0 to num_codes - 1."""
        raise NotImplementedError

    def losses(self, x: Tensor, vectors: Tensor) -> dict[str, Tensor]:
        """Return what training adds, weighted, for bounded x and the vectors it became."""
        return {}

    def learn(self, x: Tensor, codes: Tensor) -> None:
        """Move the codebook towards the bounded x, float32 (..., D), that had these codes."""

    def step(self, x: Tensor) -> Step:
        """Quantize bounded x, float32 (..., D)."""
        codes = self.nearest(x.detach())
        vectors = self.vectors_of(codes)
        return Step(codes, vectors, self.losses(x, vectors) if self.training else {})

    def _quantize(self, z_BhwD: Tensor) -> Quantized:
        x_BhwD = self.bound(z_BhwD)
        step = self.step(x_BhwD)
        if self.training:
            self.learn(x_BhwD.detach(), step.codes)
        codes_Bn1 = step.codes.flatten(1)[..., None]
        return Quantized(straight_through(step.vectors, x_BhwD), codes_Bn1, step.losses)

    def _decode(self, codes_BnG: Tensor, grid: Grid) -> Tensor:
        return self.vectors_of(codes_BnG.reshape(-1, grid.height, grid.width))
