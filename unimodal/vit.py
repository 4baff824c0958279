"""A vision transformer makes a vector of each patch of an image: SigLIP, CLIP or DINOv2.

Dosovitskiy et al., "An Image is Worth 16x16 Words" (arXiv:2010.11929). What the families differ in
is a TowerNetwork's; the tests hold the vectors equal to those of their classes in transformers.
It has no buffers and no dropout.

    [class token,] patches + positions -> layers: x + attention(norm(x)), then x + mlp(norm(x))

Letters: B images, S pixels a side, n patches, t tokens, C width, H heads, d width of a head.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .tower import TowerNetwork

ACTIVATE: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
}


class Attention(nn.Module):
    """Attention of all tokens of an image to all."""

    def __init__(self, shape: TowerNetwork) -> None:
        super().__init__()
        width, bias = shape.width, shape.qkv_bias
        self.num_heads = shape.num_heads
        self.query = nn.Linear(width, width, bias=bias)
        self.key = nn.Linear(width, width, bias=bias)
        self.value = nn.Linear(width, width, bias=bias)
        self.output = nn.Linear(width, width)

    def forward(self, x_BtC: Tensor) -> Tensor:
        """Return the attention's output, (B, t, C)."""
        made = (one(x_BtC) for one in (self.query, self.key, self.value))
        q, k, v = (one.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for one in made)
        out_BHtd = F.scaled_dot_product_attention(q, k, v)
        return self.output(out_BHtd.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """An MLP of two layers; the first is twice as wide where it is gated, its gate first."""

    def __init__(self, shape: TowerNetwork) -> None:
        super().__init__()
        self.gated, self.activate = shape.gated, ACTIVATE[shape.activation]
        self.fc1 = nn.Linear(shape.width, shape.mlp_width * (1 + shape.gated))
        self.fc2 = nn.Linear(shape.mlp_width, shape.width)

    def forward(self, x_BtC: Tensor) -> Tensor:
        """Return the MLP's output, (B, t, C)."""
        if not self.gated:
            return self.fc2(self.activate(self.fc1(x_BtC)))
        gate, up = self.fc1(x_BtC).chunk(2, dim=-1)
        return self.fc2(F.silu(gate) * up)  # SwiGLU, arXiv:2002.05202, eq. 6


class Layer(nn.Module):
    """A Layer adds attention, then an MLP, to the residual stream; DINOv2 scales both."""

    def __init__(self, shape: TowerNetwork) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(shape.width, shape.norm_eps)
        self.attention = Attention(shape)
        self.norm2 = nn.LayerNorm(shape.width, shape.norm_eps)
        self.mlp = MLP(shape)
        self.is_scaled = shape.kind == "dinov2"
        if self.is_scaled:  # LayerScale, arXiv:2103.17239, eq. 4
            self.scale1 = nn.Parameter(torch.ones(shape.width))
            self.scale2 = nn.Parameter(torch.ones(shape.width))

    def forward(self, x_BtC: Tensor) -> Tensor:
        """Return the residual stream after this layer, (B, t, C)."""
        attended = self.attention(self.norm1(x_BtC))
        x_BtC = x_BtC + (attended * self.scale1 if self.is_scaled else attended)
        made = self.mlp(self.norm2(x_BtC))
        return x_BtC + (made * self.scale2 if self.is_scaled else made)


class VisionTransformer(nn.Module):
    """A VisionTransformer gives the vectors of an image's patches, in reading order."""

    def __init__(self, shape: TowerNetwork) -> None:
        super().__init__()
        is_clip, width = shape.kind == "clip", shape.width
        self.patch = nn.Conv2d(3, width, shape.patch, shape.patch, bias=not is_clip)
        self.has_class = shape.kind != "siglip"
        if self.has_class:
            self.class_token = nn.Parameter(torch.zeros(width))
        num_stored = shape.stored_side**2 + self.has_class
        self.positions = nn.Parameter(torch.zeros(num_stored, width))
        self.pre_norm = nn.LayerNorm(width, shape.norm_eps) if is_clip else nn.Identity()
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_layers))
        self.norm = nn.LayerNorm(width, shape.norm_eps) if shape.final_norm else nn.Identity()

    def forward(self, x_B3SS: Tensor) -> Tensor:
        """Return the vectors of the patches of normalised images, (B, n, C)."""
        x_BCss = self.patch(x_B3SS)
        x_BnC = x_BCss.flatten(2).mT + self._patch_positions(x_BCss.shape[2])
        if self.has_class:
            first_1C = (self.class_token + self.positions[0])[None]
            x_BnC = torch.cat((first_1C.expand(len(x_BnC), 1, -1), x_BnC), dim=1)
        x_BtC = self.pre_norm(x_BnC)
        for layer in self.layers:
            x_BtC = layer(x_BtC)
        return self.norm(x_BtC[:, int(self.has_class) :])

    def _patch_positions(self, side: int) -> Tensor:
        """Return the positions of side x side patches, (side^2, C), interpolated where others are
        stored, in float32.
        """
        stored_nC = self.positions[int(self.has_class) :]
        stored = math.isqrt(len(stored_nC))
        if side == stored:
            return stored_nC
        map_1Css = stored_nC.float().mT.unflatten(1, (stored, stored))[None]
        sized = F.interpolate(map_1Css, (side, side), mode="bicubic", align_corners=False)
        return sized[0].flatten(1).mT.to(stored_nC.dtype)
