"""How different two images look: the distance of a vision backbone's features.

Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric" (LPIPS, arXiv
1801.03924), eq. 1, with all learned weights w_l at one: so any backbone will do.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import backbone


@dataclass(frozen=True)
class PerceptualConfig:
    """Configure the perceptual loss."""

    weight: float = 1.0
    model: str = backbone.EFFICIENTNET
    """A Hugging Face vision model, by name or local path, or `efficientnet-lite0`."""

    def problems(self) -> list[str]:
        """Return what is wrong with the values, one sentence each."""
        return [] if self.weight > 0 else [f"weight {self.weight}: above 0"]


class Perceptual(nn.Module):
    """The distance of images as a backbone sees them."""

    def __init__(self, config: PerceptualConfig) -> None:
        """Load the backbone; ValueError where it cannot be had."""
        super().__init__()
        self.backbone = backbone.load(config.model)

    def forward(self, images_BCHW: Tensor, originals_BCHW: Tensor) -> Tensor:
        """Return the mean over layers, images and places, a scalar from 0 (equal) to 4.

        Both are float (B, 3, H, W) in [-1, 1]; gradients pass to the first.
        """
        with torch.no_grad():
            expected = self.backbone(originals_BCHW)
        # Eq. 1: the squared distance of features of unit length in the channel dimension.
        return torch.stack([
            (F.normalize(a_BChw, dim=1) - F.normalize(b_BChw, dim=1)).square().sum(1).mean()
            for a_BChw, b_BChw in zip(self.backbone(images_BCHW), expected, strict=True)
        ]).mean()  # fmt: skip
