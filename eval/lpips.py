"""LPIPS: how different two images look, as VGG16 sees them.

Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric"
(arXiv:1801.03924), version 0.1, with VGG16. Two files of weights are read, both by path:

1. VGG16 as torchvision publishes it (`vgg16-397923af.pth`);
2. LPIPS' own linear weights, as its package has them (`lpips/weights/v0.1/vgg.pth`).

tokenizer/perceptual.py is a loss in the same spirit, on any backbone; this is the measure that
papers report.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Convolutions of VGG16 by their channels; each row is followed by what LPIPS looks at, and a pool.
STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
MEAN, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of pixels in [-1, 1]
EPSILON = 1e-10  # beside the length of a vector, as in LPIPS' own code


class Lpips(nn.Module):
    """The distance of images, 0 for equal ones."""

    mean_C11: Tensor
    scale_C11: Tensor

    def __init__(self, vgg: Path, linear: Path) -> None:
        """Read the weights; ValueError where a file is missing, or holds others."""
        super().__init__()
        widths = [stage[-1] for stage in STAGES]
        self.features = nn.ModuleDict(dict(_convolutions()))
        self.linear = nn.ParameterList(torch.empty(1, width, 1, 1) for width in widths)
        for name, values in (("mean_C11", MEAN), ("scale_C11", SCALE)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)
        stored = read_weights(vgg)
        wanted = {f"features.{name}" for name in self.features.state_dict()}
        layers = {name: value for name, value in stored.items() if name in wanted}
        lines = list(read_weights(linear).values())
        try:
            self.features.load_state_dict(
                {name.removeprefix("features."): value for name, value in layers.items()}
            )
            self.linear.load_state_dict({str(at): one for at, one in enumerate(lines)})
        except RuntimeError as error:
            raise ValueError(f"{vgg} and {linear} are no weights of LPIPS: {error}") from error
        self.eval().requires_grad_(False)

    def forward(self, first_BCHW: Tensor, second_BCHW: Tensor) -> Tensor:
        """Return the distance of each pair, float32 (B,); images are float in [-1, 1].

        Eq. 1: d = sum_l mean_hw |w_l * (y_l - y0_l)|^2, y of unit length in the channels; the
        linear weights are w^2.
        """
        pairs = zip(self._seen(first_BCHW), self._seen(second_BCHW), self.linear, strict=True)
        return torch.stack([
            F.conv2d((_unit(a) - _unit(b)).square(), weight_1C11).mean((1, 2, 3))
            for a, b, weight_1C11 in pairs
        ]).sum(0)  # fmt: skip

    def _seen(self, images_BCHW: Tensor) -> Iterator[Tensor]:
        x, at = (images_BCHW - self.mean_C11) / self.scale_C11, iter(self.features.values())
        for number, stage in enumerate(STAGES):
            x = F.max_pool2d(x, 2) if number else x
            for _ in stage:
                x = F.relu(next(at)(x))
            yield x


def _unit(x_BChw: Tensor) -> Tensor:
    return x_BChw / (x_BChw.square().sum(1, keepdim=True).sqrt() + EPSILON)


def _convolutions() -> Iterator[tuple[str, nn.Conv2d]]:
    """Yield the convolutions by their numbers in torchvision's VGG16, where ReLUs and pools count
    too.
    """
    number, channels = 0, 3
    for stage in STAGES:
        for width in stage:
            yield str(number), nn.Conv2d(channels, width, 3, padding=1)
            number, channels = number + 2, width
        number += 1


def read_weights(path: Path) -> dict[str, Any]:
    """Return the tensors of a published .pth file; ValueError where it is missing or another."""
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file of weights")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever torch and the unpickler raise for a foreign file
        # Their words advise to run what else the file holds.
        raise ValueError(
            f"{path} is no file of weights alone ({type(error).__name__}): give the published one"
        ) from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds a {type(found).__name__}, not a table of weights")
    return found
