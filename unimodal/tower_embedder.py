"""The TowerEmbedder lets images that are given enter as soft vectors of a vision tower.

A projector of two layers makes them of the tower's features (LLaVA-1.5, arXiv:2310.03744, sec.
3.3). The tower itself stays in evaluation mode; unless it is trained, no gradient enters it.

Letters: B rows, T tokens, N tokens of all rows, S images, n patches, M patches of all images, C
width of the tower, D width of the transformer.
"""

from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .architecture import Architecture
from .efficientnet import EfficientNetLite0
from .embedder import ImageEmbedder, ModelInput
from .products import Linear
from .sequence import placed_spans
from .tower import EFFICIENTNET, TowerNetwork
from .vit import VisionTransformer


class Projector(nn.Module):
    """A Projector makes a soft vector of a patch's features."""

    def __init__(self, width: int, model_width: int) -> None:
        super().__init__()
        self.first = Linear(width, model_width)
        self.second = Linear(model_width, model_width)

    def forward(self, features_SnC: Tensor) -> Tensor:
        """Return the soft vectors, (S, n, D)."""
        return self.second(F.gelu(self.first(features_SnC)))


class TowerEmbedder(ImageEmbedder):
    """A TowerEmbedder stands beside the embedder of the image head, which takes care of codes."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        assert architecture.image.tower is not None, "an architecture with a tower has one"
        self.tower = architecture.image.tower
        self.network = network_of(self.tower.network).requires_grad_(self.tower.trained).eval()
        width = architecture.transformer.width
        self.projector = Projector(self.tower.network.width, width)

    def train(self, mode: bool = True) -> "TowerEmbedder":
        """Set the mode of the projector; the tower stays in evaluation mode."""
        super().train(mode)
        self.network.eval()
        return self

    def see(self, views: Sequence[np.ndarray]) -> Tensor:
        """Return the soft vectors, (S, n, D), of images as Tower.view returns them."""
        weight = self.projector.first.weight
        pixels_SHW3 = torch.from_numpy(np.stack(views)).to(weight.device)
        about = (self.tower.mean, self.tower.std)
        mean_3, std_3 = (torch.tensor(one, device=weight.device) for one in about)
        x_SHW3 = ((pixels_SHW3 / 255 - mean_3) / std_3).to(weight.dtype)
        with nullcontext() if self.tower.trained else torch.no_grad():
            features_SnC = self.network(x_SHW3.permute(0, 3, 1, 2).contiguous())
        return self.projector(features_SnC.to(weight.dtype))

    def forward(self, x_BTD: Tensor, tokens: ModelInput) -> Tensor:
        """Return x_BTD with the soft vectors of given images in their places.

        In training all weights are used whatever the batch holds, so that no rank waits for another
        one's: without an image an empty one is seen, and nothing is done with it.
        """
        spans = [(row, one) for row, one in placed_spans(tokens.spans) if one.pixels is not None]
        if not spans and not self.training:
            return x_BTD
        side, T = self.tower.side, x_BTD.shape[1]
        views = [span.pixels for _, span in spans if span.pixels is not None]
        blank = np.zeros((side, side, 3), np.uint8)
        soft_SnD = self.see(views or [blank])[: len(views)]
        places = [range(row * T + span.start, row * T + span.stop) for row, span in spans]
        at_M = torch.tensor([place for one in places for place in one], dtype=torch.int64)
        x_ND = x_BTD.flatten(0, 1).index_copy(
            0, at_M.to(x_BTD.device), soft_SnD.flatten(0, 1).to(x_BTD.dtype)
        )
        return x_ND.view(x_BTD.shape)


def network_of(shape: TowerNetwork) -> nn.Module:
    """Return a tower's network, whose weights are yet to be loaded."""
    if shape.kind == EFFICIENTNET:
        return EfficientNetLite0(shape.num_layers)
    return VisionTransformer(shape)
