"""Quantize what is left, again and again: residual quantization.

Lee et al., "Autoregressive Image Generation using Residual Quantization" (arXiv:2203.01941),
sec. 3.1; Zeghidour et al., SoundStream (arXiv:2107.03312), alg. 1. Each place has a code for each
stage, coarse to fine, and its vector is the sum of theirs.
"""

from typing import cast

import torch
from torch import Tensor, nn

from ..grid import Grid
from .codebook import Codebook
from .quantizer import Quantized, Quantizer, mean_losses, straight_through


class Residual(Quantizer):
    """Quantizes in stages, each with a codebook of its own; losses are means over stages."""

    def __init__(self, stages: list[Codebook]) -> None:
        """Take the codebooks, all of one kind and size, from coarse to fine."""
        super().__init__()
        self.stages = nn.ModuleList(stages)
        first = stages[0]
        self.width, self.num_codes, self.levels = first.width, first.num_codes, first.levels
        self.num_groups = len(stages)

    def _quantize(self, z_BhwD: Tensor) -> Quantized:
        x_BhwD = rest_BhwD = self._codebooks[0].bound(z_BhwD)
        codes, losses, vectors_BhwD = [], [], torch.zeros_like(x_BhwD)
        for stage in self._codebooks:
            step = stage.step(rest_BhwD)  # k_d = Q(r_(d-1)), r_d = r_(d-1) - e(k_d)
            if self.training:
                stage.learn(rest_BhwD.detach(), step.codes)
            rest_BhwD = rest_BhwD - step.vectors
            vectors_BhwD = vectors_BhwD + step.vectors  # z^ = sum of e(k_d)
            codes.append(step.codes.flatten(1))
            losses.append(step.losses)
        codes_BnG = torch.stack(codes, dim=-1)
        return Quantized(straight_through(vectors_BhwD, x_BhwD), codes_BnG, mean_losses(losses))

    def _decode(self, codes_BnG: Tensor, grid: Grid) -> Tensor:
        vectors_BnD = codes_BnG.new_zeros((), dtype=torch.float32)
        for stage, codes_Bn in zip(self._codebooks, codes_BnG.unbind(-1), strict=True):
            vectors_BnD = vectors_BnD + stage.vectors_of(codes_Bn)
        return vectors_BnD.unflatten(1, (grid.height, grid.width))

    @property
    def _codebooks(self) -> list[Codebook]:
        return cast(list[Codebook], list(self.stages))
