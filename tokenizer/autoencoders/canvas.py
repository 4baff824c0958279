"""The end of a decoder: features of patches become pixels, and a convolution joins the patches."""

import torch
from torch import nn
from torch.nn import functional as F

from .convolution import Convolution


class Canvas(nn.Module):
    """Paints each patch from the features of its place; few channels are at full resolution.

    Channels become pixels by sub-pixel convolution: Shi et al., arXiv 1609.05158, eq. 4.
    """

    def __init__(self, width: int, pixel_width: int, patch: int, shuffle: nn.Module | None = None):
        """`shuffle` turns pixel_width * patch**2 channels into patches of pixel_width channels;
        None: each channel is a pixel.
        """
        super().__init__()
        self.paint = Convolution(width, pixel_width * patch**2, 1)
        self.shuffle = nn.PixelShuffle(patch) if shuffle is None else shuffle
        self.join = Convolution(pixel_width, pixel_width, 3, padding=1)
        self.out = Convolution(pixel_width, 3, 3, padding=1)

    def forward(self, x_BChw: torch.Tensor) -> torch.Tensor:
        """Return images, not bounded: float (B, 3, H, W)."""
        x = self.shuffle(self.paint(x_BChw))
        x = x + self.join(F.silu(x))
        return self.out(F.silu(x))
