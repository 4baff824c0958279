"""Cut a vector into parts, and quantize each by itself: multi-group quantization.

As in product quantization (Jegou et al., 2011) and the multi-codebook quantization of UniTok
(arXiv:2502.20321). With residual quantizers, the codes of a place are those of all stages
of the first part, then those of the second, and so on.
"""

from typing import cast

import torch
from torch import Tensor, nn

from ..grid import Grid
from .quantizer import Quantized, Quantizer, mean_losses


class Groups(Quantizer):
    """Quantizes equal parts of a vector; losses are means over parts."""

    def __init__(self, parts: list[Quantizer]) -> None:
        """Take the quantizers of the parts, all of one kind and size, from the first number on."""
        super().__init__()
        self.parts = nn.ModuleList(parts)
        first = parts[0]
        self.num_codes, self.levels = first.num_codes, first.levels
        self.width = len(parts) * first.width
        self.num_groups = len(parts) * first.num_groups

    def _quantize(self, z_BhwD: Tensor) -> Quantized:
        pieces = z_BhwD.chunk(len(self.parts), dim=-1)
        made = [part(piece) for part, piece in zip(self._parts, pieces, strict=True)]
        return Quantized(
            torch.cat([one.vectors for one in made], dim=-1),
            torch.cat([one.codes for one in made], dim=-1),
            mean_losses([one.losses for one in made]),
        )

    def _decode(self, codes_BnG: Tensor, grid: Grid) -> Tensor:
        pieces = codes_BnG.chunk(len(self.parts), dim=-1)
        parts = zip(self._parts, pieces, strict=True)
        return torch.cat([part.decode(piece, grid) for part, piece in parts], dim=-1)

    @property
    def _parts(self) -> list[Quantizer]:
        return cast(list[Quantizer], list(self.parts))
