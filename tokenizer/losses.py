"""What an image tokenizer is trained to make small.

    L = l1 |x - y| + l2 (x - y)^2 + perceptual + quantizer's losses + semantic + adversarial

Each term is a mean over the batch; those that are not configured cost nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .autoencoder import Reconstruction
from .discriminator import AdversarialConfig, Discriminator, adaptive_weight
from .perceptual import Perceptual, PerceptualConfig
from .quantizers.ranks import total
from .semantic import Semantic, SemanticConfig

Reports = dict[str, Tensor]  # scalars by name


@dataclass(frozen=True)
class TokenizerLossConfig:
    """Weigh the terms of an image tokenizer's loss."""

    l1: float = 1.0
    """Of the mean absolute error of pixels in [-1, 1], for sharp edges."""
    l2: float = 1.0
    """Of the mean squared error, for PSNR."""
    perceptual: PerceptualConfig | None = None
    adversarial: AdversarialConfig | None = None
    semantic: SemanticConfig | None = None

    @property
    def sees_pixels(self) -> bool:
        """Return whether a term compares pixels, without which there is nothing to decode for."""
        return self.l1 > 0 or self.l2 > 0 or self.perceptual is not None

    def problems(self) -> list[str]:
        """Return what is wrong with the values, one sentence each."""
        found = [f"{n} {getattr(self, n)}: at least 0" for n in ("l1", "l2")
                 if not getattr(self, n) >= 0]  # fmt: skip
        if self.l1 == self.l2 == 0 and self.perceptual is None and self.semantic is None:
            found.append("l1 and l2 are both 0, and nothing else is asked for")
        if self.l1 == self.l2 == 0 and self.perceptual is None and self.adversarial is not None:
            found.append("adversarial: its weight follows l1, l2 or perceptual; none is asked for")
        return found


class TokenizerLoss(nn.Module):
    """The loss of reconstructions, and the networks that it takes."""

    def __init__(self, config: TokenizerLossConfig, latent_width: int, seed: int) -> None:
        """Load and draw the networks; ValueError where a backbone cannot be had."""
        super().__init__()
        self.config = config
        perceptual, semantic, adversarial = config.perceptual, config.semantic, config.adversarial
        self.perceptual = Perceptual(perceptual) if perceptual else None
        self.semantic = Semantic(semantic, latent_width, seed) if semantic else None
        self.discriminator = Discriminator(adversarial, seed) if adversarial else None

    def forward(
        self,
        made: Reconstruction,
        originals_BCHW: Tensor,
        last: Tensor | None,
        step: int,
        share: float,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the scalar to differentiate and the scalars to report.

        All are times `share`, this process's share of the images of a step, and add up over
        processes. The first one holds the discriminator's loss too: neither's gradients reach the
        other's weights. `last`: the weight of the decoder's last layer; `step`: from 0.
        """
        seen, reports = self._visible(made, originals_BCHW)
        hidden, more = self._hidden(made, originals_BCHW)
        loss, own = seen + hidden, torch.zeros_like(seen)
        adversarial = self.config.adversarial
        if adversarial is not None and step >= adversarial.start_step and torch.is_grad_enabled():
            assert self.discriminator is not None, "it is configured"
            assert made.images_BCHW is not None and last is not None, "its weight follows pixels"
            images_BCHW = made.images_BCHW.float()
            fooled = self.discriminator.fooled(images_BCHW)
            weight = _weight(seen * share, fooled * share, last)
            loss = loss + adversarial.weight * weight * fooled
            own = self.discriminator.hinge(images_BCHW, originals_BCHW)
            more |= {"adversarial": fooled, "adaptive_weight": weight, "discriminator": own}
        reports = {"loss": loss, **reports, **more}
        shared = {name: value.detach() * share for name, value in reports.items()}
        return (loss + own) * share, shared

    def _visible(self, made: Reconstruction, originals_BCHW: Tensor) -> tuple[Tensor, Reports]:
        """Return the loss of images beside their originals, and its terms unweighted: none without
        a decoder.
        """
        if made.images_BCHW is None:
            return originals_BCHW.new_zeros(()), {}
        images_BCHW = made.images_BCHW.float()
        error_BCHW = images_BCHW - originals_BCHW
        terms = {"absolute": error_BCHW.abs().mean(), "squared": error_BCHW.square().mean()}
        loss = self.config.l1 * terms["absolute"] + self.config.l2 * terms["squared"]
        if self.perceptual is not None and self.config.perceptual is not None:
            terms["perceptual"] = self.perceptual(images_BCHW, originals_BCHW)
            loss = loss + self.config.perceptual.weight * terms["perceptual"]
        return loss, terms

    def _hidden(self, made: Reconstruction, originals_BCHW: Tensor) -> tuple[Tensor, Reports]:
        """Return the loss of quantized vectors, and its terms."""
        losses = made.quantized.losses
        loss = sum(losses.values(), originals_BCHW.new_zeros(()))
        terms = {f"quantizer_{name}": value for name, value in losses.items()}
        if self.semantic is not None and self.config.semantic is not None:
            terms["semantic"] = self.semantic(made.quantized.vectors, originals_BCHW)
            loss = loss + self.config.semantic.weight * terms["semantic"]
        return loss, terms

    @torch.no_grad()
    def check(self, height: int, width: int) -> None:
        """Raise ValueError where a network cannot take images of so many pixels."""
        networks = {"perceptual": self.perceptual and self.perceptual.backbone,
                    "semantic": self.semantic and self.semantic.backbone,
                    "adversarial": self.discriminator}  # fmt: skip
        for name, network in networks.items():
            if network is None:
                continue
            try:
                network(next(network.parameters()).new_zeros(1, 3, height, width))
            except RuntimeError as error:
                raise ValueError(
                    f"loss.{name}: its network cannot take images of {width} x {height} pixels "
                    f"({error})"
                ) from error

    def trained(self) -> Iterator[tuple[str, nn.Module]]:
        """Yield the networks that learn beside the tokenizer, by name."""
        if self.semantic is not None:
            yield "semantic", self.semantic.head
        if self.discriminator is not None:
            yield "discriminator", self.discriminator


def _weight(reconstruction: Tensor, adversarial: Tensor, last: Tensor) -> Tensor:
    """Return the adaptive weight of this step, the same in every process."""
    gradients = [
        torch.autograd.grad(one, last, retain_graph=True)[0]
        for one in (reconstruction, adversarial)
    ]
    return adaptive_weight(*(total(one) for one in gradients))
