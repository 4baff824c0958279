"""The interface of quantizers: latent vectors -> vectors of a codebook, codes, losses, and back.

Shapes: B images; h x w latent vectors of D numbers each; n codes of G groups, laid out by a Grid.
Arithmetic is float32 whatever the dtype of the latents and whatever autocast says: bfloat16 cannot
tell neighbouring levels apart.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..grid import Grid

MAX_CODES = 2**18  # of one group: what vocabularies and code files are made for
MAX_GROUPS = 64  # codes at a place


@dataclass(frozen=True)
class Quantized:
    """What a quantizer makes of the latent vectors of a batch."""

    vectors: Tensor
    """What the decoder reads, float32 (B, h, w, D); gradients pass it to the latent vectors."""
    codes: Tensor
    """int64 (B, n, G), each from 0 to num_codes - 1."""
    losses: dict[str, Tensor] = field(default_factory=dict)
    """Scalars by name, float32, weighted as the quantizer's config says; empty when not training"""


class Quantizer(nn.Module):
    """Turns latent vectors into codes, and codes into vectors."""

    width: int
    """D, the numbers of a latent vector."""
    num_codes: int
    """Of each group."""
    num_groups: int = 1
    """G, the codes at each place of the grid of codes."""
    levels: tuple[int, ...] = ()
    """A code is the mixed-radix number of so many levels, the first one the lowest digit; (): it is
    not made of levels."""

    @property
    def encoded_width(self) -> int:
        """Return how many numbers the encoder gives for a latent vector: D, or more."""
        return self.width

    def grid_of(self, grid: Grid) -> Grid:
        """Return the grid of codes of a grid of latent vectors."""
        return grid

    def forward(self, z_BhwD: Tensor) -> Quantized:
        """Quantize latent vectors, float of any dtype.

        ValueError for vectors of another width and, when not training, for numbers that are not
        finite: no code stands for them. In training they make the losses not finite.
        """
        if z_BhwD.ndim != 4 or z_BhwD.shape[-1] != self.width:
            shape = tuple(z_BhwD.shape)
            raise ValueError(f"latent vectors of shape {shape}: (B, h, w, {self.width})")
        if not self.training and not z_BhwD.isfinite().all():
            num = int((~z_BhwD.isfinite()).sum())
            found = f"{num} of {z_BhwD.numel()} latent numbers are not finite"
            raise ValueError(f"{found}, and no code stands for them: check images and weights")
        with torch.autocast(z_BhwD.device.type, enabled=False):
            return self._quantize(z_BhwD.float())

    def decode(self, codes_BnG: Tensor, grid: Grid) -> Tensor:
        """Return the vectors of codes, float32 (B, h, w, D): those that `forward` gave with them.

        Of several scales the coarser ones may be given alone. ValueError for codes that do not fill
        the grid of codes, or are outside 0 .. num_codes - 1.
        """
        shape = tuple(codes_BnG.shape)
        if len(shape) != 3 or shape[1] not in grid.counts or shape[2] != self.num_groups:
            raise ValueError(f"codes of shape {shape}: (B, {grid.size}, {self.num_groups})")
        if grid != self.grid_of(Grid(grid.height, grid.width)):
            raise ValueError(f"{grid} is not one of this quantizer: its scales are others")
        if codes_BnG.numel():
            low, high = int(codes_BnG.min()), int(codes_BnG.max())
            if low < 0 or high >= self.num_codes:
                raise ValueError(f"codes {low}..{high} outside 0..{self.num_codes - 1}")
        with torch.autocast(codes_BnG.device.type, enabled=False):
            return self._decode(codes_BnG, grid)

    def code_vectors(self, codes_nG: Tensor) -> Tensor:
        """Return the vectors of codes int64 (n, G) by themselves, float32 (n, D)."""
        return self.decode(codes_nG[None], Grid(1, len(codes_nG)))[0, 0]

    def _quantize(self, z_BhwD: Tensor) -> Quantized:
        """Quantize float32 vectors, outside autocast."""
        raise NotImplementedError

    def _decode(self, codes_BnG: Tensor, grid: Grid) -> Tensor:
        """Return the vectors of valid codes, outside autocast."""
        raise NotImplementedError


def too_many(whose: str, num_codes: int) -> str:
    """Say that a setting makes more than MAX_CODES codes; a number may be too long to write."""
    said = f"{num_codes:,}" if num_codes < 10**30 else f"2 ** {num_codes.bit_length() - 1} and more"
    return f"{whose} make {said} codes: at most {MAX_CODES:,}"


def straight_through(vectors: Tensor, latents: Tensor) -> Tensor:
    """Return the vectors, whose gradient goes to the latents unchanged.

    Bengio et al., arXiv:1308.3432, sec. 3: the derivative of rounding is taken as one. What is
    added is exactly zero, so that the result is what `decode` gives.
    """
    return vectors.detach() + (latents - latents.detach())


def mean_losses(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the means of losses of the same names, so that weights do not depend on how many."""
    return {name: torch.stack([part[name] for part in parts]).mean() for name in parts[0]}
