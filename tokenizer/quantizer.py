"""Finite scalar quantization: a vector of a few bounded numbers, each rounded to one of a few
levels.

Mentzer et al., "Finite Scalar Quantization: VQ-VAE Made Simple" (arXiv 2309.15505). The code of a
vector is the mixed-radix number of its levels, so code <-> vector is a bijection without a learned
codebook.
"""

from collections.abc import Sequence
from math import prod

import torch
from torch import nn


class FSQ(nn.Module):
    """Quantizes the last dimension, one number for each entry of `levels` (each at least 2)."""

    _radix: torch.Tensor
    _levels: torch.Tensor

    def __init__(self, levels: Sequence[int]):
        super().__init__()
        if not levels or min(levels) < 2:
            raise ValueError(
                f"levels {tuple(levels)}: give at least one number, each of at least 2"
            )
        self.levels = tuple(levels)
        self.num_codes = prod(levels)
        radix = torch.tensor([prod(levels[:k]) for k in range(len(levels))], dtype=torch.int64)
        self.register_buffer("_radix", radix, persistent=False)
        self.register_buffer("_levels", torch.tensor(levels, dtype=torch.int64), persistent=False)

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """z (..., d) -> (quantized (..., d) in [-1, 1], codes int64 (...)); gradients pass straight
        through.

        Arithmetic is float32 whatever z's dtype: bf16 cannot tell neighbouring levels apart.
        """
        z = z.float()
        # Sec. 3.1 with the bound (1 + tanh z) / 2 in place of a shifted tanh: level k of L covers
        # an equal share of the bounded range, for odd and even L alike.
        unit = (torch.tanh(z) + 1) / 2
        index = (unit * self._levels).floor().long().minimum(self._levels - 1)
        smooth = 2 * unit - 1
        quantized = smooth + (self.vectors_of(index) - smooth).detach()
        return quantized, (index * self._radix).sum(-1)

    def vectors_of(self, index: torch.Tensor) -> torch.Tensor:
        """Levels int64 (..., d) -> the middles of their shares of [-1, 1], float32."""
        return (2 * index.float() + 1) / self._levels - 1

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """codes int64 (...) in 0 .. num_codes - 1 -> vectors float32 (..., d)."""
        if codes.numel() and not (0 <= codes.min() and codes.max() < self.num_codes):
            raise ValueError(f"codes {codes.min()}..{codes.max()} outside 0..{self.num_codes - 1}")
        return self.vectors_of(codes[..., None] // self._radix % self._levels)
