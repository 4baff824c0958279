"""One-dimensional tokens: learned queries that read the whole image (TiTok, arXiv 2406.07550).

1. A convolution turns each patch into a token; learned queries stand beside them (sec. 3.2).
2. A transformer without a mask mixes all; what it makes of the queries is the latents, (B, D, 1,
   K): a code has no place in the image, and 32 to 128 of them are enough for it.
3. The decoder sets as many mask tokens as there are patches, all alike but for their positions,
   beside the latents, mixes them by such a transformer, and paints patches from the mask tokens.

The number of patches is part of the weights, so images have one size.

Shapes: B images of C = 3 channels, H rows and W columns of pixels; P patches; K queries; D numbers
a latent vector; T = P + K tokens of W numbers each.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from ..grid import Grid
from .autoencoder import AutoencoderConfig, below
from .block import TokenNorm
from .canvas import Canvas

HEAD_WIDTH = 32  # numbers of an attention head


@dataclass(frozen=True)
class QueriesConfig(AutoencoderConfig):
    """The shape of an autoencoder with latent queries."""

    decoder_fields = ("decoder_layers", "pixel_width")

    num_queries: int = 32
    """Latents of an image, and so its codes."""
    height: int = 64
    width: int = 64
    """Of every image, in pixels."""
    patch: int = 8
    """Pixels a side of the transformers' image tokens."""
    model_width: int = 256
    """Numbers of a token, a multiple of 32."""
    encoder_layers: int = 4
    decoder_layers: int = 4
    pixel_width: int = 16
    """Channels of the decoder at full resolution."""

    @property
    def default_size(self) -> tuple[int, int]:
        """Return (height, width) in pixels: the one size that there is."""
        return self.height, self.width

    @property
    def num_patches(self) -> int:
        """Return how many patches an image has."""
        return (self.height // self.patch) * (self.width // self.patch)

    @property
    def encoding_numbers(self) -> int:
        """Return about how many numbers a latent vector's share of encoding holds at once."""
        num_tokens = self.num_patches + self.num_queries
        return num_tokens * 8 * self.model_width // self.num_queries

    def problems(self) -> list[str]:
        """Return what is wrong with the values, one sentence each."""
        found = below(
            self, num_queries=1, height=1, width=1, patch=1, model_width=HEAD_WIDTH,
            encoder_layers=1, decoder_layers=1, pixel_width=1,
        )  # fmt: skip
        if self.model_width % HEAD_WIDTH:
            found.append(f"model_width {self.model_width}: a multiple of {HEAD_WIDTH}")
        if self.patch > 0 and (self.height % self.patch or self.width % self.patch):
            found.append(
                f"width {self.width} and height {self.height}: multiples of the patch's"
                f" {self.patch}"
            )
        return found

    def grid_of(self, height: int, width: int) -> Grid:
        """Return the row of latents of an image; ValueError for another size than the one."""
        if (height, width) != (self.height, self.width):
            raise ValueError(
                f"{width} x {height} pixels: these queries read images of {self.width} x"
                f" {self.height} alone"
            )
        return Grid(1, self.num_queries)

    def size_of(self, grid: Grid) -> tuple[int, int]:
        """Return (height, width) in pixels of every image; ValueError for another grid."""
        if (grid.height, grid.width) != (1, self.num_queries):
            raise ValueError(
                f"{grid.height} x {grid.width} codes: an image is one row of {self.num_queries}"
                " codes"
            )
        return self.height, self.width

    def encoder(self, width: int) -> "Encoder":
        """Return the module images (B, 3, H, W) -> latents of `width` numbers (B, D, 1, K)."""
        return Encoder(self, width)

    def decoder(self, width: int) -> "Decoder":
        """Return the module quantized latents (B, D, 1, K) -> images, not bounded, (B, 3, H, W)."""
        return Decoder(self, width)


class Encoder(nn.Module):
    """Lets queries read an image."""

    def __init__(self, config: QueriesConfig, latent_width: int):
        super().__init__()
        width = config.model_width
        self.patches = nn.Conv2d(3, width, config.patch, stride=config.patch)
        self.positions = nn.Parameter(torch.empty(config.num_patches, width))
        self.queries = nn.Parameter(torch.empty(config.num_queries, width))
        self.layers = nn.Sequential(*(Layer(width) for _ in range(config.encoder_layers)))
        self.norm = TokenNorm(width)
        self.out = nn.Linear(width, latent_width)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Return latent vectors, not yet bounded: float (B, D, 1, K)."""
        patches_BPW = self.patches(images_BCHW).flatten(2).mT + self.positions
        queries_BKW = self.queries.expand(len(images_BCHW), -1, -1)
        x_BTW = self.layers(torch.cat([patches_BPW, queries_BKW], dim=1))
        z_BKD = self.out(self.norm(x_BTW[:, -len(self.queries) :]))
        return z_BKD.mT[:, :, None]


class Decoder(nn.Module):
    """Paints the patches of an image from its latents."""

    def __init__(self, config: QueriesConfig, latent_width: int):
        super().__init__()
        width = config.model_width
        self.grid = config.height // config.patch, config.width // config.patch
        self.enter = nn.Linear(latent_width, width)
        self.queries = nn.Parameter(torch.empty(config.num_queries, width))
        self.mask = nn.Parameter(torch.empty(1, width))
        self.positions = nn.Parameter(torch.empty(config.num_patches, width))
        self.layers = nn.Sequential(*(Layer(width) for _ in range(config.decoder_layers)))
        self.norm = TokenNorm(width)
        self.canvas = Canvas(width, config.pixel_width, config.patch)

    def forward(self, z_BD1K: torch.Tensor) -> torch.Tensor:
        """Return images, not yet bounded: float (B, 3, H, W)."""
        latents_BKW = self.enter(z_BD1K.flatten(2).mT) + self.queries
        masks_BPW = (self.mask + self.positions).expand(len(z_BD1K), -1, -1)
        x_BTW = self.layers(torch.cat([latents_BKW, masks_BPW], dim=1))
        x_BPW = self.norm(x_BTW[:, -len(self.positions) :])
        return self.canvas(x_BPW.mT.unflatten(2, self.grid))


class Layer(nn.Module):
    """A transformer layer without a mask, normalised first: Vaswani et al., arXiv 1706.03762, sec.
    3.1; Xiong et al., arXiv 2002.04745, fig. 1 (b).
    """

    def __init__(self, width: int):
        super().__init__()
        self.attention_norm, self.mlp_norm = TokenNorm(width), TokenNorm(width)
        self.qkv, self.mix = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x_BTW: torch.Tensor) -> torch.Tensor:
        """Return as many tokens as given, float (B, T, W)."""
        heads = self.qkv(self.attention_norm(x_BTW)).unflatten(-1, (3, -1, HEAD_WIDTH))
        q_BNTh, k_BNTh, v_BNTh = heads.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q_BNTh, k_BNTh, v_BNTh)
        x_BTW = x_BTW + self.mix(mixed.transpose(1, 2).flatten(2))
        return x_BTW + self.down(F.gelu(self.up(self.mlp_norm(x_BTW))))
