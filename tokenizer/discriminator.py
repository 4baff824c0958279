"""A network that tells reconstructions from originals, and what a tokenizer learns of it.

Esser et al., "Taming Transformers for High-Resolution Image Synthesis" (VQGAN, arXiv 2012.09841),
sec. 3.1: a discriminator of patches (Isola et al., arXiv 1611.07004, sec. 3.2), the hinge loss, and
a weight that follows the reconstruction's gradient. Norms look at one image alone, so that any
number of processes learns the same.
"""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from .initial import normal

NUM_GROUPS = 8  # of channels that are normalised together


@dataclass(frozen=True)
class AdversarialConfig:
    """Configure the adversarial loss."""

    weight: float = 0.8
    """Times the adaptive weight."""
    start_step: int = 2000
    """Before it the discriminator neither learns nor teaches."""
    width: int = 64
    """Channels after the first layer of the discriminator, a multiple of 8."""
    num_layers: int = 3
    """Layers that halve the resolution."""
    lr: float = 2e-4
    """Of the discriminator's own optimizer, AdamW with betas 0.5 and 0.9; the schedule scales it as
    it scales the tokenizer's."""

    def problems(self) -> list[str]:
        """Return what is wrong with the values, one sentence each."""
        found = [f"{n} {getattr(self, n)}: above 0" for n in ("weight", "lr")
                 if not getattr(self, n) > 0]  # fmt: skip
        if self.start_step < 0:
            found.append(f"start_step {self.start_step}: at least 0")
        if self.width < NUM_GROUPS or self.width % NUM_GROUPS:
            found.append(f"width {self.width}: a multiple of {NUM_GROUPS}")
        if self.num_layers < 1:
            found.append(f"num_layers {self.num_layers}: at least 1")
        return found


class Discriminator(nn.Module):
    """Says of overlapping patches how real they look."""

    def __init__(self, config: AdversarialConfig, seed: int) -> None:
        """Draw the weights, a pure function of (config, seed)."""
        super().__init__()
        widths = [config.width * min(2**at, 8) for at in range(config.num_layers)]
        layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 4, 2, 1), nn.LeakyReLU(0.2)]
        for finer, coarser in zip(widths, widths[1:], strict=False):
            layers += _layer(finer, coarser, stride=2)
        layers += _layer(widths[-1], widths[-1], stride=1)
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 3, padding=1))
        with torch.no_grad():
            for name, one in self.named_parameters():
                if one.ndim > 1:  # norms and biases begin as torch has them
                    std = prod(one.shape[1:]) ** -0.5
                    one.copy_(normal(seed, f"discriminator.{name}", tuple(one.shape), std))
                elif name.endswith("bias"):
                    one.zero_()

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return a number for each patch, float (B, 1, h, w): above 0 for originals."""
        return self.layers(images_BCHW)

    def fooled(self, images_BCHW: Tensor) -> Tensor:
        """Return -D(x), the loss of who made the images; its gradients leave D's weights alone."""
        fixed = {name: one.detach() for name, one in self.named_parameters()}
        return -functional_call(self, fixed, (images_BCHW,)).mean()

    def hinge(self, images_BCHW: Tensor, originals_BCHW: Tensor) -> Tensor:
        """Return D's own loss: Lim and Ye, arXiv 1705.02894, sec. 3, over two."""
        real, fake = self(originals_BCHW), self(images_BCHW.detach())
        return (F.relu(1 - real).mean() + F.relu(1 + fake).mean()) / 2


def _layer(given: int, made: int, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(given, made, 4 if stride == 2 else 3, stride, 1, bias=False)
    return [convolution, nn.GroupNorm(NUM_GROUPS, made), nn.LeakyReLU(0.2)]


def adaptive_weight(reconstruction_grad: Tensor, adversarial_grad: Tensor) -> Tensor:
    """Return lambda of VQGAN, eq. 7, for the gradients of the two losses in the last layer of the
    decoder: |grad L_rec| / (|grad L_GAN| + delta), delta = 1e-6.
    """
    return reconstruction_grad.norm() / (adversarial_grad.norm() + 1e-6)
