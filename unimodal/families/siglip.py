"""The SigLIP vision encoder that Janus sees with: a vision transformer without a class token.

Zhai et al., arXiv:2303.15343 (SigLIP); Dosovitskiy et al., arXiv:2010.11929 (the network). Modules
have the names that transformers gives them, so that stored weights find their place.

Letters: P images, N patches of an image, D width, H heads, d head width.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from .janus_config import JanusConfig


class Embeddings(nn.Module):
    """Embeddings turn patches of pixels into vectors, and add one for each place."""

    def __init__(self, config: JanusConfig) -> None:
        super().__init__()
        self.patch_embedding = nn.Conv2d(3, config.width, config.patch, stride=config.patch)
        self.position_embedding = nn.Embedding(config.num_vectors, config.width)

    def forward(self, images_P3HW: Tensor) -> Tensor:
        """Return the vectors of patches in reading order, (P, N, D)."""
        patches_PND = self.patch_embedding(images_P3HW).flatten(2).transpose(1, 2)
        return patches_PND + self.position_embedding.weight


class Attention(nn.Module):
    """Attention of every patch to all patches of its image."""

    def __init__(self, config: JanusConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.q_proj, self.k_proj, self.v_proj, self.projection_layer = (
            nn.Linear(config.width, config.width) for _ in range(4)
        )

    def forward(self, x_PND: Tensor) -> Tensor:
        """Return the attention output, (P, N, D)."""
        q, k, v = (
            project(x_PND).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        out_PHNd = F.scaled_dot_product_attention(q, k, v)
        return self.projection_layer(out_PHNd.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """An Mlp widens each vector, and narrows it again behind a GELU."""

    def __init__(self, config: JanusConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.width, config.mlp_width)
        self.fc2 = nn.Linear(config.mlp_width, config.width)

    def forward(self, x_PND: Tensor) -> Tensor:
        """Return the output, of the same shape."""
        return self.fc2(F.gelu(self.fc1(x_PND)))


class Block(nn.Module):
    """A Block adds attention, then an MLP, each on a normalised input (arXiv:2010.11929, eq. 2)."""

    def __init__(self, config: JanusConfig) -> None:
        super().__init__()
        self.layer_norm1, self.layer_norm2 = (
            nn.LayerNorm(config.width, eps=config.norm_eps) for _ in range(2)
        )
        self.self_attn, self.mlp = Attention(config), Mlp(config)

    def forward(self, x_PND: Tensor) -> Tensor:
        """Return the vectors after this block, (P, N, D)."""
        x_PND = x_PND + self.self_attn(self.layer_norm1(x_PND))
        return x_PND + self.mlp(self.layer_norm2(x_PND))


class Encoder(nn.Module):
    """An Encoder is the blocks, one after another."""

    def __init__(self, config: JanusConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_layers))

    def forward(self, x_PND: Tensor) -> Tensor:
        """Return the vectors after all blocks, (P, N, D)."""
        for block in self.layers:
            x_PND = block(x_PND)
        return x_PND


class VisionModel(nn.Module):
    """A VisionModel maps images to a normalised vector for each patch."""

    def __init__(self, config: JanusConfig) -> None:
        super().__init__()
        self.embeddings, self.encoder = Embeddings(config), Encoder(config)
        self.post_layernorm = nn.LayerNorm(config.width, eps=config.norm_eps)

    def forward(self, images_P3HW: Tensor) -> Tensor:
        """Return the vectors (P, N, D) of images whose pixels are in [-1, 1]."""
        weight = self.embeddings.patch_embedding.weight
        return self.post_layernorm(self.encoder(self.embeddings(images_P3HW.to(weight.dtype))))


class Aligner(nn.Module):
    """An Aligner maps vectors of one width to another by `depth` layers with GELU between them."""

    def __init__(self, width: int, out_width: int, depth: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, out_width)
        self.hidden_layers = nn.ModuleList(nn.Linear(out_width, out_width) for _ in range(1, depth))

    def forward(self, x: Tensor) -> Tensor:
        """Return the mapped vectors (..., out_width)."""
        x = self.fc1(x)
        for layer in self.hidden_layers:
            x = layer(F.gelu(x))
        return x
