"""Quantizers on two ranks, each with half of a batch: what `pair` calls on both."""

import torch
import torch.distributed as dist

from unimodal.tokenizer.quantizers.config import LfqConfig, QuantizerConfig, VqConfig
from unimodal.tokenizer.quantizers.quantizer import Quantizer
from unimodal.train.ranks import Ranks

LFQ = QuantizerConfig(lfq=LfqConfig(bits=6, commitment_weight=0.0, temperature=1.0))
VQ = QuantizerConfig(vq=VqConfig(num_codes=5, width=4))
RESTARTED = QuantizerConfig(vq=VqConfig(num_codes=200, width=4))


def batch(width: int) -> torch.Tensor:
    """The latent vectors of all ranks."""
    return torch.randn(2, 6, 6, width, generator=torch.Generator().manual_seed(0))


def slopes(quantizer: Quantizer, z_BhwD: torch.Tensor) -> torch.Tensor:
    """The gradient of all losses."""
    z_BhwD = z_BhwD.clone().requires_grad_()
    sum(quantizer(z_BhwD).losses.values()).backward()
    return z_BhwD.grad


def of_halves(ranks: Ranks) -> dict:
    """What each rank's quantizers made of its half, gathered on all."""
    half = slice(ranks.rank, ranks.rank + 1)
    gradient = slopes(LFQ.build(0), batch(6)[half])
    gradients = [torch.zeros_like(gradient) for _ in range(2)]
    dist.all_gather(gradients, gradient)
    # A data-parallel engine takes the mean over ranks of what the ranks' latents give.
    found = {"gradient": (torch.cat(gradients) / 2).flatten().tolist()}
    for name, config in (("learned", VQ), ("restarted", RESTARTED)):
        quantizer = config.build(0)
        for _ in range(2):
            quantizer(batch(4)[half])
        books = [torch.zeros_like(quantizer.codebook) for _ in range(2)]
        dist.all_gather(books, quantizer.codebook)
        found[name] = [book.flatten().tolist() for book in books]
    return found
