"""A trained table of code vectors: the code of a vector is the nearest one's number.

Van den Oord et al., "Neural Discrete Representation Learning" (arXiv 1711.00937), eq. 1 and 2.
Arithmetic is float32 whatever autocast says: half precision confuses neighbouring codes.
"""

import torch
from torch import nn
from torch.nn import functional as F

ROWS = 1024  # of vectors that are compared with all codes at once: a table of 128 MB for 2^15 codes


class Codebook(nn.Module):
    """A frozen codebook; with `is_normalised`, vectors and codes are compared by their angle."""

    def __init__(self, num_codes: int, width: int, is_normalised: bool = False):
        super().__init__()
        self.embedding = nn.Embedding(num_codes, width)
        self.is_normalised = is_normalised

    @property
    def table_VD(self) -> torch.Tensor:
        """Return the vectors that codes stand for, float32 (V, D)."""
        return self._scaled(self.embedding.weight.float())

    def nearest(self, z_nD: torch.Tensor) -> torch.Tensor:
        """Return the codes of vectors, int64 (n,)."""
        with torch.autocast(z_nD.device.type, enabled=False):
            table_VD = self.table_VD
            squares_V = table_VD.square().sum(1)
            codes = [
                # Eq. 1: the k with the least |z - e_k|^2 = |z|^2 + |e_k|^2 - 2 z e_k.
                (part.square().sum(1, keepdim=True) + squares_V - 2 * (part @ table_VD.T)).argmin(1)
                for part in self._scaled(z_nD.float()).split(ROWS)
            ]
        return torch.cat(codes)

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        """Return the vectors of codes, float32 (..., D).

        Codes are int64 (...); ValueError for one outside 0 .. num_codes - 1.
        """
        num_codes = self.embedding.num_embeddings
        if codes.numel() and not (0 <= codes.min() and codes.max() < num_codes):
            raise ValueError(f"codes {codes.min()}..{codes.max()} outside 0..{num_codes - 1}")
        return self._scaled(self.embedding(codes).float())

    def _scaled(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return the vectors divided by their length where angles are compared: Yu et al.,
        "Vector-quantized Image Modeling with Improved VQGAN" (arXiv 2110.04627), sec. 3.2.
        """
        return F.normalize(vectors, dim=-1) if self.is_normalised else vectors
