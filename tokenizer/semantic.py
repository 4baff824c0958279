"""Let codes say what an image shows: a vision backbone's features are told from them.

A tokenizer that is trained to reconstruct alone keeps edges and colours, and a language model that
reads its codes understands little. Here a small head must tell, from the quantized vectors, the
features that a frozen backbone has at the same place, by the cosine of the two: as VQ-KD does
(BEiT v2, arXiv 2208.06366, eq. 1), beside the reconstruction and not in its place.
"""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import backbone
from .initial import normal


@dataclass(frozen=True)
class SemanticConfig:
    """Configure the semantic loss."""

    weight: float = 1.0
    model: str = backbone.EFFICIENTNET
    """A Hugging Face vision model, by name or local path, or `efficientnet-lite0`."""
    width: int = 512
    """Channels of the head between latents and features."""

    def problems(self) -> list[str]:
        """Return what is wrong with the values, one sentence each."""
        found = [] if self.weight > 0 else [f"weight {self.weight}: above 0"]
        return found if self.width > 0 else [*found, f"width {self.width}: at least 1"]


class Semantic(nn.Module):
    """A backbone, and a head that tells its features from quantized vectors."""

    def __init__(self, config: SemanticConfig, latent_width: int, seed: int) -> None:
        """Load the backbone, ValueError where it cannot be had, and draw the head."""
        super().__init__()
        self.backbone = backbone.load(config.model)
        with torch.no_grad():
            features = self.backbone(torch.zeros(1, 3, 64, 64))[-1].shape[1]
        self.head = nn.Sequential(
            nn.Linear(latent_width, config.width), nn.GELU(), nn.Linear(config.width, features)
        )
        with torch.no_grad():
            for name, one in self.head.named_parameters():
                std = prod(one.shape[1:]) ** -0.5 if one.ndim > 1 else 0.0
                one.copy_(normal(seed, f"semantic.{name}", tuple(one.shape), std))

    def forward(self, vectors_BhwD: Tensor, originals_BCHW: Tensor) -> Tensor:
        """Return one minus the mean cosine, a scalar from 0 to 2.

        Vectors that are a row (1-D tokens) have no place: they tell the image's mean feature.
        """
        with torch.no_grad():
            features_BChw = self.backbone(originals_BCHW)[-1]
        told_BChw = self.head(vectors_BhwD).movedim(-1, 1)
        is_row = vectors_BhwD.shape[1] == 1 < vectors_BhwD.shape[2]
        size = (1, 1) if is_row else _smaller(told_BChw, features_BChw)
        told_BChw = F.adaptive_avg_pool2d(told_BChw, size)
        features_BChw = F.adaptive_avg_pool2d(features_BChw, size)
        return 1 - F.cosine_similarity(told_BChw, features_BChw, dim=1).mean()


def _smaller(a_BChw: Tensor, b_BChw: Tensor) -> tuple[int, int]:
    """Return the smaller (height, width) of two maps: means of places are told, none invented."""
    return min(a_BChw.shape[2], b_BChw.shape[2]), min(a_BChw.shape[3], b_BChw.shape[3])
