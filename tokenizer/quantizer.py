"""Round each number of a short vector to one of a few levels: finite scalar quantization (FSQ).

Mentzer et al., "Finite Scalar Quantization: VQ-VAE Made Simple" (arXiv 2309.15505). The code of a
vector is the mixed-radix number of its levels, so codes and vectors are a bijection without a
learned codebook.
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
        """Take the number of levels of each entry; ValueError for none, or for fewer than 2."""
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
        """Quantize z, float (..., D): return float32 (..., D) in [-1, 1] and codes, int64 (...).

        Gradients pass the rounding unchanged. Arithmetic is float32 whatever z's dtype: bfloat16
        cannot tell neighbouring levels apart.
        """
        z = z.float()
        # Sec. 3.1, z_hat = round(f(z)), with f = L (1 + tanh z) / 2 rounded down in place of
        # floor(L / 2) tanh z: levels have equal shares of the range, for odd and even L alike.
        unit = (torch.tanh(z) + 1) / 2
        index = (unit * self._levels).floor().long().minimum(self._levels - 1)
        smooth = 2 * unit - 1
        # Sec. 3.1, the straight-through estimator: x + sg(round(x) - x).
        quantized = smooth + (self.vectors_of(index) - smooth).detach()
        # Sec. 3.1, the index of a vector in the implied codebook: its levels in mixed radix.
        return quantized, (index * self._radix).sum(-1)

    def vectors_of(self, index: torch.Tensor) -> torch.Tensor:
        """Return the middles of the shares of [-1, 1] of levels, int64 (..., D): float32."""
        return (2 * index.float() + 1) / self._levels - 1

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """Return the vectors of codes, float32 (..., D).

        Codes are int64 (...); ValueError for one outside 0 .. num_codes - 1.
        """
        if codes.numel() and not (0 <= codes.min() and codes.max() < self.num_codes):
            raise ValueError(f"codes {codes.min()}..{codes.max()} outside 0..{self.num_codes - 1}")
        return self.vectors_of(codes[..., None] // self._radix % self._levels)
