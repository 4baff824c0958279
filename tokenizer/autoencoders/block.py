"""The residual block of convolutions, and a norm that looks at no other place."""

import torch
from torch import nn
from torch.nn import functional as F

from .convolution import Convolution

EPSILON = 1e-6  # beside a mean square


class Block(nn.Module):
    """Adds to x two 3 x 3 convolutions of x, normalised first.

    Residual: He et al., arXiv 1512.03385, eq. 1; `second` starts at zero, so a block begins as the
    identity.
    """

    def __init__(self, width: int, norm: nn.Module):
        super().__init__()
        self.norm = norm
        self.first = Convolution(width, width, 3, padding=1)
        self.second = Convolution(width, width, 3, padding=1)

    def forward(self, x_BChw: torch.Tensor) -> torch.Tensor:
        """Return as many channels as given, float (B, C, h, w)."""
        return x_BChw + self.second(F.silu(self.first(self.norm(x_BChw))))


class ChannelNorm(nn.Module):
    """Divides the channels of each place by their root mean square: Zhang and Sennrich, arXiv
    1910.07467, eq. 4.

    A norm over places would let a code depend on the whole image, and on its size.
    """

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x_BChw: torch.Tensor) -> torch.Tensor:
        """Return as many channels as given, float (B, C, h, w)."""
        x_BhwC = x_BChw.movedim(1, -1)
        return _divided(x_BhwC, self.weight).movedim(-1, 1)


class TokenNorm(nn.RMSNorm):
    """Divides a token by its root mean square."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return as many numbers as given, float (..., W)."""
        return _divided(x, self.weight)


def _divided(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return x over the root mean square of its last axis, times the weight, in x's dtype.

    Autocast leaves a norm alone, and torch fuses one whose tensors are all of one dtype.
    """
    return F.rms_norm(x, weight.shape, weight.to(x.dtype), EPSILON)
