"""Quantize an image's latent vectors on ever finer grids: multi-scale residual quantization.

Tian et al., "Visual Autoregressive Modeling" (VAR, arXiv:2404.02905), alg. 1 and 2, whose grids
have 1, 2, 3, 4, 5, 6, 8, 10, 13 and 16 codes a side. What coarser grids have left is averaged over
the cells of the next grid and quantized there; the vectors of a grid are enlarged and added. All
grids share one codebook. The paper's convolutions after enlarging are left out: they would need a
loss of their own, for gradients pass the quantizer straight through. Without them a vector is
repeated over its cell: what the paper's bicubic interpolation spreads into cells around it, finer
grids would have to take back, by other codes at each place of an even page.

Codes follow one another grid by grid, coarse to fine, each in reading order.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from ..grid import Grid
from .codebook import Codebook
from .quantizer import Quantized, Quantizer, mean_losses, straight_through


class Scales(Quantizer):
    """Quantizes with grids of growing sides; losses are means over grids."""

    def __init__(self, codebook: Codebook, sides: tuple[int, ...]) -> None:
        """Take the codebook, and the sides of the grids in parts of the last one."""
        super().__init__()
        self.codebook, self.sides = codebook, sides
        self.width, self.num_codes = codebook.width, codebook.num_codes
        self.levels = codebook.levels

    def grid_of(self, grid: Grid) -> Grid:
        """Return the grids of so many latent vectors: the last one has a code for each.

        Others have that part of its rows and columns that `sides` says, rounded up: for a square
        of the last side they are `sides` themselves.
        """
        last = self.sides[-1]
        scales = [
            tuple(-(-side * whole // last) for whole in (grid.height, grid.width))
            for side in self.sides
        ]
        return Grid(grid.height, grid.width, tuple((rows, columns) for rows, columns in scales))

    def _quantize(self, z_BhwD: Tensor) -> Quantized:
        x_BhwD = rest_BhwD = self.codebook.bound(z_BhwD)
        codes, coarse, losses = [], [], []
        vectors_BhwD = torch.zeros_like(x_BhwD)
        size = z_BhwD.shape[1:3]
        for scale in self.grid_of(Grid(*size)).scales:
            # Alg. 1: r_k = Q(interpolate(f, h_k, w_k)), f <- f - interpolate(lookup(r_k), h, w).
            step = self.codebook.step(coarse_Bhwd := smaller(rest_BhwD, scale))
            enlarged_BhwD = larger(step.vectors, size)
            rest_BhwD = rest_BhwD - enlarged_BhwD
            vectors_BhwD = vectors_BhwD + enlarged_BhwD
            codes.append(step.codes.flatten(1))
            coarse.append(coarse_Bhwd.detach().flatten(1, 2))
            losses.append(step.losses)
        codes_Bn = torch.cat(codes, dim=1)
        if self.training:
            self.codebook.learn(torch.cat(coarse, dim=1), codes_Bn)
        vectors_BhwD = straight_through(vectors_BhwD, x_BhwD)
        return Quantized(vectors_BhwD, codes_Bn[..., None], mean_losses(losses))

    def _decode(self, codes_BnG: Tensor, grid: Grid) -> Tensor:
        vectors_BhwD = codes_BnG.new_zeros((), dtype=torch.float32)
        known = grid.scales[: grid.counts.index(codes_BnG.shape[1]) + 1]
        sizes = [rows * columns for rows, columns in known]
        for scale, codes_Bn in zip(known, codes_BnG[..., 0].split(sizes, 1), strict=True):
            # Alg. 2: f <- f + interpolate(lookup(r_k), h, w).
            small_BhwD = self.codebook.vectors_of(codes_Bn.unflatten(1, scale))
            vectors_BhwD = vectors_BhwD + larger(small_BhwD, (grid.height, grid.width))
        return vectors_BhwD

    def code_vectors(self, codes_nG: Tensor) -> Tensor:
        """Return the rows of the codebook, which all scales share."""
        return self.codebook.vectors_of(codes_nG[:, 0])


def smaller(x_BhwD: Tensor, size: tuple[int, int]) -> Tensor:
    """Return means over the cells of a grid of `size` rows and columns."""
    return F.interpolate(x_BhwD.movedim(-1, 1), size, mode="area").movedim(1, -1)


def larger(x_BhwD: Tensor, size: tuple[int, ...]) -> Tensor:
    """Return vectors for `size` rows and columns, each that of the cell it lies in."""
    if x_BhwD.shape[1:3] == size:
        return x_BhwD
    return F.interpolate(x_BhwD.movedim(-1, 1), tuple(size), mode="nearest").movedim(1, -1)
