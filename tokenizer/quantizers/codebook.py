"""A codebook: one code for each latent vector, alone or as a part of a larger quantizer.

It does three things: `bound` brings latent vectors to where the codebook's vectors lie, `nearest`
finds the code of each, and `vectors_of` looks codes up. Quantizers of several codes a place bound
once, and call `nearest` for what the codes before have left.
"""

from torch import Tensor

from ..grid import Grid
from .quantizer import Quantized, Quantizer, straight_through


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

    def _quantize(self, z_BhwD: Tensor) -> Quantized:
        x_BhwD = self.bound(z_BhwD)
        codes_Bhw = self.nearest(x_BhwD.detach())
        vectors_BhwD = self.vectors_of(codes_Bhw)
        losses = self.losses(x_BhwD, vectors_BhwD) if self.training else {}
        if self.training:
            self.learn(x_BhwD.detach(), codes_Bhw)
        codes_Bn1 = codes_Bhw.flatten(1)[..., None]
        return Quantized(straight_through(vectors_BhwD, x_BhwD), codes_Bn1, losses)

    def _decode(self, codes_BnG: Tensor, grid: Grid) -> Tensor:
        return self.vectors_of(codes_BnG.reshape(-1, grid.height, grid.width))
