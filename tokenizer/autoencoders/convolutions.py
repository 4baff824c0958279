"""A pyramid of convolutions: f8, where a code stands for 8 x 8 pixels, or f16.

1. A stem without weights turns each 4 x 4 pixels into 16 numbers a channel: a two-level Haar
   transform, or the pixels as they are. So no convolution of the encoder is at full resolution,
   where VQGAN (arXiv 2012.09841) and its kin spend most of their time.
2. Residual blocks at 1/4, 1/8 (and 1/16) of the resolution, halved by 2 x 2 convolutions.
3. The decoder goes the same way back, doubled by sub-pixel convolutions; a few channels at full
   resolution join the 4 x 4 pixels (canvas.py).

Norms look at the channels of one place alone, so a code depends on what is within the kernels'
reach and not on the size of the image.

Shapes: B images of C = 3 channels, H rows and W columns of pixels; h rows and w columns of latents;
D numbers a latent vector.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from .autoencoder import AutoencoderConfig, below
from .block import Block, ChannelNorm
from .canvas import Canvas

STEM = 4  # pixels a side that the stem takes together
CHANNELS_LAST = torch.channels_last  # in which convolutions on a CPU are fastest


@dataclass(frozen=True)
class ConvolutionsConfig(AutoencoderConfig):
    """The shape of a convolutional autoencoder."""

    decoder_fields = ("decoder_blocks", "pixel_width")

    factor: Literal[8, 16] = 8
    """Pixels a side that one code stands for."""
    stem: Literal["haar", "patch"] = "haar"
    """What 4 x 4 pixels become first: Haar coefficients, or themselves."""
    widths: tuple[int, ...] = (64, 256)
    """Channels at 1/4, 1/8, ... of the resolution, down to 1/factor."""
    encoder_blocks: tuple[int, ...] = (1, 2)
    """Residual blocks of the encoder at each of them."""
    decoder_blocks: tuple[int, ...] = (1, 3)
    """Residual blocks of the decoder at each of them, in the same order."""
    pixel_width: int = 16
    """Channels of the decoder at full resolution."""

    @property
    def patch(self) -> int:
        """Return how many pixels a side of an image must be a multiple of."""
        return self.factor

    @property
    def encoding_numbers(self) -> int:
        """Return about how many numbers a latent vector's share of encoding holds at once."""
        return 3 * self.factor**2 + 3 * self.widths[0] * (self.factor // STEM) ** 2

    def problems(self) -> list[str]:
        """Return what is wrong with the values, one sentence each."""
        found = below(self, pixel_width=1)
        count = self.factor.bit_length() - STEM.bit_length() + 1
        for name, least in {"widths": 1, "encoder_blocks": 0, "decoder_blocks": 0}.items():
            values = getattr(self, name)
            if len(values) != count or min(values) < least:
                scales = ", ".join(f"1/{STEM << at}" for at in range(count))
                found.append(
                    f"{name} {list(values)}: factor {self.factor} needs {count} numbers (at "
                    f"{scales} of the resolution), each at least {least}"
                )
        return found

    def encoder(self, width: int) -> "Encoder":
        """Return the module images (B, 3, H, W) -> latents of `width` numbers (B, D, h, w)."""
        return Encoder(self, width)

    def decoder(self, width: int) -> "Decoder":
        """Return the module quantized latents (B, D, h, w) -> images, not bounded, (B, 3, H, W)."""
        return Decoder(self, width)


class Encoder(nn.Module):
    """Turns images into latent vectors."""

    def __init__(self, config: ConvolutionsConfig, latent_width: int):
        super().__init__()
        widths = config.widths
        self.stem = Stem(config.stem)
        self.enter = nn.Conv2d(3 * STEM**2, widths[0], 3, padding=1)
        self.stages = nn.ModuleList(map(_stage, widths, config.encoder_blocks))
        self.down = nn.ModuleList(
            nn.Conv2d(finer, coarser, 2, stride=2)
            for finer, coarser in zip(widths, widths[1:], strict=False)
        )
        self.norm = ChannelNorm(widths[-1])
        self.out = nn.Conv2d(widths[-1], latent_width, 1)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Return latent vectors, not yet bounded: float (B, D, h, w)."""
        x = self.enter(self.stem(images_BCHW.contiguous(memory_format=CHANNELS_LAST)))
        x = self.stages[0](x)
        for down, stage in zip(self.down, list(self.stages)[1:], strict=True):
            x = stage(down(x))
        return self.out(F.silu(self.norm(x)))


class Decoder(nn.Module):
    """Turns quantized vectors into images."""

    def __init__(self, config: ConvolutionsConfig, latent_width: int):
        super().__init__()
        widths = config.widths
        self.enter = nn.Conv2d(latent_width, widths[-1], 3, padding=1)
        self.stages = nn.ModuleList(map(_stage, widths[::-1], config.decoder_blocks[::-1]))
        self.up = nn.ModuleList(
            nn.Sequential(nn.Conv2d(coarser, 4 * finer, 1), nn.PixelShuffle(2))
            for coarser, finer in zip(widths[::-1], widths[-2::-1], strict=False)
        )
        self.norm = ChannelNorm(widths[0])
        self.canvas = Canvas(widths[0], config.pixel_width, STEM, Unstem(config.stem))

    def forward(self, z_BDhw: torch.Tensor) -> torch.Tensor:
        """Return images, not yet bounded: float (B, 3, H, W)."""
        x = self.stages[0](self.enter(z_BDhw.contiguous(memory_format=CHANNELS_LAST)))
        for up, stage in zip(self.up, list(self.stages)[1:], strict=True):
            x = stage(up(x))
        return self.canvas(F.silu(self.norm(x)))


class Stem(nn.Module):
    """Turns each 4 x 4 pixels of each channel into 16 numbers: (B, C, H, W) -> (B, 16 C, h, w)."""

    basis_kP: torch.Tensor

    def __init__(self, kind: Literal["haar", "patch"]):
        super().__init__()
        basis_kP = haar_basis() if kind == "haar" else torch.eye(STEM**2)
        self.register_buffer("basis_kP", basis_kP, persistent=False)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Return the numbers of each channel, the coarsest first, behind one another."""
        return _product(F.pixel_unshuffle(images_BCHW, STEM), self.basis_kP.T)


class Unstem(Stem):
    """Undoes a Stem: (B, 16 C, h, w) -> (B, C, H, W)."""

    def forward(self, x_BChw: torch.Tensor) -> torch.Tensor:
        """Return the pixels of each channel; the basis is orthonormal."""
        return F.pixel_shuffle(_product(x_BChw, self.basis_kP), STEM)


def _product(x_BChw: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Multiply each 16 channels of each place by a matrix (16, 16)."""
    x_BhwGk = x_BChw.movedim(1, -1).unflatten(-1, (-1, STEM**2))
    return (x_BhwGk @ matrix).flatten(-2).movedim(-1, 1)


def haar_basis() -> torch.Tensor:
    """Return the two-level Haar basis of 4 x 4 pixels as orthonormal rows, float32 (16, 16).

    Mallat, IEEE PAMI 11 (1989), 674-693, sec. 3: sums and differences of 2 x 2 pixels, and of the
    four sums again. The first four rows are the coarse level's, the sum of all pixels first.
    """
    line = torch.tensor([[1.0, 1.0], [1.0, -1.0]]) / 2**0.5
    bands = [torch.outer(rows, columns) for rows in line for columns in line]
    coarse = [torch.kron(band, bands[0]) for band in bands]
    places = torch.eye(4).reshape(4, 2, 2)
    fine = [torch.kron(place, band) for band in bands[1:] for place in places]
    return torch.stack([*coarse, *fine]).reshape(STEM**2, STEM**2)


def _stage(width: int, num_blocks: int) -> nn.Sequential:
    return nn.Sequential(*(Block(width, ChannelNorm(width)) for _ in range(num_blocks)))
