"""The convolutional encoder and decoder of VQGAN, which published image tokenizers share.

Esser et al., "Taming Transformers for High-Resolution Image Synthesis" (arXiv 2012.09841), app. B,
tables 7 and 8. Each level holds residual blocks and perhaps attention; between levels the sides
halve or double. Modules have the names of the authors' code, so that stored weights find their
place; `decoder.up.N` counts from the finest level, as `encoder.down.N` does.

Letters: B images, C channels, H rows and W columns of a level, D numbers of a latent vector.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from .grid import Grid

NUM_GROUPS = 32  # of channels that are normalised together
Norm = Callable[[int], nn.Module]
"""From a number of channels to the layer that normalises them: forward(x, *condition)."""


@dataclass(frozen=True)
class PyramidConfig:
    """The shape of a tokenizer whose levels halve the sides; which grid belongs to which size."""

    levels: ClassVar[tuple[int, ...]] = ()
    """Codes are numbers of a table."""
    num_codes: int = 8192
    code_width: int = 256
    """Numbers of a code's vector."""
    latent_width: int = 256
    """Channels between the autoencoder and the 1 x 1 convolutions beside the codebook."""
    width: int = 128
    """Channels at full resolution, before multiplication."""
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    """Of the channels of each level, the finest first."""
    num_blocks: int = 2
    """Residual blocks of a level of the encoder; the decoder has one more."""
    attention: tuple[int, ...] = ()
    """Levels with attention after each block; 0 is the finest."""
    canvas: tuple[int, int] = (512, 512)
    """Height and width in pixels of the images that it was trained on."""
    most_side: int = 2048
    """The longest side in pixels: attention costs the square of the number of codes."""

    @property
    def patch(self) -> int:
        """Return how many pixels a side one code stands for."""
        return 2 ** (len(self.multipliers) - 1)

    @property
    def default_grid(self) -> Grid:
        """Return the grid of an image of the canvas' size."""
        return self.grid_of(*self.canvas)

    def grid_of(self, height: int, width: int) -> Grid:
        """Return the grid of an image of so many pixels; ValueError for sides that are no whole
        patches, or too long.
        """
        sides = height, width
        if not all(1 <= side <= self.most_side and side % self.patch == 0 for side in sides):
            raise ValueError(
                f"{width} x {height} pixels: both sides must be multiples of {self.patch}, from "
                f"{self.patch} to {self.most_side}"
            )
        return Grid(height // self.patch, width // self.patch)

    def size_of(self, grid: Grid) -> tuple[int, int]:
        """Return (height, width) in pixels of what the codes of a grid stand for."""
        return grid.height * self.patch, grid.width * self.patch

    def problems(self) -> list[str]:
        """Return what is wrong with the values, one sentence each."""
        least = ("num_codes", "code_width", "latent_width", "width", "num_blocks", "most_side")
        found = [
            f"{name} {getattr(self, name)}: at least 1" for name in least if getattr(self, name) < 1
        ]
        channels = [self.width * multiplier for multiplier in (1, *self.multipliers)]
        if not self.multipliers or any(count < 1 or count % NUM_GROUPS for count in channels):
            found.append(
                f"width {self.width} times multipliers {self.multipliers}: each level's channels "
                f"must be a multiple of {NUM_GROUPS}"
            )
        if any(not 0 <= level < len(self.multipliers) for level in self.attention):
            found.append(
                f"attention {self.attention}: levels from 0 to {len(self.multipliers) - 1}"
            )
        if found:
            return found
        try:
            self.grid_of(*self.canvas)
        except ValueError as error:
            found.append(f"canvas {self.canvas}: {error}")
        return found


def group_norm(width: int) -> nn.Module:
    """Return group norm: Wu and He, arXiv 1803.08494."""
    return nn.GroupNorm(NUM_GROUPS, width, eps=1e-6)


class ResnetBlock(nn.Module):
    """Adds to x two normalised 3 x 3 convolutions of x (He et al., arXiv 1512.03385, eq. 2)."""

    def __init__(self, width: int, out_width: int, norm: Norm = group_norm):
        super().__init__()
        self.norm1, self.conv1 = norm(width), nn.Conv2d(width, out_width, 3, padding=1)
        self.norm2, self.conv2 = norm(out_width), nn.Conv2d(out_width, out_width, 3, padding=1)
        if width != out_width:
            self.nin_shortcut = nn.Conv2d(width, out_width, 1)
        self.is_projected = width != out_width

    def forward(self, x_BCHW: torch.Tensor, *condition: torch.Tensor) -> torch.Tensor:
        """Return `out_width` channels of the same size."""
        y = self.conv1(F.silu(self.norm1(x_BCHW, *condition)))
        y = self.conv2(F.silu(self.norm2(y, *condition)))
        return y + (self.nin_shortcut(x_BCHW) if self.is_projected else x_BCHW)


class AttentionBlock(nn.Module):
    """Adds to x what each place sees of all others, by one head as wide as x."""

    def __init__(self, width: int, norm: Norm = group_norm):
        super().__init__()
        self.norm = norm(width)
        self.q, self.k, self.v = (nn.Conv2d(width, width, 1) for _ in range(3))
        self.proj_out = nn.Conv2d(width, width, 1)

    def forward(self, x_BCHW: torch.Tensor, *condition: torch.Tensor) -> torch.Tensor:
        """Return as many channels, of the same size."""
        y = self.norm(x_BCHW, *condition)
        q, k, v = (layer(y).flatten(2).transpose(1, 2) for layer in (self.q, self.k, self.v))
        # softmax(q k' / sqrt(C)) v: Vaswani et al., arXiv 1706.03762, eq. 1. An axis of one head
        # lets torch take the kernel that holds no (HW, HW) table.
        seen = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        return x_BCHW + self.proj_out(seen.transpose(1, 2).reshape(x_BCHW.shape))


class Downsample(nn.Module):
    """Halves the sides; zeros stand below and to the right alone."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Return as many channels, of half the height and width."""
        return self.conv(F.pad(x_BCHW, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Doubles the sides by repeating each place."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Return as many channels, of twice the height and width."""
        return self.conv(F.interpolate(x_BCHW, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """The blocks of one level, each followed by attention where the level has it."""

    def __init__(self, width: int, out_width: int, num: int, has_attention: bool, norm: Norm):
        super().__init__()
        widths = [width, *[out_width] * num]
        self.block = nn.ModuleList(ResnetBlock(*pair, norm) for pair in pairwise(widths))
        self.attn = nn.ModuleList(
            AttentionBlock(out_width, norm) for _ in range(num if has_attention else 0)
        )

    def forward(self, x: torch.Tensor, *condition: torch.Tensor) -> torch.Tensor:
        """Return `out_width` channels of the same size."""
        for at, block in enumerate(self.block):
            x = block(x, *condition)
            if len(self.attn):
                x = self.attn[at](x, *condition)
        return x


class DownLevel(Level):
    """A level of the encoder: after its blocks, the sides are halved, but for the last one's."""

    def __init__(self, *shape: Any, is_last: bool):
        super().__init__(*shape)
        self.downsample = None if is_last else Downsample(shape[1])

    def forward(self, x: torch.Tensor, *condition: torch.Tensor) -> torch.Tensor:
        """Return `out_width` channels."""
        x = super().forward(x, *condition)
        return x if self.downsample is None else self.downsample(x)


class UpLevel(Level):
    """A level of the decoder: after its blocks, the sides are doubled, but for the finest one's."""

    def __init__(self, *shape: Any, is_last: bool):
        super().__init__(*shape)
        self.upsample = None if is_last else Upsample(shape[1])

    def forward(self, x: torch.Tensor, *condition: torch.Tensor) -> torch.Tensor:
        """Return `out_width` channels."""
        x = super().forward(x, *condition)
        return x if self.upsample is None else self.upsample(x)


class Middle(nn.Module):
    """Two blocks at the coarsest level, with attention between them."""

    def __init__(self, width: int, has_attention: bool, norm: Norm):
        super().__init__()
        self.block_1 = ResnetBlock(width, width, norm)
        self.attn_1 = AttentionBlock(width, norm) if has_attention else None
        self.block_2 = ResnetBlock(width, width, norm)

    def forward(self, x: torch.Tensor, *condition: torch.Tensor) -> torch.Tensor:
        """Return as many channels, of the same size."""
        x = self.block_1(x, *condition)
        if self.attn_1 is not None:
            x = self.attn_1(x, *condition)
        return self.block_2(x, *condition)


class Encoder(nn.Module):
    """Turns images into latent vectors that are not yet quantized."""

    def __init__(self, config: PyramidConfig, middle_attention: bool = True):
        super().__init__()
        widths = [config.width * multiplier for multiplier in (1, *config.multipliers)]
        self.conv_in = nn.Conv2d(3, config.width, 3, padding=1)
        num, last = config.num_blocks, len(config.multipliers) - 1
        self.down = nn.ModuleList(
            DownLevel(*pair, num, at in config.attention, group_norm, is_last=at == last)
            for at, pair in enumerate(pairwise(widths))
        )
        self.mid = Middle(widths[-1], middle_attention, group_norm)
        self.norm_out = group_norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], config.latent_width, 3, padding=1)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Return latent vectors, float (B, D, h, w), of images float (B, 3, H, W) in [-1, 1]."""
        x = self.conv_in(images_BCHW)
        for level in self.down:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    """Turns latent vectors into images; `condition` goes to every norm."""

    def __init__(
        self, config: PyramidConfig, middle_attention: bool = True, norm: Norm = group_norm
    ):
        super().__init__()
        widths = [config.width * multiplier for multiplier in config.multipliers]
        self.conv_in = nn.Conv2d(config.latent_width, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1], middle_attention, norm)
        num, pairs = config.num_blocks + 1, pairwise([*widths, widths[-1]])
        self.up = nn.ModuleList(
            UpLevel(above, width, num, at in config.attention, norm, is_last=at == 0)
            for at, (width, above) in enumerate(pairs)
        )
        self.norm_out = norm(widths[0])
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, z_BDhw: torch.Tensor, *condition: torch.Tensor) -> torch.Tensor:
        """Return images, not yet bounded: float (B, 3, H, W)."""
        x = self.mid(self.conv_in(z_BDhw), *condition)
        for level in reversed(self.up):
            x = level(x, *condition)
        return self.conv_out(F.silu(self.norm_out(x, *condition)))
