"""Patches of pixels as they are: an autoencoder without weights, for models of pixels themselves.

Shapes: B images of 3 channels, H rows and W columns of pixels; h rows and w columns of patches; D
numbers a patch, 3 for each of its pixels.
"""

from dataclasses import dataclass

from torch import nn

from .autoencoder import AutoencoderConfig, below


@dataclass(frozen=True)
class PixelsConfig(AutoencoderConfig):
    """The shape of patches of pixels."""

    patch: int = 8
    """Pixels a side of a patch."""

    @property
    def width(self) -> int:
        """Return the numbers of a patch."""
        return 3 * self.patch**2

    @property
    def encoding_numbers(self) -> int:
        """Return about how many numbers a latent vector's share of encoding holds at once."""
        return 2 * self.width

    def problems(self) -> list[str]:
        """Return what is wrong with the values, one sentence each."""
        return below(self, patch=1)

    def encoder(self, width: int) -> nn.Module:
        """Return the module images (B, 3, H, W) -> patches (B, D, h, w)."""
        assert width == self.width, f"a patch of {self.width} numbers, not {width}"
        return nn.PixelUnshuffle(self.patch)

    def decoder(self, width: int) -> nn.Module:
        """Return the module patches (B, D, h, w) -> images (B, 3, H, W)."""
        assert width == self.width, f"a patch of {self.width} numbers, not {width}"
        return nn.PixelShuffle(self.patch)
