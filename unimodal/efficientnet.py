"""EfficientNet-Lite0 as a vision tower: its first blocks, with what its norms learned fixed.

Norms are those of evaluation: a factor and a number for each channel, which are parameters here, so
that there are no buffers and no running means. tokenizer/backbone.py has the pretrained network.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from unimodal.tokenizer import backbone

from .tower import EFFICIENTNET, TowerNetwork

STEM_STRIDE = 2


class ChannelScale(nn.Module):
    """A ChannelScale is a batch norm in evaluation: x * weight + bias, by channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    @classmethod
    def of(cls, norm: nn.BatchNorm2d) -> "ChannelScale":
        """Return what a batch norm computes in evaluation."""
        made = cls(norm.num_features)
        assert norm.running_var is not None and norm.running_mean is not None, "it keeps both"
        with torch.no_grad():
            made.weight.copy_(norm.weight / (norm.running_var + norm.eps).sqrt())
            made.bias.copy_(norm.bias - norm.running_mean * made.weight)
        return made

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the scaled channels, (B, C, H, W)."""
        return x_BCHW * self.weight[:, None, None] + self.bias[:, None, None]


class EfficientNetLite0(nn.Module):
    """An EfficientNetLite0 gives the features of an image's patches, in reading order."""

    def __init__(self, num_blocks: int, network: Any = None) -> None:
        """Take the first blocks of `network`, whose norms become ChannelScales; None: of one whose
        weights are yet to be loaded.
        """
        super().__init__()
        scaled = _scale_of_width if network is None else ChannelScale.of
        network = _untrained() if network is None else network
        self.stem, self.stem_scale = network._conv_stem, scaled(network._bn0)
        self.activate = network._swish
        self.blocks = network._blocks[:num_blocks]
        for block in self.blocks:
            for name, child in [*block.named_children()]:
                if isinstance(child, nn.BatchNorm2d):
                    setattr(block, name, scaled(child))

    def forward(self, x_B3SS: Tensor) -> Tensor:
        """Return the features of normalised images, (B, n, C)."""
        x_BCss = self.activate(self.stem_scale(self.stem(x_B3SS)))
        for block in self.blocks:
            x_BCss = block(x_BCss)
        return x_BCss.flatten(2).mT


def _scale_of_width(norm: nn.BatchNorm2d) -> ChannelScale:
    return ChannelScale(norm.num_features)


def _untrained() -> Any:
    try:
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise ValueError(
            f"a tower of {EFFICIENTNET} needs a package ({error}): pip install --no-deps"
            " efficientnet-lite-pytorch"
        ) from error
    return EfficientNet.from_name(EFFICIENTNET)


def pretrained(layer: int) -> tuple[TowerNetwork, EfficientNetLite0]:
    """Return the pretrained network up to one of its five feature maps, -1 the last one.

    Raise ValueError where a package is missing, or there is no such map.
    """
    network: Any = backbone.load(EFFICIENTNET).network
    steps = [block._depthwise_conv.stride[0] for block in network._blocks]
    # A map ends before each halving, and behind the last block.
    ends = [*(at for at, step in enumerate(steps) if step > 1), len(steps)]
    if not -len(ends) <= layer <= -1:
        raise ValueError(
            f"layer {layer}: {EFFICIENTNET} has {len(ends)} feature maps, -1 the last one"
        )
    num_blocks = ends[layer]
    width = network._blocks[num_blocks - 1]._project_conv.out_channels
    patch = STEM_STRIDE * math.prod(steps[:num_blocks])
    shape = TowerNetwork(EFFICIENTNET, width, patch, num_blocks)
    return shape, EfficientNetLite0(num_blocks, network)
