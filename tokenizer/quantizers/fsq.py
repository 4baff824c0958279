"""Round each number of a short vector to one of a few levels: finite scalar quantization (FSQ).

Mentzer et al., "Finite Scalar Quantization: VQ-VAE Made Simple" (arXiv 2309.15505). The code of a
vector is the mixed-radix number of its levels, the first one the lowest digit, so codes and vectors
are a bijection without a learned codebook and without losses.

A number z is first bounded to -1 .. 1. `equal_width`, `sigmoid` and `equal_mass` then give each of
L levels an equal share of that range, and stand for it by its middle; they differ in how they
bound, that is in which z each level gets. `shifted` is the rounding of the paper.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

import torch
from torch import Tensor

from .codebook import Codebook
from .quantizer import MAX_CODES

Bound = Literal["equal_width", "shifted", "sigmoid", "equal_mass"]
MARGIN = 1e-3  # of the paper's bound: its outermost levels are reached by a finite z


@dataclass(frozen=True)
class FsqConfig:
    """Configure finite scalar quantization; see fsq.py."""

    levels: tuple[int, ...] = (8, 8, 8, 8)
    """Of each number of a vector; their product is the number of codes."""
    bound: Bound = "equal_width"
    """How a number is bounded before it is rounded."""

    @property
    def width(self) -> int:
        """Return the numbers of a vector."""
        return len(self.levels)

    def problems(self) -> list[str]:
        """Return what is wrong with the values, one sentence each."""
        least = 3 if self.bound == "shifted" else 2
        if not self.levels or min(self.levels) < least:
            whose = " with the bound 'shifted'" if least == 3 else ""
            return [f"levels {self.levels}: at least one, each of at least {least}{whose}"]
        codes = prod(self.levels)
        too_many = f"levels {self.levels} make {codes:,} codes: at most {MAX_CODES:,}"
        return [too_many] if codes > MAX_CODES else []

    def build(self, stage: int, seed: int, name: str) -> "FSQ":
        """Return the codebook; nothing in it is random."""
        return FSQ(self.levels, self.bound, stage)


class FSQ(Codebook):
    """Quantizes each number of a vector, to `levels[d]` levels the d-th (each at least 2)."""

    _radix: Tensor
    _levels: Tensor
    _scale: Tensor

    def __init__(self, levels: Sequence[int], bound: Bound = "equal_width", stage: int = 0) -> None:
        """Take the levels of each number; ValueError for none, or for fewer than can be.

        stage: of a residual quantizer, from 0: the vectors are smaller by 1 / levels each stage,
        as is what the stage before leaves.
        """
        super().__init__()
        least = 3 if bound == "shifted" else 2
        if not levels or min(levels) < least:
            raise ValueError(
                f"levels {tuple(levels)}: give at least one number, each of at least {least}"
            )
        self.levels, self.kind = tuple(levels), bound
        self.width, self.num_codes = len(levels), prod(levels)
        radix = torch.tensor([prod(levels[:k]) for k in range(len(levels))], dtype=torch.int64)
        counts = torch.tensor(levels, dtype=torch.int64)
        self.register_buffer("_radix", radix, persistent=False)
        self.register_buffer("_levels", counts, persistent=False)
        self.register_buffer("_scale", counts.float() ** -stage, persistent=False)

    def bound(self, z: Tensor) -> Tensor:
        """Return z bounded to -1 .. 1, and smooth."""
        if self.kind == "shifted":
            return self._shifted(z)
        if self.kind == "equal_width":
            unit = (torch.tanh(z) + 1) / 2
        elif self.kind == "sigmoid":
            # iFSQ ("Improving FSQ for Image Generation with 1 Line of Code"): 2 sigmoid(1.6 z) - 1
            # in place of tanh z, so that levels are nearly as likely as each other for normal z.
            unit = torch.sigmoid(1.6 * z)
        else:
            # The share of normal numbers below z: levels are equally likely for normal z.
            unit = torch.special.ndtr(z)
        return 2 * unit - 1

    def _shifted(self, z: Tensor) -> Tensor:
        """Return the paper's bound, of which appendix A.1 has the code.

        f(z) = tanh(z + s) (L - 1) / 2 - o, where o is 1/2 for even L, or else 0, and s makes
        f(0) = 0; here over floor(L / 2), as the paper's vectors are.
        """
        half = (self._levels - 1) * (1 + MARGIN) / 2
        offset = torch.where(self._levels % 2 == 0, 0.5, 0.0)
        shift = torch.atanh(offset / half)
        return (torch.tanh(z + shift) * half - offset) / (self._levels // 2)

    def nearest(self, x: Tensor) -> Tensor:
        """Return the codes of the nearest levels; beyond the outermost ones, those."""
        if self.kind == "shifted":
            # Sec. 3.1, z_hat = round(f(z)), counted from the lowest level.
            centre = self._levels // 2
            index = (x / self._scale * centre).round().long() + centre
        else:
            # Sec. 3.1 with shares of equal width: floor(L (x + 1) / 2), for odd and even L alike.
            index = ((x / self._scale + 1) / 2 * self._levels).floor().long()
        index = index.clamp(min=0).minimum(self._levels - 1)
        # Sec. 3.1, the index of a vector in the implied codebook: its levels in mixed radix.
        return (index * self._radix).sum(-1)

    def vectors_of(self, codes: Tensor) -> Tensor:
        """Return the level of each number: the middle of its share, or the paper's point."""
        index = codes[..., None] // self._radix % self._levels
        if self.kind == "shifted":
            centre = self._levels // 2
            return (index - centre) / centre * self._scale
        return ((2 * index.float() + 1) / self._levels - 1) * self._scale
