"""Patches that are encoded each for itself, and decoded together.

1. The encoder sees each patch with a frame of `margin` pixels around it and nothing else, so a code
   says what is in its place and equal patches have equal codes: that is what makes codes easy to
   predict.
2. The decoder mixes neighbouring latents by residual 3 x 3 convolutions, and makes patches of
   pixels that a last convolution at full resolution joins.

Shapes: B images of C = 3 channels, H rows and W columns of pixels; h rows and w columns of patches;
D numbers a latent vector.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from .autoencoder import AutoencoderConfig, below
from .block import Block
from .canvas import Canvas
from .convolution import Convolution

NUM_GROUPS = 8  # of channels that are normalised together: Wu and He, arXiv 1803.08494


@dataclass(frozen=True)
class PatchesConfig(AutoencoderConfig):
    """The shape of an autoencoder that encodes each patch for itself."""

    decoder_fields = ("decoder_width", "num_blocks", "pixel_width")

    patch: int = 8
    """Pixels a side that one code stands for."""
    margin: int = 2
    """Pixels around a patch that its code may also know of."""
    encoder_width: int = 256
    decoder_width: int = 128
    num_blocks: int = 4
    """Residual blocks of the decoder."""
    pixel_width: int = 16
    """Channels at full resolution."""

    @property
    def encoding_numbers(self) -> int:
        """Return about how many numbers a latent vector's share of encoding holds at once."""
        return 3 * self.encoder_width + 3 * (self.patch + 2 * self.margin) ** 2

    def problems(self) -> list[str]:
        """Return what is wrong with the values, one sentence each."""
        found = below(self, patch=1, encoder_width=1, decoder_width=8, num_blocks=0, pixel_width=1)
        if self.decoder_width % NUM_GROUPS:
            found.append(f"decoder_width {self.decoder_width}: a multiple of {NUM_GROUPS}")
        if not 0 <= self.margin <= self.patch:
            found.append(f"margin {self.margin}: from 0 to the patch's {self.patch}")
        return found

    def encoder(self, width: int) -> "Encoder":
        """Return the module images (B, 3, H, W) -> latents of `width` numbers (B, D, h, w)."""
        return Encoder(self, width)

    def decoder(self, width: int) -> "Decoder":
        """Return the module quantized latents (B, D, h, w) -> images, not bounded, (B, 3, H, W)."""
        return Decoder(self, width)


class Encoder(nn.Module):
    """Turns each patch, with its margin and nothing else, into a latent vector."""

    def __init__(self, config: PatchesConfig, latent_width: int):
        super().__init__()
        width = config.encoder_width
        self.patches = nn.Conv2d(
            3, width, config.patch + 2 * config.margin, stride=config.patch, padding=config.margin
        )
        self.hidden = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(2))
        self.out = nn.Conv2d(width, latent_width, 1)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Return latent vectors, not yet bounded: float (B, D, h, w)."""
        x = self.patches(images_BCHW)
        for layer in self.hidden:
            x = x + layer(F.silu(x))
        return self.out(F.silu(x))


class Decoder(Canvas):
    """Turns quantized vectors into images."""

    def __init__(self, config: PatchesConfig, latent_width: int):
        width = config.decoder_width
        super().__init__(width, config.pixel_width, config.patch)
        self.enter = Convolution(latent_width, width, 1)
        self.blocks = nn.ModuleList(
            Block(width, nn.GroupNorm(NUM_GROUPS, width)) for _ in range(config.num_blocks)
        )

    def forward(self, z_BDhw: torch.Tensor) -> torch.Tensor:
        """Return images, not yet bounded: float (B, 3, H, W)."""
        x = self.enter(z_BDhw)
        for block in self.blocks:
            x = block(x)
        return super().forward(x)
